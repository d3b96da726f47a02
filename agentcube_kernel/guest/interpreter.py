"""The interpreter that runs the cells, seen from the supervisor: a worker process, its link, its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from . import frames
from .usage import oom_kills

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAIL = 64 * 1024


class Interpreter:
    """One worker process, that is: one generation."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: str) -> None:
        self.generation = os.urandom(16).hex()
        self.link, theirs = socket.socketpair()
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        self._pipes = {"stdout": out, "stderr": err}
        self._oom_kills = oom_kills()
        self._frames = frames.FrameReader()
        self._outgoing = bytearray()
        self.info: dict[str, Any] | None = None
        self.dead: dict[str, Any] | None = None
        self.live = False
        self.running: str | None = None
        self.started = time.monotonic()
        try:
            # The worker reads its own standard streams; the supervisor keeps them too, for what is left at its death.
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(out), str(err)],
                stdin=subprocess.DEVNULL,
                stdout=out_end,
                stderr=err_end,
                pass_fds=(theirs.fileno(), out, err),
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(out_end)
            os.close(err_end)
        self.link.setblocking(False)
        # A cell that eats all memory must be the one that is killed for it, not the supervisor that can tell about it.
        with contextlib.suppress(OSError), open(f"/proc/{self.process.pid}/oom_score_adj", "w") as score:
            score.write("500")

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, kind: bytes, name: str = "", payload: object = None) -> None:
        self._outgoing += frames.pack(
            kind, name, json.dumps(payload).encode() if payload is not None else b""
        )
        self.flush()

    def flush(self) -> None:
        """Write what the link takes; the rest waits for `wants_write`."""
        while self._outgoing:
            try:
                sent = self.link.send(memoryview(self._outgoing)[: 1024 * 1024].tobytes())
            except BlockingIOError:
                return
            except OSError:
                self._outgoing.clear()
                return
            del self._outgoing[:sent]

    @property
    def wants_write(self) -> bool:
        return bool(self._outgoing)

    def read(self) -> Iterator[tuple[bytes, str, bytes]] | None:
        """Return the frames that have arrived, or None when the worker has closed its end."""
        try:
            data = self.link.recv(1024 * 1024)
        except BlockingIOError:
            return iter(())
        except OSError:
            return None
        return self._frames.feed(data) if data else None

    def interrupt(self) -> None:
        """SIGINT to the worker and what it has started, as Ctrl-C does in a terminal."""
        if self.info is None:
            return  # it has not begun with anything of the user's, and a Python that is starting dies of it
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGINT)

    def end(self, grace: float) -> None:
        """Ask the worker to exit, kill its process group after `grace` seconds."""
        if self.process.poll() is None:
            self.send(frames.EXIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self.close()

    def close(self) -> None:
        self.link.close()
        for fd in self._pipes.values():
            os.close(fd)
        self._pipes = {}

    def leftover(self) -> Iterator[tuple[str, str]]:
        """Yield `(stream, text)` that a dead worker has left in its standard streams."""
        for name, fd in self._pipes.items():
            os.set_blocking(fd, False)
            data = b""
            with contextlib.suppress(OSError):
                while len(data) < 1024 * 1024 and (piece := os.read(fd, 65536)):
                    data += piece
            if data:
                yield name, data.decode("utf-8", "replace")[-_TAIL:]

    def autopsy(self) -> dict[str, Any]:
        """How the process ended."""
        status = self.process.wait()
        report: dict[str, Any] = {"status": status, "started": self.info is not None}
        if status < 0:
            report["signal"] = -status
            report["memory"] = status == -signal.SIGKILL and oom_kills() > self._oom_kills
        return report
