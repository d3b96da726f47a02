"""Slots: the named pipes on which a relay fetches the one answer to its request.

A slot is made before it is needed and held open for reading and writing, so that the relay's opening it never waits.
The relay opens it before it sends its request; only then does the guest let go of its own reading end, so that a relay
that was killed is noticed (EPIPE) and a guest that dies is noticed by the relay (end of file).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import time

from ..channel.protocol import SHORT_ANSWER, is_slot_name

_F_SETPIPE_SZ = 1031  # Linux
_BIG = 1024 * 1024
_STUCK = 60.0


class Slots:
    """All slots of one guest, in one folder."""

    def __init__(self, folder: str, selector: selectors.BaseSelector) -> None:
        self.folder = folder
        self._selector = selector
        self._count = 0
        self._open: dict[str, int] = {}
        self._writing: dict[int, tuple[memoryview, float]] = {}

    def make(self) -> str:
        self._count += 1
        name = f"s{self._count}"
        path = os.path.join(self.folder, name)
        os.mkfifo(path, 0o600)
        self._open[name] = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        return name

    def discard(self, name: str) -> None:
        fd = self._open.pop(name, None)
        if fd is not None:
            os.close(fd)
            self._unlink(name)

    def claim(self, name: str) -> int | None:
        """Return a file descriptor for the answer, or None when nobody can be waiting for it."""
        if not is_slot_name(name):
            return None
        held = self._open.pop(name, None)
        try:
            return os.open(os.path.join(self.folder, name), os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None
        finally:
            if held is not None:
                os.close(held)
            self._unlink(name)

    def send(self, fd: int, answer: str) -> None:
        """Write the answer and close; what the pipe does not take at once follows as it is read."""
        data = answer.encode("ascii")
        if len(data) > SHORT_ANSWER:
            data = b"+\n" + data
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _BIG)
        rest = self._write(fd, memoryview(data))
        if rest is None:
            os.close(fd)
        else:
            self._writing[fd] = (rest, time.monotonic())
            self._selector.register(fd, selectors.EVENT_WRITE, self.on_writable)

    def on_writable(self, fd: int) -> None:
        rest, _ = self._writing[fd]
        left = self._write(fd, rest)
        if left is None:
            self._finish(fd)
        else:
            self._writing[fd] = (left, time.monotonic())

    def drop_stuck(self) -> None:
        """Close answers that nobody has read from for a minute."""
        now = time.monotonic()
        for fd, (_, since) in list(self._writing.items()):
            if now - since > _STUCK:
                self._finish(fd)

    @staticmethod
    def _write(fd: int, data: memoryview) -> memoryview | None:
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:
                return data
            except OSError:
                return None
        return None

    def _finish(self, fd: int) -> None:
        del self._writing[fd]
        self._selector.unregister(fd)
        os.close(fd)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, name))
