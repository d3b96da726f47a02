"""Read arrays and data frames, none of which may claim more than the file holds."""

from __future__ import annotations

import math
import re
from typing import Any

from .arrow import read_frame
from .decoder_scalars import zone
from .format import CodecError, damaged

# The names of types that are used for columns of plain values. pandas takes others for paths of time zones.
_DTYPE = re.compile(r"[A-Za-z0-9_\[\], .-]{1,60}")
_KINDS = frozenset(
    (
        "array",
        "scalar",
        "NaT",
        "NA",
        "Timestamp",
        "Timedelta",
        "zoned",
        "arrow",
        "Series",
        "DataFrame",
        "Index",
    )
)


class FrameDecoder:
    """Reads what `FrameEncoder` wrote.

    `open_part` gives the file, at the start of a part and accounted for; `plain` decodes values of the tree.
    """

    def __init__(self, open_part: Any, budget: Any, plain: Any) -> None:
        self._open = open_part
        self._budget = budget
        self._plain = plain

    def decode(self, kind: Any, value: Any, depth: Any) -> Any:
        """A list with the value; None for a kind that is none of these."""
        if kind not in _KINDS:
            return None
        return [getattr(self, "_read_" + kind)(value, depth)]

    def _read_array(self, value: Any, depth: Any) -> Any:
        import numpy

        start, length = value["at"], value["n"]
        data = self._open(start, length)
        form = numpy.lib.format
        version = form.read_magic(data)
        header = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}.get(version)
        if header is None:
            raise CodecError("an array of an unknown version")
        shape, _, dtype = header(data)
        # What it says of its size is checked before memory is taken for it; an item of no bytes would be free.
        size = math.prod(shape) * max(dtype.itemsize, 1)
        if dtype.hasobject or min(shape, default=0) < 0 or size > length - (data.tell() - start):
            raise CodecError("an array that is not what it says")
        data.seek(start)
        return form.read_array(data, allow_pickle=False)

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
        return read_frame(self._open(value["at"], value["n"]).read(value["n"]), self._budget)

    def _read_Series(self, value: Any, depth: Any) -> Any:
        pandas = _pandas()
        series = self._column(value["c"], pandas, depth)
        series.index = self._index(value["i"], pandas, depth)
        series.name = _hashable(self._plain(value["n"], depth + 1))
        return series

    def _read_DataFrame(self, value: Any, depth: Any) -> Any:
        pandas = _pandas()
        index = self._index(value["i"], pandas, depth)
        columns = [self._column(column, pandas, depth) for column in value["c"]]
        for column in columns:
            self._budget.step()
            column.index = index
        frame = pandas.concat(columns, axis=1) if columns else pandas.DataFrame(index=index)
        frame.columns = self._index(value["k"], pandas, depth)
        return frame

    def _read_Index(self, value: Any, depth: Any) -> Any:
        return self._index(value["v"], _pandas(), depth)

    def _column(self, column: Any, pandas: Any, depth: Any) -> Any:
        self._budget.step()
        kind = column["t"]
        if kind == "list":
            values = [self._plain(item, depth + 1) for item in column["v"]]
            dtype = column["d"]
            if not _DTYPE.fullmatch(dtype):
                raise damaged()
            return pandas.Series(values, dtype=dtype if dtype != "object" else object)
        array = self._read_array(column["v"], depth)
        if kind == "zoned":
            return pandas.Series(array).dt.tz_localize("UTC").dt.tz_convert(zone(column["tz"]))
        if kind == "category":
            categories = self._index(column["k"], pandas, depth, inside=True)
            return pandas.Series(pandas.Categorical.from_codes(array, categories, ordered=bool(column["o"])))
        return pandas.Series(array)

    def _index(self, index: Any, pandas: Any, depth: Any, inside: Any = False) -> Any:
        self._budget.step()
        kind = index["t"]
        if kind == "multi":
            levels = [self._index(level, pandas, depth + 1, inside=True) for level in index["v"]]
            names = [_hashable(self._plain(name, depth + 1)) for name in index["n"]]
            return pandas.MultiIndex.from_arrays(levels, names=names)
        name = _hashable(self._plain(index["n"], depth + 1))
        if kind == "range":
            return self._range(index["v"], name, pandas, inside)
        return pandas.Index(self._column(index["v"], pandas, depth), name=name)

    def _range(self, bounds: Any, name: Any, pandas: Any, inside: Any) -> Any:
        if not all(type(bound) is int for bound in bounds):
            raise damaged()
        found = pandas.RangeIndex(*bounds, name=name)
        if inside:
            # Within another index pandas writes it out.
            self._budget.expand(8 * len(found))
        return found


def _pandas() -> Any:
    import pandas

    return pandas


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
