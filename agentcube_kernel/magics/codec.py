"""Variables as files that carry no code: JSON for plain data, npy for arrays, Arrow or columns for frames.

This file runs on both sides: here, and as source inside the sandbox, so it imports the standard library alone, and
NumPy, pandas and pyarrow where they are used. A file holds the binary parts one after the other and then one JSON tree
that refers to them; its last eight bytes are the length of the tree. Reading never runs anything that was read, unless
the reader allows pickle; whatever has not the stated shape raises `CodecError`.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import fractions
import json
import math
import os
import pathlib
import struct
import sys
import uuid
from typing import Any

MAGIC = b"AGENTCUBE-VARS-1\n"
DEPTH_LIMIT = 200
# What IPython puts into every namespace.
_SHELLS = frozenset({"In", "Out", "exit", "get_ipython", "open", "quit"})
_TEXT_TYPES = {
    "decimal": decimal.Decimal,
    "fraction": fractions.Fraction,
    "uuid": uuid.UUID,
}


class CodecError(ValueError):
    """A value cannot be sent, or a file is not of this format."""


class Encoder:
    """Writes variables into a binary file. `arrow` says whether the reader has pyarrow."""

    def __init__(self, file: Any, arrow: bool = False, pickle: bool = False) -> None:
        self._file = file
        self._arrow = arrow
        self._pickle = pickle
        self._open: list[Any] = []
        self.pickled: list[str] = []
        file.write(MAGIC)

    def finish(self, variables: Any) -> None:
        """Write all of them, by name. Raises CodecError naming the first that cannot be sent, and why."""
        tree = {}
        for name, value in variables.items():
            try:
                tree[name] = self._encode(value, 0)
            except (CodecError, RecursionError) as exc:
                if not self._pickle:
                    raise CodecError(
                        f"{name}: {'it is nested too deeply' if isinstance(exc, RecursionError) else exc}"
                    ) from None
                tree[name] = self._pickled(name, value)
        text = json.dumps(tree, separators=(",", ":")).encode("ascii")
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

    def _encode(self, value: Any, depth: Any) -> Any:
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
            return self._items(value, depth)
        if kind is dict:
            return self._dict(value, depth)
        if kind in (tuple, set, frozenset):
            return {"$": kind.__name__, "v": self._items(value, depth)}
        return self._special(value, kind, depth)

    def _big_int(self, value: Any) -> Any:
        return {"$": "int", "v": hex(value)}

    def _items(self, values: Any, depth: Any) -> Any:
        if any(values is outer for outer in self._open):
            raise CodecError("it refers to itself")
        self._open.append(values)
        try:
            return [self._encode(item, depth + 1) for item in values]
        finally:
            self._open.pop()

    def _dict(self, value: Any, depth: Any) -> Any:
        if any(value is outer for outer in self._open):
            raise CodecError("it refers to itself")
        self._open.append(value)
        try:
            if all(type(key) is str and key != "$" and _encodable(key) for key in value):
                return {key: self._encode(item, depth + 1) for key, item in value.items()}
            pairs = [[self._encode(k, depth + 1), self._encode(v, depth + 1)] for k, v in value.items()]
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
                "v": [self._encode(x, depth + 1) for x in (value.start, value.stop, value.step)],
            }
        if kind in (datetime.datetime, datetime.date, datetime.time):
            return self._moment(value, kind)
        if kind is datetime.timedelta:
            return {"$": "timedelta", "v": [value.days, value.seconds, value.microseconds]}
        if kind in _TEXT_TYPES.values():
            name = next(name for name, cls in _TEXT_TYPES.items() if cls is kind)
            return {"$": name, "v": str(value)}
        if isinstance(value, pathlib.PurePath):
            return {"$": "path", "v": str(value)}
        return self._scientific(value, kind, depth)

    def _moment(self, value: Any, kind: Any) -> Any:
        zone = getattr(value, "tzinfo", None)
        if zone is not None:
            key = getattr(zone, "key", None)
            fixed: Any = zone.utcoffset(None) if type(zone) is datetime.timezone else None
            if key is None and fixed is None:
                raise CodecError(f"its time zone is a {_type_name(type(zone))}, which cannot be sent")
            plain = value.replace(tzinfo=None).isoformat()
            where = key if key is not None else fixed.total_seconds()
            return {"$": kind.__name__, "v": plain, "tz": where, "fold": value.fold}
        return {"$": kind.__name__, "v": value.isoformat()}

    def _scientific(self, value: Any, kind: Any, depth: Any) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
            return self._array(value, numpy)
        pandas = sys.modules.get("pandas")
        if pandas is not None:
            if value is pandas.NaT:
                return {"$": "NaT"}
            if value is pandas.NA:
                return {"$": "NA"}
            if kind in (pandas.Timestamp, pandas.Timedelta):
                return (
                    {"$": kind.__name__, "v": self._array(pandas.Series([value]).to_numpy(), numpy)}
                    if (kind is pandas.Timedelta or value.tz is None)
                    else {"$": "zoned", "v": self._column(pandas.Series([value]), pandas, numpy, depth)}
                )
            if kind is pandas.DataFrame:
                return self._frame(value, pandas, numpy, depth)
            if kind is pandas.Series:
                column = self._column(value, pandas, numpy, depth)
                index = self._index(value.index, pandas, numpy, depth)
                return {"$": "Series", "c": column, "i": index, "n": self._encode(value.name, depth + 1)}
            if isinstance(value, pandas.Index):
                return {"$": "Index", "v": self._index(value, pandas, numpy, depth)}
        raise CodecError(
            f"a {_type_name(kind)} cannot be sent without pickle; send its plain data, or say --pickle"
        )

    def _array(self, value: Any, numpy: Any) -> Any:
        if value.dtype.hasobject:
            raise CodecError("an array of Python objects cannot be sent without pickle; say --pickle")
        if type(value) is not numpy.ndarray and isinstance(value, numpy.ndarray):
            raise CodecError(
                f"a {_type_name(type(value))} cannot be sent without pickle; send numpy.asarray of it"
            )
        scalar = isinstance(value, numpy.generic)
        array = numpy.asarray(value)
        start = self._file.tell()
        numpy.lib.format.write_array(self._file, array, allow_pickle=False)
        return {"$": "scalar" if scalar else "array", "at": start}

    def _frame(self, frame: Any, pandas: Any, numpy: Any, depth: Any) -> Any:
        if self._arrow and _plain_columns(frame):
            at = self._arrow_frame(frame)
            if at is not None:
                return {"$": "arrow", "at": at}
        columns = [self._column(frame.iloc[:, i], pandas, numpy, depth) for i in range(frame.shape[1])]
        return {
            "$": "DataFrame",
            "c": columns,
            "i": self._index(frame.index, pandas, numpy, depth),
            "k": self._index(frame.columns, pandas, numpy, depth),
        }

    def _arrow_frame(self, frame: Any) -> Any:
        try:
            import pyarrow  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            return None
        try:
            table = pyarrow.Table.from_pandas(frame)
        except Exception:
            return None  # objects that Arrow has no type for; columns may still do
        start = self._file.tell()
        with pyarrow.ipc.new_stream(self._file, table.schema) as writer:
            writer.write_table(table)
        return start

    def _column(self, series: Any, pandas: Any, numpy: Any, depth: Any) -> Any:
        dtype = series.dtype
        if isinstance(dtype, pandas.CategoricalDtype):
            return {
                "t": "category",
                "o": bool(dtype.ordered),
                "v": self._array(series.cat.codes.to_numpy(), numpy),
                "k": self._index(dtype.categories, pandas, numpy, depth),
            }
        if isinstance(dtype, pandas.DatetimeTZDtype):
            plain = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
            return {"t": "zoned", "v": self._array(plain, numpy), "tz": str(dtype.tz)}
        if isinstance(dtype, numpy.dtype) and not dtype.hasobject:
            return {"t": "array", "v": self._array(series.to_numpy(), numpy)}
        values = [None if value is pandas.NA else value for value in series.tolist()]
        return {"t": "list", "d": str(dtype), "v": self._items(values, depth + 1)}

    def _index(self, index: Any, pandas: Any, numpy: Any, depth: Any) -> Any:
        if isinstance(index, pandas.MultiIndex):
            levels = [
                self._index(index.get_level_values(i), pandas, numpy, depth) for i in range(index.nlevels)
            ]
            return {"t": "multi", "v": levels, "n": self._items(list(index.names), depth + 1)}
        name = self._encode(index.name, depth + 1)
        if type(index) is pandas.RangeIndex:
            return {"t": "range", "v": [index.start, index.stop, index.step], "n": name}
        if isinstance(index, (pandas.PeriodIndex, pandas.IntervalIndex)):
            raise CodecError(
                f"an index of type {type(index).__name__} cannot be sent without pickle; say --pickle"
            )
        column = self._column(index.to_series().reset_index(drop=True), pandas, numpy, depth)
        return {"t": "column", "v": column, "n": name}


class Decoder:
    """Reads what `Encoder` wrote. Without `pickle`, nothing in the file can run code."""

    def __init__(self, file: Any, pickle: bool = False) -> None:
        self._file = file
        self._pickle = pickle
        file.seek(0, os.SEEK_END)
        self._size = file.tell()

    def read(self) -> dict[str, Any]:
        """The variables, by name."""
        try:
            tree = self._tree()
            return {name: self._decode(value, 0) for name, value in tree.items()}
        except CodecError:
            raise
        except ImportError as exc:
            raise CodecError(
                f"{exc.name} is needed for one of the values and is not installed here"
            ) from None
        except Exception as exc:
            raise CodecError(f"the transferred file is damaged ({type(exc).__name__}: {exc})") from None

    def _tree(self) -> Any:
        if self._size < len(MAGIC) + 8:
            raise CodecError("the transferred file is too short")
        self._file.seek(0)
        if self._file.read(len(MAGIC)) != MAGIC:
            raise CodecError("this is not a file of variables")
        self._file.seek(-8, os.SEEK_END)
        (length,) = struct.unpack("<Q", self._file.read(8))
        if length > self._size - len(MAGIC) - 8:
            raise CodecError("the transferred file is damaged")
        self._file.seek(self._size - 8 - length)
        tree = json.loads(self._file.read(length))
        if not isinstance(tree, dict) or not all(name.isidentifier() for name in tree):
            raise CodecError("the transferred file is damaged")
        return tree

    def _seek(self, at: Any, length: Any = 0) -> None:
        if type(at) is not int or type(length) is not int or at < len(MAGIC) or length < 0:
            raise CodecError("the transferred file is damaged")
        if at + length > self._size - 8:
            raise CodecError("the transferred file is damaged")
        self._file.seek(at)

    def _decode(self, value: Any, depth: Any) -> Any:
        if depth > DEPTH_LIMIT + 10:
            raise CodecError("the transferred file is nested too deeply")
        if isinstance(value, list):
            return [self._decode(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        if "$" not in value:
            return {key: self._decode(item, depth + 1) for key, item in value.items()}
        kind = value["$"]
        if kind in ("tuple", "set", "frozenset", "dict"):
            items = [self._decode(item, depth + 1) for item in value["v"]]
            return {"tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict}[kind](items)
        read = getattr(self, "_read_" + kind, None) if kind.isidentifier() else None
        if read is None:
            raise CodecError(f"a value of unknown kind {kind[:40]!r}")
        return read(value, depth)

    def _read_int(self, value: Any, depth: Any) -> Any:
        return int(value["v"], 16)

    def _read_str(self, value: Any, depth: Any) -> Any:
        return base64.b64decode(value["v"]).decode("utf-16-le", "surrogatepass")

    def _read_float(self, value: Any, depth: Any) -> Any:
        return float(value["v"])

    def _read_complex(self, value: Any, depth: Any) -> Any:
        return complex(float(value["v"][0]), float(value["v"][1]))

    def _read_range(self, value: Any, depth: Any) -> Any:
        return range(*map(int, value["v"]))

    def _read_slice(self, value: Any, depth: Any) -> Any:
        return slice(*(self._decode(item, depth + 1) for item in value["v"]))

    def _read_bytes(self, value: Any, depth: Any) -> Any:
        self._seek(value["at"], value["n"])
        return self._file.read(value["n"])

    def _read_bytearray(self, value: Any, depth: Any) -> Any:
        return bytearray(self._read_bytes(value, depth))

    def _read_path(self, value: Any, depth: Any) -> Any:
        return pathlib.PurePosixPath(value["v"]) if os.name != "posix" else pathlib.Path(value["v"])

    def _read_timedelta(self, value: Any, depth: Any) -> Any:
        days, seconds, microseconds = value["v"]
        return datetime.timedelta(days=days, seconds=seconds, microseconds=microseconds)

    def _read_date(self, value: Any, depth: Any) -> Any:
        return datetime.date.fromisoformat(value["v"])

    def _read_datetime(self, value: Any, depth: Any) -> Any:
        return self._zoned(datetime.datetime.fromisoformat(value["v"]), value)

    def _read_time(self, value: Any, depth: Any) -> Any:
        return self._zoned(datetime.time.fromisoformat(value["v"]), value)

    @staticmethod
    def _zoned(plain: Any, value: Any) -> Any:
        where = value.get("tz")
        if where is None:
            return plain
        if isinstance(where, str):
            import zoneinfo

            return plain.replace(tzinfo=zoneinfo.ZoneInfo(where), fold=int(value["fold"]))
        return plain.replace(tzinfo=datetime.timezone(datetime.timedelta(seconds=where)))

    def _read_decimal(self, value: Any, depth: Any) -> Any:
        return decimal.Decimal(value["v"])

    def _read_fraction(self, value: Any, depth: Any) -> Any:
        return fractions.Fraction(value["v"])

    def _read_uuid(self, value: Any, depth: Any) -> Any:
        return uuid.UUID(value["v"])

    def _read_pickle(self, value: Any, depth: Any) -> Any:
        if not self._pickle:
            raise CodecError("the file holds a pickled value, which was not asked for")
        import pickle

        self._seek(value["at"])
        return pickle.load(self._file)  # noqa: S301 - the user said --pickle

    def _read_array(self, value: Any, depth: Any) -> Any:
        import numpy

        self._seek(value["at"])
        form = numpy.lib.format
        version = form.read_magic(self._file)
        header = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}.get(version)
        if header is None:
            raise CodecError("an array of an unknown version")
        shape, _, dtype = header(self._file)
        # What it says of its size is checked before memory is taken for it.
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > self._size - self._file.tell():
            raise CodecError("an array that is not what it says")
        self._seek(value["at"])
        return form.read_array(self._file, allow_pickle=False)

    def _read_scalar(self, value: Any, depth: Any) -> Any:
        return self._read_array(value, depth)[()]

    def _read_NaT(self, value: Any, depth: Any) -> Any:
        return _pandas().NaT

    def _read_NA(self, value: Any, depth: Any) -> Any:
        return _pandas().NA

    def _read_Timestamp(self, value: Any, depth: Any) -> Any:
        return _pandas().Series(self._read_array(value["v"], depth))[0]

    _read_Timedelta = _read_Timestamp

    def _read_zoned(self, value: Any, depth: Any) -> Any:
        return self._column(value["v"], _pandas(), depth)[0]

    def _read_arrow(self, value: Any, depth: Any) -> Any:
        import pyarrow

        self._seek(value["at"])
        table = pyarrow.ipc.open_stream(self._file).read_all()
        table.validate(full=True)
        return table.to_pandas()

    def _read_Series(self, value: Any, depth: Any) -> Any:
        pandas = _pandas()
        series = self._column(value["c"], pandas, depth)
        series.index = self._index(value["i"], pandas, depth)
        series.name = _hashable(self._decode(value["n"], depth + 1))
        return series

    def _read_DataFrame(self, value: Any, depth: Any) -> Any:
        pandas = _pandas()
        index = self._index(value["i"], pandas, depth)
        columns = [self._column(column, pandas, depth) for column in value["c"]]
        for column in columns:
            column.index = index
        frame = pandas.concat(columns, axis=1) if columns else pandas.DataFrame(index=index)
        frame.columns = self._index(value["k"], pandas, depth)
        return frame

    def _read_Index(self, value: Any, depth: Any) -> Any:
        return self._index(value["v"], _pandas(), depth)

    def _column(self, column: Any, pandas: Any, depth: Any) -> Any:
        kind = column["t"]
        if kind == "list":
            values = [self._decode(item, depth + 1) for item in column["v"]]
            dtype = column["d"]
            return pandas.Series(values, dtype=dtype if dtype != "object" else object)
        array = self._read_array(column["v"], depth)
        if kind == "zoned":
            return pandas.Series(array).dt.tz_localize("UTC").dt.tz_convert(column["tz"])
        if kind == "category":
            categories = self._index(column["k"], pandas, depth)
            return pandas.Series(pandas.Categorical.from_codes(array, categories, ordered=bool(column["o"])))
        return pandas.Series(array)

    def _index(self, index: Any, pandas: Any, depth: Any) -> Any:
        kind = index["t"]
        if kind == "multi":
            levels = [self._index(level, pandas, depth + 1) for level in index["v"]]
            names = [_hashable(self._decode(name, depth + 1)) for name in index["n"]]
            return pandas.MultiIndex.from_arrays(levels, names=names)
        name = _hashable(self._decode(index["n"], depth + 1))
        if kind == "range":
            start, stop, step = map(int, index["v"])
            return pandas.RangeIndex(start, stop, step, name=name)
        return pandas.Index(self._column(index["v"], pandas, depth), name=name)


def _pandas() -> Any:
    import pandas

    return pandas


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain_columns(frame: Any) -> Any:
    """Whether Arrow keeps the frame as it is: column names that are all text, each once."""
    names = list(frame.columns)
    return (
        all(type(name) is str for name in names)
        and len(set(names)) == len(names)
        and frame.columns.name is None
    )


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


def _type_name(kind: Any) -> Any:
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def answer(namespace: Any, request: Any) -> Any:
    """What the sandbox's side does for one transfer. Returns JSON; errors are told in it, never raised."""
    try:
        reply = {"dump": _dump, "load": _load, "facts": _facts, "check": _check}[request["do"]](
            namespace, request
        )
    except CodecError as exc:
        reply = {"error": str(exc)}
    except Exception as exc:
        reply = {"error": f"{type(exc).__name__}: {exc}"}
    return json.dumps(reply)


def _facts(namespace: Any, request: Any) -> Any:
    import importlib.util

    return {name: importlib.util.find_spec(name) is not None for name in ("numpy", "pandas", "pyarrow")}


def _check(namespace: Any, request: Any) -> Any:
    missing = [name for name in request["names"] if name not in namespace]
    near = [name for name in namespace if not name.startswith("_") and name not in _SHELLS]
    return {"missing": missing, "near": sorted(near)[:2000]}


def _dump(namespace: Any, request: Any) -> Any:
    if "out" in request:
        number = request["out"]
        values = {request["name"]: None if number is None else namespace["Out"][number]}
        return dump(values, request["path"], arrow=request["arrow"], pickle=request["pickle"])
    checked = _check(namespace, request)
    if checked["missing"]:
        return checked
    names = request["names"]
    values = {request.get("as", {}).get(name, name): namespace[name] for name in names}
    return dump(values, request["path"], arrow=request["arrow"], pickle=request["pickle"])


def _load(namespace: Any, request: Any) -> Any:
    try:
        with open(request["path"], "rb") as file:
            values = Decoder(file, pickle=request["pickle"]).read()
    finally:
        os.unlink(request["path"])
    store(namespace, values, request.get("key"))
    return {"names": sorted(values)}


def store(namespace: Any, values: Any, key: Any = None) -> None:
    """Set variables; with `key`, as an item of dictionaries that have their names."""
    if key is None:
        namespace.update(values)
        return
    for name, value in values.items():
        collected = namespace.get(name)
        if not isinstance(collected, dict):
            collected = namespace[name] = {}
        collected[key] = value


def dump(values: Any, path: Any, arrow: bool = False, pickle: bool = False) -> dict[str, Any]:
    """Write variables into a new file that only its owner can read. Nothing is left when that fails."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with open(fd, "wb") as file:
            encoder = Encoder(file, arrow=arrow, pickle=pickle)
            encoder.finish(values)
            size = file.tell()
    except BaseException:
        os.unlink(path)
        raise
    return {"size": size, "pickled": encoder.pickled}
