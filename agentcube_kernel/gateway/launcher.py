"""Find the user's background gateway, or start it.

One gateway serves all kernels of a user that run on the same Python environment and the same version of this
package. Another environment or another version gets a gateway of its own beside it: `python3` in a sandbox
is the gateway's interpreter, and the packages a user expects are those of the environment the kernel is
installed in. Each ends by itself when it has been idle for an hour.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import hmac
import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .auth import token_proof
from .environment import gateway_environment
from .version import package_version

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "agentcube-gateway-"


class GatewayStartError(Exception):
    """The embedded gateway could not be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayInfo:
    """Where a running gateway is, and the token it wants."""

    router_url: str
    workload_manager_url: str
    token: str = field(repr=False)
    pid: int
    isolation: str = "none"
    """What keeps sandboxes apart from this machine: `none` or `bubblewrap`."""


def ensure_gateway(*, timeout: float = 20.0) -> GatewayInfo:
    """The user's background gateway, started if there is none; blocking, for at most `timeout` seconds.

    Any number of processes may call this at once: exactly one gateway is started. It survives the process
    that started it, is shared by all that come later, and ends after an idle hour (`AGENTCUBE_GATEWAY_IDLE`
    seconds), leaving no process and no folder behind. What a killed gateway left is cleared away by the next
    one. Its settings are those in the environment of the process that starts it.

    Raises GatewayStartError.
    """
    if os.name != "posix":
        raise GatewayStartError(
            "the embedded gateway runs on Linux and macOS only; "
            "set ROUTER_URL and WORKLOAD_MANAGER_URL to an AgentCube"
        )
    deadline = time.monotonic() + timeout
    try:
        folder = _runtime_folder()
        state = folder / f"{_PREFIX}{_key()}.json"
        running = probe(state)
        if running is not None:
            return running
        with _locked(state.with_suffix(".lock"), deadline):
            # Whoever held the lock before may have started it.
            return probe(state) or _start(state, deadline)
    except OSError as exc:
        raise GatewayStartError(f"the embedded gateway cannot be started: {exc}") from exc


def running_gateways() -> list[GatewayInfo]:
    """All background gateways of the user that answer, also those of other environments and versions."""
    found = (probe(Path(path)) for path in sorted(glob.glob(str(_runtime_folder() / f"{_PREFIX}*.json"))))
    return [info for info in found if info is not None]


def probe(state: Path) -> GatewayInfo | None:
    """The gateway that `state` tells of, if it is still the one that answers there.

    The server must prove that it knows the token; the token itself is not sent, since by now some other
    program may listen on the port.
    """
    try:
        values = json.loads(state.read_text(encoding="utf-8"))
        info = GatewayInfo(
            router_url=str(values["router_url"]),
            workload_manager_url=str(values["workload_manager_url"]),
            token=str(values["token"]),
            pid=int(values["pid"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    answer = _proof(info)
    if answer is None:
        return None
    return replace(info, isolation="bubblewrap" if answer.get("isolation") == "bubblewrap" else "none")


def _proof(info: GatewayInfo) -> dict[str, Any] | None:
    """What the gateway says of itself, if it proves that it knows the token."""
    nonce = secrets.token_hex(16)
    address = urlsplit(info.router_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    try:
        connection.request("GET", f"/health/gateway?nonce={nonce}")
        response = connection.getresponse()
        answer: Any = json.loads(response.read(65536))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if not isinstance(answer, dict) or not isinstance(answer.get("proof"), str):
        return None
    expected = token_proof(info.token, nonce.encode())
    return answer if hmac.compare_digest(answer["proof"].encode(), expected.encode()) else None


def _start(state: Path, deadline: float) -> GatewayInfo:
    log = state.with_suffix(".log")
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __package__, "--detach", "--state", str(state)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    with process:
        assert process.stdout is not None
        line = _first_line(process.stdout.fileno(), deadline)
    running = probe(state) if line else None
    if running is None:
        said = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        reason = said or ("it said nothing" if line is not None else "it took too long")
        raise GatewayStartError(f"the embedded gateway did not start: {reason} (its log is {log})")
    return running


def _first_line(fd: int, deadline: float) -> bytes | None:
    """What comes up to the first line's end; empty at the end of file, None when time is up."""
    import select

    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        data = os.read(fd, 65536)
        if not data:
            return b""
        line += data
    return line


def _environment() -> dict[str, str]:
    env = gateway_environment(os.environ)
    home = str(Path(__file__).resolve().parents[2])
    # The gateway starts in "/", where a package that was found through the current folder is not seen.
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    if home not in (os.path.realpath(path) for path in paths) and os.path.basename(home) != "site-packages":
        env["PYTHONPATH"] = os.pathsep.join([*map(os.path.abspath, paths), home])
    return env


@contextlib.contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise GatewayStartError(
                        f"another process is starting the embedded gateway and does not finish (lock {path})"
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def _runtime_folder() -> Path:
    from jupyter_core.paths import jupyter_runtime_dir

    folder = Path(jupyter_runtime_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _key() -> str:
    text = "\0".join((package_version(), os.path.realpath(sys.prefix), sys.executable))
    return hashlib.sha256(text.encode()).hexdigest()[:10]
