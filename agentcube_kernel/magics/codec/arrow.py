"""Look into an Arrow stream before it is read: a small one may otherwise expand to any size.

Run-end encoded, null, view and dictionary arrays state how many values they have without holding them, and compressed
buffers state how large they get. pyarrow has no bound for either, so the lengths in the headers are added up here
first. Headers are FlatBuffers, of which the few fields that are needed are read by hand.
"""

from __future__ import annotations

import struct
from typing import Any

from .format import CodecError, damaged

_REFERENCE = 8
_OBJECT = 64
_DICTIONARY = 256
_DEPTH = 20


def read_frame(data: bytes, budget: Any) -> Any:
    """The data frame in a stream. Raises CodecError for one that is compressed or expands beyond the budget."""
    import pyarrow

    source = pyarrow.py_buffer(data)
    reader = pyarrow.ipc.open_stream(source)
    costs = [cost for field in reader.schema for cost in _costs(field.type, pyarrow.types, 0)]
    messages = pyarrow.ipc.MessageReader.open_stream(source)
    while (message := _next(messages)) is not None:
        budget.step()
        if message.type == "schema":
            continue
        header = _Table.root(message.metadata.to_pybytes()).table(2)
        if header is None:
            raise damaged()
        _charge(message.type, header, costs, budget)
    table = pyarrow.ipc.open_stream(source).read_all()
    table.validate(full=True)
    return table.to_pandas()


def _next(messages: Any) -> Any:
    try:
        return messages.read_next_message()
    except StopIteration:
        return None


def _charge(kind: Any, header: Any, costs: Any, budget: Any) -> None:
    if kind == "dictionary":
        header = header.table(1)
        costs = None
    elif kind != "record batch":
        raise damaged()
    if header is None or header.has(3):
        raise CodecError("compressed Arrow data")
    lengths = header.node_lengths(1)
    if costs is None:
        costs = [_OBJECT] * len(lengths)
    if len(lengths) != len(costs):
        raise damaged()
    rows = header.long(0)
    budget.expand(rows * _REFERENCE)
    for length, cost in zip(lengths, costs):  # noqa: B905 - checked above; the sandbox's Python may be old
        budget.expand(length * cost)


def _costs(kind: Any, types: Any, depth: Any) -> Any:
    """Bytes of memory for each value of a column and of those nested in it, in the order of the stream's nodes."""
    if depth > _DEPTH:
        raise damaged()
    if hasattr(kind, "storage_type"):
        return _costs(kind.storage_type, types, depth + 1)
    if types.is_struct(kind):
        below = [_costs(kind.field(i).type, types, depth + 1) for i in range(kind.num_fields)]
        return [_DICTIONARY, *(cost for costs in below for cost in costs)]
    if types.is_map(kind):
        key, item = (_costs(part, types, depth + 1) for part in (kind.key_type, kind.item_type))
        return [_OBJECT, _DICTIONARY, *key, *item]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_OBJECT, *_costs(kind.value_type, types, depth + 1)]
    if types.is_dictionary(kind):
        if depth or len(_costs(kind.value_type, types, depth + 1)) != 1:
            raise CodecError("an Arrow dictionary of or inside another nested type")
        return [_REFERENCE]
    simple = (types.is_primitive, types.is_null, types.is_string, types.is_large_string, types.is_binary)
    others = (types.is_large_binary, types.is_fixed_size_binary, types.is_decimal)
    if any(check(kind) for check in simple + others):
        return [_OBJECT if types.is_decimal(kind) else _REFERENCE]
    raise CodecError(f"Arrow data of the type {str(kind)[:40]!r}")


class _Table:
    """A table of a FlatBuffer. Every access is checked against the buffer by `struct`."""

    def __init__(self, data: Any, at: Any) -> None:
        self._data = data
        self._at = at
        self._fields = at - self._read("<i", at)
        self._size = self._read("<H", self._fields)

    @classmethod
    def root(cls, data: Any) -> Any:
        """The outermost table."""
        return cls(data, _read(data, "<I", 0))

    def has(self, number: Any) -> Any:
        """Whether a field is set."""
        return self._offset(number) != 0

    def long(self, number: Any) -> Any:
        """A 64-bit integer, 0 by default."""
        offset = self._offset(number)
        return self._read("<q", self._at + offset) if offset else 0

    def table(self, number: Any) -> Any:
        """A table within this one, or None."""
        place = self._place(number)
        return None if place is None else _Table(self._data, place)

    def node_lengths(self, number: Any) -> Any:
        """The lengths in a vector of pairs of 64-bit integers: length and number of nulls."""
        place = self._place(number)
        if place is None:
            return []
        count = self._read("<I", place)
        if count * 16 > len(self._data):
            raise damaged()
        return [self._read("<q", place + 4 + 16 * i) for i in range(count)]

    def _place(self, number: Any) -> Any:
        offset = self._offset(number)
        return self._at + offset + self._read("<I", self._at + offset) if offset else None

    def _offset(self, number: Any) -> Any:
        entry = 4 + 2 * number
        return self._read("<H", self._fields + entry) if entry + 2 <= self._size else 0

    def _read(self, form: Any, at: Any) -> Any:
        return _read(self._data, form, at)


def _read(data: Any, form: Any, at: Any) -> Any:
    if at < 0:
        raise damaged()
    try:
        return struct.unpack_from(form, data, at)[0]
    except struct.error:
        raise damaged() from None
