"""What leaves the worker: stream text and events, in the order in which they were made.

One thread of our own sends, because a KeyboardInterrupt in the middle of a write by the main thread would cut a frame
in half. Text gathers for a few milliseconds, so that a hundred thousand tiny prints do not become as many events.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..channel.protocol import encode_event
from . import frames

if TYPE_CHECKING:
    import socket

_GATHER = 0.003
_QUEUE_LIMIT = 4 * 1024 * 1024
_CHUNK = 128 * 1024

current_cell: ContextVar[str] = ContextVar("agentcube_cell")


class Outgoing:
    """The queue between everything in the worker that has something to say and the link to the supervisor."""

    def __init__(self, link: socket.socket) -> None:
        self.pid = os.getpid()
        self.latest_cell = ""
        self._link = link
        self._items: deque[tuple[bytes, str, Any]] = deque()
        self._size = 0
        self._condition = threading.Condition(threading.Lock())
        self._hurry = False
        self._sending = False
        self._broken = False
        self._thread = threading.Thread(target=self._send_all, name="agentcube-outgoing", daemon=True)
        self._thread.start()

    def cell(self) -> str:
        """The cell that the calling code belongs to: by its context, else by its thread, else the latest one."""
        cell = current_cell.get(None)
        if cell is None:
            cell = getattr(threading.current_thread(), "agentcube_cell", None)
        return self.latest_cell if cell is None else cell

    def text(self, name: str, text: str, cell: str | None = None) -> None:
        """Queue stream text; waits, interruptibly, while the queue is full."""
        owner = self.cell() if cell is None else cell
        for start in range(0, len(text), _CHUNK):
            piece = text[start : start + _CHUNK]
            with self._condition:
                while self._size > _QUEUE_LIMIT and not self._broken:
                    self._condition.wait()
                self._items.append((frames.STREAM, owner, (name, piece)))
                self._size += len(piece)
                self._condition.notify_all()

    def event(self, type: str, content: dict[str, Any], **parts: Any) -> None:
        """Queue an event of the calling code's cell, see `protocol.encode_event`."""
        self.frame(frames.EVENT, self.cell(), encode_event(type, content, **parts).encode("ascii"))

    def frame(self, kind: bytes, name: str = "", payload: bytes = b"") -> None:
        if os.getpid() != self.pid:
            return
        with self._condition:
            self._items.append((kind, name, payload))
            self._size += len(payload)
            self._hurry = True
            self._condition.notify_all()

    def flush(self, timeout: float = 5.0) -> None:
        """Wait until all that was queued has been handed to the supervisor."""
        if threading.current_thread() is self._thread or os.getpid() != self.pid:
            return
        deadline = time.monotonic() + timeout
        with self._condition:
            self._hurry = True
            self._condition.notify_all()
            while (self._items or self._sending) and not self._broken and time.monotonic() < deadline:
                self._condition.wait(0.05)

    def _send_all(self) -> None:
        while True:
            with self._condition:
                while not self._items:
                    self._condition.wait()
                if not self._hurry and self._size < _CHUNK:
                    self._condition.wait(_GATHER)
                items, self._items = self._items, deque()
                self._size, self._hurry, self._sending = 0, False, True
                self._condition.notify_all()
            data = self._pack(items)
            try:
                self._link.sendall(data)
            except OSError:
                self._broken = True
            with self._condition:
                self._sending = False
                self._condition.notify_all()
            if self._broken:
                return

    @staticmethod
    def _pack(items: deque[tuple[bytes, str, Any]]) -> bytes:
        packed: list[bytes] = []
        texts: list[str] = []
        open_stream: tuple[str, str] | None = None
        size = 0

        def close_stream() -> None:
            if open_stream is not None and texts:
                cell, name = open_stream
                event = encode_event("stream", {"name": name, "text": "".join(texts)})
                packed.append(frames.pack(frames.STREAM, cell, event.encode("ascii")))
                texts.clear()

        for kind, cell, payload in items:
            if kind == frames.STREAM:
                name, text = payload
                if open_stream != (cell, name) or size >= _CHUNK:
                    close_stream()
                    open_stream, size = (cell, name), 0
                texts.append(text)
                size += len(text)
            else:
                close_stream()
                open_stream = None
                packed.append(frames.pack(kind, cell, payload))
        close_stream()
        return b"".join(packed)
