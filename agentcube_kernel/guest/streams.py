"""sys.stdout and sys.stderr of the cells, and file descriptors 1 and 2 of the process."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import os
import selectors
import struct
import sys
import termios
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .outgoing import Outgoing


class CellStream(io.TextIOBase):
    """Text that goes out as stream events, at once, with partial lines and carriage returns as they are."""

    encoding = "utf-8"
    errors = "replace"
    mode = "w"

    def __init__(self, outgoing: Outgoing, capture: Capture, name: str, fd: int) -> None:
        super().__init__()
        self.name = f"<{name}>"
        self._stream = name
        self._fd = fd
        self._outgoing = outgoing
        self._capture = capture
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.buffer = _ByteBuffer(self)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not text:
            return 0
        if os.getpid() != self._outgoing.pid:
            # A forked child has no sending thread; what it prints takes the way of any child process.
            with contextlib.suppress(OSError):
                os.write(self._fd, text.encode("utf-8", "replace"))
        else:
            self._capture.drain()
            self._outgoing.text(self._stream, text)
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        self.write(self._decoder.decode(data))

    def flush(self) -> None:
        if os.getpid() == self._outgoing.pid:
            self._capture.drain()
            self._outgoing.flush()

    def close(self) -> None:
        """Do nothing: a cell that closes its output must not silence the cells after it."""

    @property
    def closed(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def _is_master_process(self) -> bool:
        return os.getpid() == self._outgoing.pid


class _ByteBuffer(io.BufferedIOBase):
    def __init__(self, stream: CellStream) -> None:
        self.raw = self
        self._stream = stream

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._stream.write_bytes(raw)
        return len(raw)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """See `CellStream.close`."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()


_NOTHING = b"\0\0\0\0"


class Capture:
    """Reads what is written to file descriptors 1 and 2: child processes, C libraries, forked children.

    Before Python text is queued, and when a cell ends, what lies in the pipes is taken out first, so that the two ways
    keep the order in which things were printed.
    """

    def __init__(self, outgoing: Outgoing, pipes: dict[str, int]) -> None:
        self._outgoing = outgoing
        self._lock = threading.Lock()
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in pipes}
        self._pipes = pipes
        self._kept = {fd: os.dup(fd) for fd in (1, 2)}
        self._count = bytearray(4)
        for fd in pipes.values():
            os.set_blocking(fd, False)
        os.register_at_fork(after_in_child=self._after_fork)
        threading.Thread(target=self._watch, name="agentcube-capture", daemon=True).start()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for name, fd in self._pipes.items():
                selector.register(fd, selectors.EVENT_READ, name)
            while True:
                for key, _ in selector.select():
                    with self._lock:
                        self._take(str(key.data), key.fd)

    def drain(self) -> None:
        """Take out what has been written so far, and wait for what the other thread is just taking out."""
        with self._lock:
            for name, fd in self._pipes.items():
                self._take(name, fd)

    def _take(self, name: str, fd: int) -> None:
        """With the lock held: queue what lies in the pipe."""
        fcntl.ioctl(fd, termios.FIONREAD, self._count)
        if self._count == _NOTHING:
            return
        (waiting,) = struct.unpack("i", self._count)
        try:
            data = os.read(fd, min(waiting, 1024 * 1024))
        except BlockingIOError:
            return
        text = self._decoders[name].decode(data)
        if text:
            self._outgoing.text(name, text, self._outgoing.latest_cell)

    def restore(self) -> None:
        """Open the standard file descriptors again where a cell has closed them."""
        for fd, kept in self._kept.items():
            try:
                os.fstat(fd)
            except OSError:
                os.dup2(kept, fd, inheritable=True)
        try:
            os.fstat(0)
        except OSError:
            null = os.open(os.devnull, os.O_RDONLY)
            if null != 0:
                os.dup2(null, 0, inheritable=True)
                os.close(null)


def install(outgoing: Outgoing, pipes: dict[str, int]) -> Capture:
    """Replace sys.stdout and sys.stderr and start to read file descriptors 1 and 2."""
    capture = Capture(outgoing, pipes)
    sys.stdout = CellStream(outgoing, capture, "stdout", 1)
    sys.stderr = CellStream(outgoing, capture, "stderr", 2)
    _tag_threads(outgoing)
    return capture


def _tag_threads(outgoing: Outgoing) -> None:
    """Let a thread's output belong to the cell that started it."""
    start = threading.Thread.start

    def tagged_start(self: threading.Thread) -> None:
        self.agentcube_cell = outgoing.cell()  # type: ignore[attr-defined]
        start(self)

    threading.Thread.start = tagged_start  # type: ignore[method-assign]
