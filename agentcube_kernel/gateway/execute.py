"""Run one command as PicoD does: collect its output, bound its time, report its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .processes import kill_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .processes import Children

TIMEOUT_EXIT_CODE = 124

_SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 0)  # Linux only
_PIPE = 1 << 16
_WIDE_PIPE = 1 << 20
_DRAIN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a command. `start` and `end` are nanoseconds of the wall clock."""

    stdout: bytes
    stderr: bytes
    exit_code: int
    duration: float
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start: the argument list, the program file, the folder and the whole environment.

    `program` is how messages name it; it differs from `executable` when that only wraps it.
    """

    program: str
    argv: Sequence[str]
    executable: str
    cwd: str
    env: Mapping[str, str]


class CommandNotStarted(Exception):
    """The command could not be started; the text is what Go's os/exec says."""


class Command:
    """A running command and the pipes it writes to.

    The command leads a session of its own, so that a timeout can kill whatever it started in its process
    group. As with PicoD, the command counts as running while anyone holds its stdout or stderr; a process
    that means to outlive it must redirect both.
    """

    def __init__(self, children: Children, *, max_output: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._children = children
        self._room = max_output
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._chunks: dict[int, list[bytes]] = {}
        self._open: dict[int, int] = {}
        self._exit_code: int | None = None
        self._out = self._err = -1
        self.pid = 0
        self.overflowed = False

    def start(self, launch: Launch) -> None:
        """Start the process. Raises CommandNotStarted."""
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            self._out, out, self._err, err = pipes
            process = subprocess.Popen(
                launch.argv,
                executable=launch.executable,
                cwd=launch.cwd,
                env=launch.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            for fd in pipes:
                os.close(fd)
            raise CommandNotStarted(_go_message(exc, launch)) from exc
        os.close(out)
        os.close(err)
        self.pid = process.pid
        # Reaped by Children; without a return code Popen would look for the process again when collected.
        process.returncode = 0
        self._children.watch(process.pid, self._ended)
        for fd in (self._out, self._err):
            os.set_blocking(fd, False)
            self._chunks[fd] = []
            self._open[fd] = _PIPE
            self._loop.add_reader(fd, self._readable, fd)

    async def wait(self, timeout: float) -> bool:
        """Wait for the end of the process and of its output; False when `timeout` seconds came first.

        Either way nothing of the command's process group is left after a timeout, and no descriptor in any
        case.
        """
        timer = self._loop.call_later(timeout, self._expire)
        try:
            await self._done
        finally:
            timer.cancel()
            self.release()
        return self._exit_code is not None and timer.when() > self._loop.time()

    def kill(self) -> None:
        """Kill the command's process group; `wait` then returns soon, whoever else holds the pipes."""
        kill_group(self.pid)
        self._loop.call_later(_DRAIN, self._finish)

    def release(self) -> None:
        """Close what is still open of the pipes."""
        for fd in list(self._open):
            self._close(fd)

    @property
    def exit_code(self) -> int:
        """The exit status, -1 for a command that a signal killed, as in Go."""
        return -1 if self._exit_code is None or self._exit_code < 0 else self._exit_code

    def output(self) -> tuple[bytes, bytes]:
        """All of stdout and stderr so far."""
        return b"".join(self._chunks.get(self._out, ())), b"".join(self._chunks.get(self._err, ()))

    def _expire(self) -> None:
        if not self._done.done():
            self.kill()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _ended(self, exit_code: int) -> None:
        self._exit_code = exit_code
        if not self._open:
            self._finish()

    def _readable(self, fd: int) -> None:
        size = self._open[fd]
        try:
            data = os.read(fd, size)
        except BlockingIOError:
            return
        if not data:
            self._close(fd)
            if not self._open and self._exit_code is not None:
                self._finish()
            return
        self._chunks[fd].append(data)
        self._room -= len(data)
        if self._room < 0 and not self.overflowed:
            self.overflowed = True
            self.kill()
        if len(data) == _PIPE == size:
            self._widen(fd)

    def _widen(self, fd: int) -> None:
        # A full read means that the writer is faster than the loop; a wider pipe saves most round trips.
        self._open[fd] = _WIDE_PIPE
        if _SET_PIPE_SIZE:
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, _SET_PIPE_SIZE, _WIDE_PIPE)

    def _close(self, fd: int) -> None:
        if self._open.pop(fd, None) is not None:
            self._loop.remove_reader(fd)
            os.close(fd)


async def run(command: Command, prepare: Callable[[], Launch], *, timeout: float) -> Outcome:
    """Run a command to its end or its timeout and say how it went, in the words of PicoD.

    `prepare` may raise CommandNotStarted too; like a failed start it becomes exit code 1 and a line on
    stderr.
    """
    start, clock = time.time_ns(), time.perf_counter()
    stdout, stderr, exit_code, timed_out = b"", b"", 1, timeout <= 0
    if not timed_out:
        try:
            command.start(prepare())
        except CommandNotStarted as exc:
            stderr = str(exc).encode(errors="surrogateescape")
        else:
            timed_out = not await command.wait(timeout)
            stdout, stderr = command.output()
            exit_code = command.exit_code
    if command.overflowed:
        stderr += b"\nKilled: more output than the embedded gateway keeps"
    elif timed_out:
        exit_code = TIMEOUT_EXIT_CODE
        stderr += b"Command timed out after %.0f seconds" % timeout
    duration = time.perf_counter() - clock
    return Outcome(
        stdout=stdout, stderr=stderr, exit_code=exit_code, duration=duration, start=start, end=time.time_ns()
    )


def look_path(program: str, path: str, cwd: str) -> str:
    """The file that Go's os/exec would start for `program`. Raises CommandNotStarted with its message."""
    if not program:
        raise CommandNotStarted("exec: no command")
    if "/" in program:
        if os.path.isdir(os.path.join(cwd, program)) and os.path.isabs(program):
            raise CommandNotStarted(f"exec: {_quote(program)}: is a directory")
        return program
    if "\0" not in program:
        for folder in path.split(":"):
            candidate = os.path.join(folder, program)
            if folder and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
                return candidate
    raise CommandNotStarted(f"exec: {_quote(program)}: executable file not found in $PATH")


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "\\x00") + '"'


def _go_message(exc: OSError | ValueError, launch: Launch) -> str:
    program, cwd = launch.program, launch.cwd
    if isinstance(exc, OSError) and exc.errno is not None:
        if exc.errno == errno.ENOENT and not os.path.isdir(cwd):
            return f"chdir {cwd}: no such file or directory"
        reason = os.strerror(exc.errno)
        return f"fork/exec {program}: {reason[:1].lower()}{reason[1:]}"
    if any("\0" in name or "\0" in value for name, value in launch.env.items()):
        return "exec: environment variable contains NUL"
    return f"fork/exec {program}: invalid argument"
