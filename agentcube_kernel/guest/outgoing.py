"""What leaves the worker: stream text and events, in the order in which they were made.

What comes after a silence is sent at once, by the thread that made it, so that the last words before a crash are not
lost with the process. In a flood text gathers for a few milliseconds and a thread of our own sends it, so that a
hundred thousand tiny prints do not become as many events, and a full link makes the writer wait where it can be
interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..channel.protocol import encode_event
from . import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

_GATHER = 0.003
_PARTIAL = 0.015  # for the rest of a line, so that a line is one piece even where the processor is scarce
_QUEUE_LIMIT = 4 * 1024 * 1024
_CHUNK = 128 * 1024
_RAW = b"raw"  # the rest of frames that were sent in part

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
        self._last_text = 0.0
        self._in_main = self._deferred = False
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
            if self._size > _QUEUE_LIMIT:
                with self._condition:
                    self._condition.wait_for(lambda: self._size <= _QUEUE_LIMIT or self._broken)
            with self._undisturbed():
                # The sender is woken for the first piece and for a full chunk; what comes between gathers.
                first = not self._items
                filled = self._size < _CHUNK <= self._size + len(piece)
                self._items.append((frames.STREAM, owner, (name, piece)))
                self._size += len(piece)
                # Whole lines only: print() writes a line and its end apart.
                if piece.endswith("\n") and time.monotonic() - self._last_text > _GATHER and self._send_now():
                    self._last_text = time.monotonic()
                    continue
                if first or filled:
                    self._condition.notify_all()

    def event(self, type: str, content: dict[str, Any], **parts: Any) -> None:
        """Queue an event of the calling code's cell, see `protocol.encode_event`."""
        self.frame(frames.EVENT, self.cell(), encode_event(type, content, **parts).encode("ascii"))

    def frame(self, kind: bytes, name: str = "", payload: bytes = b"") -> None:
        """Queue anything that is not text; it goes out at once, after what was queued before it."""
        if os.getpid() != self.pid:
            return
        with self._undisturbed():
            self._items.append((kind, name, payload))
            self._size += len(payload)
            if not self._send_now():
                self._hurry = True
                self._condition.notify_all()

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Hold the lock; an interrupt of the main thread waits meanwhile, see `defers_interrupt`."""
        main = threading.current_thread() is threading.main_thread()
        if main:
            self._in_main = True
        try:
            with self._condition:
                yield
        finally:
            if main:
                self._in_main = False
                if self._deferred:
                    self._deferred = False
                    signal.raise_signal(signal.SIGINT)

    def defers_interrupt(self) -> bool:
        """For the SIGINT handler: whether it has to come again later, because a frame would be cut in half."""
        if self._in_main:
            self._deferred = True
        return self._in_main

    def _send_now(self) -> bool:
        """With the lock held: send all that is queued if the link takes it without waiting."""
        if self._sending or self._broken or self._size > _CHUNK:
            return False
        items, self._items, self._size = self._items, deque(), 0
        data = self._pack(items)
        try:
            sent = self._link.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._broken = True
            return True
        if sent < len(data):
            self._items.appendleft((_RAW, "", data[sent:]))
            self._size = len(data) - sent
        return sent == len(data)

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
                    self._condition.wait(_GATHER if self._ends_a_line() else _PARTIAL)
                items, self._items = self._items, deque()
                self._size, self._hurry, self._sending = 0, False, True
                self._last_text = time.monotonic()
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

    def _ends_a_line(self) -> bool:
        kind, _, payload = self._items[-1]
        return kind != frames.STREAM or payload[1].endswith("\n")

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
                packed.append(payload if kind == _RAW else frames.pack(kind, cell, payload))
        close_stream()
        return b"".join(packed)
