"""Where the user's reaper listens: found, proved to be ours by a token, and started when there is none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 20.0
"""A reaper that has not said within this that it listens is given up."""

# All that the reaper needs of the environment of whoever starts it. Credentials reach it over its socket.
_ENVIRONMENT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "APPDATA",
    "AGENTCUBE_HTTP_LIBRARY",
)
_ENVIRONMENT_PREFIXES = ("LC_", "XDG_", "JUPYTER_", "PYTHON", "SSL_CERT_", "VIRTUAL_ENV")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaperAddress:
    """Where a reaper listens: a Unix socket, or a port of the loopback interface where there are none."""

    path: str | None = None
    port: int | None = None
    token: str = field(repr=False)
    pid: int

    def write(self, state: Path) -> None:
        """Tell everybody who looks at `state`, which only the user can read."""
        scratch = state.with_suffix(f".{os.getpid()}")
        with open(
            os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            json.dump(asdict(self), file)
        scratch.replace(state)

    def withdraw(self, state: Path) -> None:
        """Take back what `write` told, unless another reaper has written there since."""
        if self.read(state) == self:
            state.unlink(missing_ok=True)

    @classmethod
    def read(cls, state: Path) -> ReaperAddress | None:
        """The address that was written last, or None."""
        try:
            fields = json.loads(state.read_text(encoding="utf-8"))
            return cls(**fields)
        except (OSError, ValueError, TypeError):
            return None

    def connect(self) -> socket.socket:
        """Connect to it. Raises OSError when nobody listens there any more."""
        if self.path is None:
            return socket.create_connection(("127.0.0.1", self.port or 0), timeout=START_SECONDS)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(START_SECONDS)
            connection.connect(self.path)
        except BaseException:
            connection.close()
            raise
        return connection


class ReaperConnection:
    """A connection to the reaper: lines of JSON, both ways. Blocking."""

    def __init__(self, connection: socket.socket, token: str) -> None:
        self.token = Secret(token)
        self._socket = connection

    def ask(self, line: bytes) -> dict[str, Any]:
        """Send the first line and return the reaper's answer. Raises OSError when it does not come."""
        self._socket.sendall(line)
        return _read_line(self._socket)

    def say(self, text: bytes) -> None:
        """Send one more line. Raises OSError when the reaper is gone."""
        self._socket.sendall(text + b"\n")

    def alive(self) -> bool:
        """True while the reaper has not hung up."""
        self._socket.setblocking(False)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(START_SECONDS)

    def release(self) -> socket.socket:
        """The socket, for an event loop that takes it over."""
        self._socket.setblocking(False)
        return self._socket

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def _read_line(connection: socket.socket) -> dict[str, Any]:
    """One line of JSON. Raises OSError when the other side hangs up or says something else."""
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionResetError("the reaper hung up")
        line += piece
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ConnectionResetError("the reaper sent something other than an object")
    return answer


def connect(ledger_path: Path) -> ReaperConnection:
    """Connect to the reaper of this user and ledger, and start it if there is none.

    Blocks for milliseconds, or up to half a second when it has to be started. Any number of processes may call this
    at once; one of them starts it. Raises OSError when it cannot be reached or started.
    """
    state = state_path(ledger_path)
    address = ReaperAddress.read(state)
    for attempt in range(3):
        if address is not None:
            with contextlib.suppress(OSError):
                return ReaperConnection(address.connect(), address.token)
        with _locked(state.with_suffix(".lock")):
            # Another process may have started it while this one waited for the lock.
            current = ReaperAddress.read(state)
            if current is None or current == address:
                _start(ledger_path, state)
                current = ReaperAddress.read(state)
        address = current
        if address is None and attempt:
            break
    raise OSError("the process that cleans up after crashes cannot be started")


def state_path(ledger_path: Path) -> Path:
    """The file that says where the reaper listens.

    Another machine with the same home folder, another ledger, another Python environment and another version of this
    package each have a reaper of their own.
    """
    from jupyter_core.paths import jupyter_runtime_dir

    folder = Path(jupyter_runtime_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    marks = (platform.node(), str(ledger_path.absolute()), os.path.realpath(sys.prefix), _version())
    key = hashlib.sha256("\0".join(marks).encode()).hexdigest()[:12]
    return folder / f"agentcube-reaper-{key}.json"


def _version() -> str:
    try:
        return metadata.version("agentcube-kernel")
    except metadata.PackageNotFoundError:
        return ""


def _start(ledger_path: Path, state: Path) -> None:
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    process = subprocess.Popen(
        # -P keeps the notebook's folder, where a user's json.py may lie, off the path.
        [
            sys.executable,
            "-P",
            "-m",
            "agentcube_kernel.sessions.reaper",
            str(ledger_path.absolute()),
            str(state),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(sys.executable).anchor,
        env=_environment(),
        **detached,
    )
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        if os.name == "posix":
            process.wait()  # it has forked; what goes on running is no child of ours
    finally:
        watchdog.cancel()


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES) or name.lower() in _PROXIES
    }
    ours = str(Path(__file__).parents[2])
    inherited = kept.get("PYTHONPATH")
    return {**kept, "PYTHONPATH": ours if not inherited else os.pathsep.join((ours, inherited))}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes out for the length of the block; the lock goes with the process that dies."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
