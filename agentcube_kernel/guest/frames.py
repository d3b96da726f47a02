"""Frames on the socket between supervisor and worker: a kind, a name, a payload."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = struct.Struct("!cHI")

# worker to supervisor
READY = b"R"  # payload: JSON facts about the interpreter
BEGIN = b"B"  # name: the cell that starts now
STREAM = b"S"  # name: cell; payload: an encoded stream event
EVENT = b"E"  # name: cell; payload: any other encoded event
QUIET = b"N"  # the same, for events that nobody waits to see
URGENT = b"U"  # the same, for events that end a held request
DONE = b"D"  # name: cell or comm message that has ended; payload: its last event
REPLY = b"Q"  # name: id of a question; payload: JSON
LIVE = b"L"  # payload: b"1" while output may come outside of cells

# supervisor to worker
TASK = b"T"  # name: id; payload: JSON of the cell or comm message
CANCEL = b"K"  # name: id of a cell that has not started
ASK = b"A"  # name: id; payload: JSON of the question
INPUT = b"I"  # name: cell; payload: JSON of the value
EXIT = b"X"


def pack(kind: bytes, name: str = "", payload: bytes = b"") -> bytes:
    encoded = name.encode()
    return _HEADER.pack(kind, len(encoded), len(payload)) + encoded + payload


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, str, bytes]]:
        """Yield `(kind, name, payload)` for each frame that `data` completes."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _HEADER.size:
            kind, name_length, length = _HEADER.unpack_from(buffer, start)
            body = start + _HEADER.size
            end = body + name_length + length
            if len(buffer) < end:
                break
            name = buffer[body : body + name_length].decode()
            yield kind, name, bytes(buffer[body + name_length : end])
            start = end
        del buffer[:start]
