"""Read variables from a file that somebody hostile may have written."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from .budget import Budget
from .decoder_frames import FrameDecoder
from .decoder_scalars import SCALARS
from .format import DEPTH_LIMIT, MAGIC, TREE_LIMIT, CodecError, damaged


class Decoder:
    """Reads what `Encoder` wrote. Without `pickle`, nothing in the file can run code.

    `stop` is an event that ends the reading from another thread.
    """

    def __init__(self, file: Any, pickle: bool = False, stop: Any = None) -> None:
        self._file = file
        self._pickle = pickle
        file.seek(0, os.SEEK_END)
        self._size = file.tell()
        self._budget = Budget(self._size, stop)
        self._frames = FrameDecoder(self._open_part, self._budget, self.decode)

    def read(self, names: Any = None) -> dict[str, Any]:
        """The variables of these names, or all of them. What else the file holds is not looked at.

        Raises CodecError.
        """
        try:
            tree = self._tree()
            wanted = list(tree) if names is None else list(names)
            missing = [name for name in wanted if name not in tree]
            if missing:
                raise CodecError(f"the transferred file does not hold {', '.join(missing)}")
            return {name: self.decode(tree[name], 0) for name in wanted}
        except CodecError:
            raise
        except ImportError as exc:
            raise CodecError(
                f"{exc.name} is needed for one of the values and is not installed here"
            ) from None
        except Exception as exc:
            raise CodecError(
                f"the transferred file is damaged ({type(exc).__name__}: {str(exc)[:200]})"
            ) from None

    def decode(self, value: Any, depth: Any) -> Any:
        """The value that a part of the tree stands for."""
        if depth > DEPTH_LIMIT + 10:
            raise CodecError("the transferred file is nested too deeply")
        if isinstance(value, list):
            self._budget.step()
            return [self.decode(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        self._budget.step()
        if "$" not in value:
            return {key: self.decode(item, depth + 1) for key, item in value.items()}
        return self._tagged(value["$"], value, depth)

    def _tagged(self, kind: Any, value: Any, depth: Any) -> Any:
        if kind in SCALARS:
            return SCALARS[kind](value["v"])
        if kind in ("tuple", "set", "frozenset", "dict"):
            return self._collection(kind, value["v"], depth)
        if kind in ("slice", "fraction", "datetime", "time"):
            return self._composed(kind, value, depth)
        if kind in ("bytes", "bytearray"):
            data = self._open_part(value["at"], value["n"]).read(value["n"])
            return data if kind == "bytes" else bytearray(data)
        if kind == "pickle":
            return self._unpickled(value["at"])
        found = self._frames.decode(kind, value, depth)
        if found is None:
            raise CodecError(f"a value of unknown kind {str(kind)[:40]!r}")
        return found[0]

    def _composed(self, kind: Any, value: Any, depth: Any) -> Any:
        from .decoder_scalars import fraction, moment

        if kind in ("datetime", "time"):
            return moment(kind, value)
        items = [self.decode(item, depth + 1) for item in value["v"]]
        return slice(*items) if kind == "slice" else fraction(*items)

    def _collection(self, kind: Any, values: Any, depth: Any) -> Any:
        items = self.decode(list(values), depth)
        if kind == "tuple":
            return tuple(items)
        # One item at a time: numbers chosen for their hashes make each insertion slow, and this can be interrupted.
        if kind == "dict":
            pairs = {}
            for key, item in items:
                self._budget.step()
                pairs[key] = item
            return pairs
        found = set()
        for item in items:
            self._budget.step()
            found.add(item)
        return found if kind == "set" else frozenset(found)

    def _unpickled(self, at: Any) -> Any:
        if not self._pickle:
            raise CodecError("the file holds a pickled value, which was not asked for")
        import pickle

        self._seek(at, 0)
        return pickle.load(self._file)  # noqa: S301 - the user said --pickle

    def _tree(self) -> Any:
        if self._size < len(MAGIC) + 8:
            raise CodecError("the transferred file is too short")
        self._file.seek(0)
        if self._file.read(len(MAGIC)) != MAGIC:
            raise CodecError("this is not a file of variables")
        self._file.seek(-8, os.SEEK_END)
        (length,) = struct.unpack("<Q", self._file.read(8))
        if length > min(self._size - len(MAGIC) - 8, TREE_LIMIT):
            raise damaged()
        self._file.seek(self._size - 8 - length)
        tree = json.loads(self._file.read(length))
        if not isinstance(tree, dict) or not all(name.isidentifier() for name in tree):
            raise damaged()
        return tree

    def _open_part(self, at: Any, length: Any) -> Any:
        """The file, at the start of a binary part."""
        self._seek(at, length)
        self._budget.part(length)
        return self._file

    def _seek(self, at: Any, length: Any) -> None:
        if type(at) is not int or type(length) is not int or at < len(MAGIC) or length < 0:
            raise damaged()
        if at + length > self._size - 8:
            raise damaged()
        self._file.seek(at)
