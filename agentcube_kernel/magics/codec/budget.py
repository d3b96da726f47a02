"""How much memory and time a file may cost its reader."""

from __future__ import annotations

from typing import Any

from .format import CodecError, StoppedError, damaged

FACTOR = 64
"""Bytes of memory for each byte of the file: a bit in Arrow may become an eight-byte reference."""
FLOOR = 64 << 20
"""Bytes of memory that any file may take."""


class Budget:
    """What a file of `size` bytes may still use. `stop` is an event (`is_set()`) that ends the reading."""

    def __init__(self, size: int, stop: Any = None) -> None:
        self._memory = FLOOR + FACTOR * size
        self._parts = size
        self._stop = stop

    def step(self) -> None:
        """Raise StoppedError when the reader is no longer wanted."""
        if self._stop is not None and self._stop.is_set():
            raise StoppedError("reading was stopped")

    def expand(self, size: int) -> None:
        """Account for memory that no bytes in the file stand for. Raises CodecError beyond the budget."""
        self._memory -= size
        if size < 0 or self._memory < 0:
            raise CodecError("it would take far more memory than the size of its file suggests")

    def part(self, size: int) -> None:
        """Account for a binary part; no byte may be read twice. Raises CodecError."""
        self._parts -= size
        if size < 0 or self._parts < 0:
            raise damaged()
