"""A process that outlives its kernel and deletes the sessions the kernel left behind.

A kernel cannot be relied on to clean up: Jupyter kills it 2.5 s after asking it to end, or at once, or dies
itself and takes the kernel along. The reaper is started beside the first owned session, in a session (of the
operating system) of its own, so that what kills the kernel's process group misses it. All it holds is the
reading end of a pipe. When the kernel is gone, however it went, the pipe ends, and the reaper

* deletes at once what the kernel owned, when its connection file is gone (it was shut down), it never had
  one, or it said so;
* else waits for the next kernel on the same connection file to take the sandbox over (it was restarted, or
  crashed and Jupyter starts it again), and deletes what nobody took.

Kept sessions stay. Which sessions these are stands in the ledger; the credentials come with the environment.
While it waits it has imported nothing but the standard library, and it wakes every few seconds to see whether
the kernel lives, since a child that the kernel forked may hold the pipe open.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError
from .process_identity import Liveness, ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .ledger import Ledger, SessionRecord

TAKEOVER_SECONDS = 8.0
"""How long a dead kernel's sandbox waits for the next kernel on the same connection file."""

_OWNER_CHECK_SECONDS = 3.0
_TAKEOVER_CHECK_SECONDS = 0.2
_RETRY_SECONDS = (0.0, 1.0, 3.0, 10.0, 30.0)


class Reaper:
    """The handle that a process holds on its reaper. Made by `start`; safe to use from any thread."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._owner_pid = os.getpid()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Reaper pid={self.pid}>"

    @property
    def pid(self) -> int:
        """The reaper's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the reaper is there to do its work."""
        return os.getpid() == self._owner_pid and self._process.poll() is None

    def close(self, *, takeover: bool = False) -> None:
        """Dismiss the reaper; at once, without waiting for it.

        It deletes what this process owns by the ledger and has not deleted itself, then ends. With `takeover`
        it first gives the next kernel on the connection file its time, as after a crash.
        Closing twice does nothing more.
        """
        if os.getpid() != self._owner_pid:
            return
        with self._lock:
            pipe = self._process.stdin
            if pipe is None or pipe.closed:
                return
            try:
                if not takeover:
                    pipe.write(b"now\n")
                pipe.close()
            except OSError:  # it was killed; whoever prunes the ledger next does its work
                pass

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds for a dismissed reaper to end; says whether it has."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True


def start(
    *,
    connection_file: str | os.PathLike[str] | None = None,
    ledger_path: str | os.PathLike[str] | None = None,
    takeover_seconds: float = TAKEOVER_SECONDS,
) -> Reaper:
    """Start the reaper of this process; it also deletes what earlier processes left behind.

    Blocks for a few milliseconds. Raises OSError when no process can be started.

    Args:
        connection_file: the kernel's, whose absence tells a shutdown from a crash. None when there is none:
            then nobody can take a sandbox over.
        ledger_path: as for `Ledger`.
        takeover_seconds: how long to wait for the next kernel while the connection file is there.
    """
    order = {
        "owner": asdict(ProcessIdentity.current()),
        "connection_file": None if connection_file is None else str(Path(connection_file).absolute()),
        "ledger": None if ledger_path is None else str(Path(ledger_path).absolute()),
        "takeover_seconds": takeover_seconds,
    }
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    process = _Detached(
        _command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(sys.executable).anchor,
        env=os.environ | {"PYTHONPATH": _python_path()},
        **detached,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.flush()
    return Reaper(process)


def _command(*arguments: str) -> list[str]:
    # -P keeps the notebook's folder, where a user's json.py may lie, off the path.
    return [sys.executable, "-P", "-m", "agentcube_kernel.sessions.reaper", *arguments]


class _Detached(subprocess.Popen[bytes]):
    """A process that is meant to outlive us, so that leaving it running deserves no ResourceWarning."""

    def __del__(self) -> None:
        if self.stdin is not None:
            self.stdin.close()
        self.poll()


def _python_path() -> str:
    ours = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return ours if not inherited else os.pathsep.join((ours, inherited))


class _Owner:
    """What the reaper sees of the process it works for, through the pipe and the process table."""

    def __init__(self, identity: ProcessIdentity) -> None:
        self._identity = identity
        self._gone = threading.Event()
        self.at_once = False
        threading.Thread(target=self._read, name="pipe", daemon=True).start()

    def _read(self) -> None:
        self.at_once = sys.stdin.buffer.readline().strip() == b"now"
        self._gone.set()

    def wait_for_end(self) -> None:
        while not self._gone.wait(_OWNER_CHECK_SECONDS):
            if self._identity.liveness() is Liveness.DEAD:
                return


class _Work:
    """The reaper's own side: one owner, one ledger."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._identity = ProcessIdentity(**order["owner"])
        self._connection_file: str | None = order["connection_file"]
        self._takeover_seconds = float(order["takeover_seconds"])
        self._ledger_path: str | None = order["ledger"]
        self._owner = _Owner(self._identity)

    def run(self) -> None:
        threading.Thread(target=self._clean_up_after_others, name="past", daemon=True).start()
        self._owner.wait_for_end()
        deadline = time.monotonic() + self._takeover_seconds
        while self._owned():
            if self._nobody_will_come() or time.monotonic() > deadline:
                self._delete_owned()
                return
            time.sleep(_TAKEOVER_CHECK_SECONDS)

    def _clean_up_after_others(self) -> None:
        """Delete what processes left behind that had no reaper, or one that ended with them (power loss)."""
        try:
            orphans = self._ledger.orphans()
        except AgentCubeError:
            return
        if not orphans:
            return
        # The owners of some may have died just now, and their own reapers give the next kernels their time.
        time.sleep(self._takeover_seconds + 2.0)
        # Another process does it, so that this one stays small for as long as its owner lives.
        ids = [session.session_id for session in orphans]
        command = _command("prune", self._ledger_path or "", *ids)
        subprocess.run(command, stdin=subprocess.DEVNULL, check=False)

    @property
    def _ledger(self) -> Ledger:
        from .ledger import Ledger

        return Ledger(self._ledger_path)

    def _owned(self) -> list[SessionRecord]:
        """The sessions to delete unless someone takes them over. The ledger may be locked for a while."""
        for pause in (0.5, 1.0, 2.0, 0.0):
            try:
                return [s for s in self._ledger.sessions() if s.owner == self._identity and not s.keep]
            except AgentCubeError:
                time.sleep(pause)
        return []

    def _nobody_will_come(self) -> bool:
        if self._owner.at_once or self._connection_file is None or not Path(self._connection_file).exists():
            return True
        self._hand_over()
        return False

    def _hand_over(self) -> None:
        """A next kernel on the connection file, once it has said that it is there, owns all that was used with it."""
        assert self._connection_file is not None
        try:
            record = self._ledger.get_kernel(self._connection_file)
            successor = None if record is None else ProcessIdentity.of(record.pid)
            if successor is None or successor == self._identity:
                return
            for session in self._ledger.sessions():
                if session.owner == self._identity and session.connection_file == self._connection_file:
                    self._ledger.adopt(session.session_id, owner=successor)
        except AgentCubeError:
            return

    def _delete_owned(self) -> None:
        import asyncio

        from .cleanup import delete_sessions

        for pause in _RETRY_SECONDS:
            time.sleep(pause)
            try:
                done = asyncio.run(delete_sessions(self._owned(), self._ledger))
            except AgentCubeError:  # the ledger is locked, or a setting cannot be read
                continue
            if all(deletion.done for deletion in done):
                return


def prune(ledger_path: str | None, session_ids: Sequence[str]) -> None:
    """Delete those of these sessions that are still nobody's."""
    import asyncio

    from .cleanup import delete_sessions
    from .ledger import Ledger

    ledger = Ledger(ledger_path)
    left = [session for session in ledger.orphans() if session.session_id in session_ids]
    asyncio.run(delete_sessions(left, ledger))


def main(arguments: list[str]) -> None:
    """`prune LEDGER ID...`, or, without arguments, be a reaper, whose order comes as one line of JSON on stdin."""
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):  # a machine that shuts down ends the owner, and so us
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if arguments:
        prune(arguments[1] or None, arguments[2:])
    else:
        _Work(json.loads(sys.stdin.buffer.readline())).run()


if __name__ == "__main__":
    main(sys.argv[1:])
