"""Write arrays and data frames."""

from __future__ import annotations

import sys
from typing import Any

from .format import CodecError


class FrameEncoder:
    """Writes what NumPy and pandas make, and leaves what is in it to `plain` and `items`."""

    def __init__(self, file: Any, plain: Any, items: Any, arrow: bool) -> None:
        self._file = file
        self._plain = plain
        self._items = items
        self._arrow = arrow

    def encode(self, value: Any, kind: Any, depth: Any) -> Any:
        """The tree for an array, a frame or a scalar of their libraries; None for anything else."""
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
                return {"$": "Series", "c": column, "i": index, "n": self._plain(value.name, depth + 1)}
            if isinstance(value, pandas.Index):
                return {"$": "Index", "v": self._index(value, pandas, numpy, depth)}
        return None

    def _array(self, value: Any, numpy: Any) -> Any:
        if value.dtype.hasobject:
            raise CodecError("an array of Python objects cannot be sent without pickle; say --pickle")
        if type(value) is not numpy.ndarray and isinstance(value, numpy.ndarray):
            raise CodecError(
                f"a {type_name(type(value))} cannot be sent without pickle; send numpy.asarray of it"
            )
        scalar = isinstance(value, numpy.generic)
        array = numpy.asarray(value)
        start = self._file.tell()
        numpy.lib.format.write_array(self._file, array, allow_pickle=False)
        return {"$": "scalar" if scalar else "array", "at": start, "n": self._file.tell() - start}

    def _frame(self, frame: Any, pandas: Any, numpy: Any, depth: Any) -> Any:
        if self._arrow and _plain_columns(frame):
            at = self._arrow_frame(frame)
            if at is not None:
                return {"$": "arrow", "at": at, "n": self._file.tell() - at}
        columns = [self._column(frame.iloc[:, i], pandas, numpy, depth) for i in range(frame.shape[1])]
        return {
            "$": "DataFrame",
            "c": columns,
            "i": self._index(frame.index, pandas, numpy, depth),
            "k": self._index(frame.columns, pandas, numpy, depth),
        }

    def _arrow_frame(self, frame: Any) -> Any:
        try:
            import pyarrow
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
        name = self._plain(index.name, depth + 1)
        if type(index) is pandas.RangeIndex:
            return {"t": "range", "v": [index.start, index.stop, index.step], "n": name}
        if isinstance(index, (pandas.PeriodIndex, pandas.IntervalIndex)):
            raise CodecError(
                f"an index of type {type(index).__name__} cannot be sent without pickle; say --pickle"
            )
        column = self._column(index.to_series().reset_index(drop=True), pandas, numpy, depth)
        return {"t": "column", "v": column, "n": name}


def _plain_columns(frame: Any) -> Any:
    """Whether Arrow keeps the frame as it is: column names that are all text, each once."""
    names = list(frame.columns)
    return (
        all(type(name) is str for name in names)
        and len(set(names)) == len(names)
        and frame.columns.name is None
    )


def type_name(kind: Any) -> Any:
    """How to call a type in a message."""
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"
