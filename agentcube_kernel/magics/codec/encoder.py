"""Write variables into a file."""

from __future__ import annotations

import base64
import datetime
import decimal
import fractions
import json
import math
import pathlib
import struct
import uuid
from typing import Any

from .encoder_frames import FrameEncoder, type_name
from .format import (
    DECIMAL_LIMIT,
    DEPTH_LIMIT,
    FRACTION_BIT_LIMIT,
    HEX_DIGIT_LIMIT,
    MAGIC,
    TREE_LIMIT,
    CodecError,
    decimal_fits,
)


class Encoder:
    """Writes variables into a binary file. `arrow` says whether the reader has pyarrow."""

    def __init__(self, file: Any, arrow: bool = False, pickle: bool = False) -> None:
        self._file = file
        self._pickle = pickle
        self._open: list[Any] = []
        self._frames = FrameEncoder(file, self.encode, self.encode_items, arrow=arrow)
        self.pickled: list[str] = []
        file.write(MAGIC)

    def finish(self, variables: Any) -> None:
        """Write all of them, by name. Raises CodecError naming the first that cannot be sent, and why."""
        tree = {}
        for name, value in variables.items():
            try:
                tree[name] = self.encode(value, 0)
            except (CodecError, RecursionError) as exc:
                if not self._pickle:
                    raise CodecError(
                        f"{name}: {'it is nested too deeply' if isinstance(exc, RecursionError) else exc}"
                    ) from None
                tree[name] = self._pickled(name, value)
        text = json.dumps(tree, separators=(",", ":")).encode("ascii")
        if len(text) > TREE_LIMIT:
            raise CodecError(
                f"plain data of {len(text) >> 20} MiB are more than the {TREE_LIMIT >> 20} MiB that are sent; arrays, "
                "frames and bytes may be larger"
            )
        self._file.write(text)
        self._file.write(struct.pack("<Q", len(text)))

    def _pickled(self, name: Any, value: Any) -> Any:
        import pickle

        try:
            start = self._file.tell()
            pickle.dump(value, self._file, protocol=4)
        except Exception as exc:
            raise CodecError(f"{name}: it cannot be pickled either ({type(exc).__name__}: {exc})") from None
        self.pickled.append(name)
        return {"$": "pickle", "at": start}

    def encode(self, value: Any, depth: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is int:
            return value if kind is not int or abs(value) < 10**4000 else self._big_int(value)
        if kind is str:
            return (
                value
                if _encodable(value)
                else {"$": "str", "v": base64.b64encode(_surrogates(value)).decode()}
            )
        if kind is float:
            return value if math.isfinite(value) else {"$": "float", "v": repr(value)}
        if depth > DEPTH_LIMIT:
            raise CodecError("it is nested too deeply, or refers to itself")
        if kind is list:
            return self.encode_items(value, depth)
        if kind is dict:
            return self._dict(value, depth)
        if kind in (tuple, set, frozenset):
            return {"$": kind.__name__, "v": self.encode_items(value, depth)}
        return self._special(value, kind, depth)

    def _big_int(self, value: Any) -> Any:
        if value.bit_length() > 4 * HEX_DIGIT_LIMIT:
            raise CodecError(f"an integer of more than {HEX_DIGIT_LIMIT} hexadecimal digits")
        return {"$": "int", "v": hex(value)}

    def encode_items(self, values: Any, depth: Any) -> Any:
        if any(values is outer for outer in self._open):
            raise CodecError("it refers to itself")
        self._open.append(values)
        try:
            return [self.encode(item, depth + 1) for item in values]
        finally:
            self._open.pop()

    def _dict(self, value: Any, depth: Any) -> Any:
        if any(value is outer for outer in self._open):
            raise CodecError("it refers to itself")
        self._open.append(value)
        try:
            if all(type(key) is str and key != "$" and _encodable(key) for key in value):
                return {key: self.encode(item, depth + 1) for key, item in value.items()}
            pairs = [[self.encode(k, depth + 1), self.encode(v, depth + 1)] for k, v in value.items()]
            return {"$": "dict", "v": pairs}
        finally:
            self._open.pop()

    def _special(self, value: Any, kind: Any, depth: Any) -> Any:
        if kind in (bytes, bytearray):
            start = self._file.tell()
            self._file.write(value)
            return {"$": kind.__name__, "at": start, "n": len(value)}
        if kind is complex:
            return {"$": "complex", "v": [repr(value.real), repr(value.imag)]}
        if kind is range:
            return {"$": "range", "v": [value.start, value.stop, value.step]}
        if kind is slice:
            return {
                "$": "slice",
                "v": [self.encode(x, depth + 1) for x in (value.start, value.stop, value.step)],
            }
        if kind in (datetime.datetime, datetime.date, datetime.time):
            return self._moment(value, kind)
        if kind is datetime.timedelta:
            return {"$": "timedelta", "v": [value.days, value.seconds, value.microseconds]}
        if kind is decimal.Decimal:
            if not decimal_fits(value):
                raise CodecError(f"a decimal number of more than {DECIMAL_LIMIT} digits")
            return {"$": "decimal", "v": str(value)}
        if kind is fractions.Fraction:
            parts = (value.numerator, value.denominator)
            if max(part.bit_length() for part in parts) > FRACTION_BIT_LIMIT:
                raise CodecError(f"a fraction of more than {FRACTION_BIT_LIMIT} bits")
            return {"$": "fraction", "v": [self.encode(part, depth + 1) for part in parts]}
        if kind is uuid.UUID:
            return {"$": "uuid", "v": str(value)}
        if isinstance(value, pathlib.PurePath):
            return {"$": "path", "v": str(value)}
        found = self._frames.encode(value, kind, depth)
        if found is None:
            raise CodecError(
                f"a {type_name(kind)} cannot be sent without pickle; send its plain data, or say --pickle"
            )
        return found

    def _moment(self, value: Any, kind: Any) -> Any:
        zone = getattr(value, "tzinfo", None)
        if zone is not None:
            key = getattr(zone, "key", None)
            fixed: Any = zone.utcoffset(None) if type(zone) is datetime.timezone else None
            if key is None and fixed is None:
                raise CodecError(f"its time zone is a {type_name(type(zone))}, which cannot be sent")
            plain = value.replace(tzinfo=None).isoformat()
            where = key if key is not None else fixed.total_seconds()
            return {"$": kind.__name__, "v": plain, "tz": where, "fold": value.fold}
        return {"$": kind.__name__, "v": value.isoformat()}


def _encodable(text: Any) -> Any:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _surrogates(text: Any) -> Any:
    return text.encode("utf-16-le", "surrogatepass")
