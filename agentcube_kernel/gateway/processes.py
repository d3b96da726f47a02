"""The gateway's processes: reaping them, and finding all that belong to a sandbox.

A command may leave processes behind on purpose (a detached interpreter that serves later calls), so a sandbox
is more than the process groups of its commands. On Linux the gateway is a *subreaper*: whatever a command
leaves behind becomes a child of the gateway, which reaps it. What belongs to which sandbox is told by a
marker in the environment, by the working directory, and by descent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MARKER = "AGENTCUBE_SANDBOX_ID"

_PR_SET_CHILD_SUBREAPER = 36


class Children:
    """Tells when a child process has ended, and reaps orphans of sandboxes.

    There must be one per process, started in the main thread: it waits for *every* child, so nothing else in
    the process may wait for children of its own.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Callable[[int], None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to reap. Raises RuntimeError outside the main thread."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        become_subreaper()

    def stop(self) -> None:
        """Stop reaping; children still waited for are forgotten."""
        if self._loop is not None:
            self._loop.remove_signal_handler(signal.SIGCHLD)
            self._loop = None
        self._waiting.clear()

    def watch(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call `ended(exit_code)` once the child `pid` has been reaped; a signal N is the code -N."""
        self._waiting[pid] = ended

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._waiting.pop(pid, None)
            if ended is not None:
                ended(os.waitstatus_to_exitcode(status))


def become_subreaper() -> bool:
    """Adopt the orphans among this process's descendants (Linux); False where that does not exist."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


class _Process(NamedTuple):
    pid: int
    parent: int
    environ: bytes
    cwd: str
    terminal: bool


def kill_group(pid: int) -> None:
    """Kill the process group that `pid` leads, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def kill_sandboxes(folders: Mapping[str, str], *, patience: float = 5.0) -> list[int]:
    """Kill every process of the sandboxes `{marker value: folder}`; blocking.

    Returns the pids that were still there after `patience` seconds (uninterruptible ones, normally none).
    """
    return _kill_all(lambda processes: _members(processes, folders), patience)


def kill_descendants(*, patience: float = 5.0) -> list[int]:
    """Kill every process that descends from this one; blocking. Returns what would not die in time."""
    return _kill_all(lambda processes: _descendants(processes, {os.getpid()}) - {os.getpid()}, patience)


def _kill_all(select: Callable[[list[_Process]], set[int]], patience: float) -> list[int]:
    deadline = time.monotonic() + patience
    while True:
        # Repeated until a look finds nothing: what is being killed may have forked meanwhile.
        targets = select(_processes())
        if not targets:
            return []
        for pid in targets:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return sorted(targets)
        time.sleep(0.005)


def _members(processes: list[_Process], folders: Mapping[str, str]) -> set[int]:
    markers = [f"{MARKER}={value}".encode() for value in folders]
    roots = tuple(folder.rstrip("/") + "/" for folder in folders.values())
    # Nothing in a sandbox has a terminal; whoever has one is a person looking into its folder.
    found = {
        process.pid
        for process in processes
        if any(marker in process.environ for marker in markers)
        or (not process.terminal and (process.cwd + "/").startswith(roots))
    }
    return _descendants(processes, found - {os.getpid()}) - {os.getpid()}


def _descendants(processes: Iterable[_Process], roots: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process.pid)
    alive = {process.pid for process in processes}
    found: set[int] = set()
    todo = [pid for pid in roots if pid in alive]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return found


def _processes() -> list[_Process]:
    """The live processes of this user; zombies are left out, since they are dead already."""
    return _from_proc() if os.path.isdir("/proc/self") else _from_ps()


def _from_proc() -> list[_Process]:
    uid, found = os.getuid(), []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != uid:
                continue
            with open(f"/proc/{entry.name}/stat", "rb") as file:
                state, parent, _, _, terminal = file.read().rpartition(b")")[2].split()[:5]
            if state in (b"Z", b"X"):
                continue
            environ, cwd = b"", ""
            # Both may be forbidden (a set-uid program) without the process being gone.
            with contextlib.suppress(PermissionError):
                with open(f"/proc/{entry.name}/environ", "rb") as file:
                    environ = file.read()
                cwd = os.readlink(f"/proc/{entry.name}/cwd").removesuffix(" (deleted)")
        except (OSError, ValueError):
            continue
        found.append(_Process(int(entry.name), int(parent), environ, cwd, int(terminal) != 0))
    return found


def _from_ps() -> list[_Process]:
    # macOS shows a process's environment after its command line, to its owner.
    command = ["ps", "-A", "-E", "-ww", "-o", "uid=,pid=,ppid=,stat=,command="]
    listing = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    uid, found = os.getuid(), []
    for line in listing.splitlines():
        fields = line.split(None, 4)
        if len(fields) == 5 and int(fields[0]) == uid and not fields[3].startswith(b"Z"):
            found.append(_Process(int(fields[1]), int(fields[2]), fields[4], "", True))
    return found
