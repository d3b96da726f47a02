"""The background gateway: started once, shared, found again, replaced when it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from agentcube_kernel.gateway.launcher import (
    GatewayInfo,
    GatewayStartError,
    ensure_gateway,
    probe,
    running_gateways,
)

from .conftest import BASE, alive, eventually, host_pid


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of one test's own; every gateway started from it ends with the test."""
    folder = tmp_path / "runtime"
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("AGENTCUBE_GATEWAY_IDLE", "60")
    yield folder
    for info in running_gateways():
        os.kill(info.pid, signal.SIGTERM)
        assert eventually(lambda pid=info.pid: not alive(pid))
    assert not list(folder.glob("*.json"))


def create(info: GatewayInfo) -> httpx.Response:
    headers = {"authorization": f"Bearer {info.token}"}
    body = {"name": "my-interpreter", "namespace": "default"}
    return httpx.post(
        f"{info.workload_manager_url}/v1/code-interpreter", json=body, headers=headers, trust_env=False
    )


def launch_elsewhere(count: int) -> list[GatewayInfo]:
    """What `ensure_gateway` returns in that many processes that call it at the same moment."""
    script = (
        "import sys, json, dataclasses\n"
        "from agentcube_kernel.gateway.launcher import ensure_gateway\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "print(json.dumps(dataclasses.asdict(ensure_gateway())))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    found = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, _ = process.communicate(timeout=40)
        assert process.returncode == 0
        found.append(GatewayInfo(**json.loads(out)))
    return found


def test_ten_at_once_start_one(runtime: Path) -> None:
    """Ten processes at the same moment get one and the same gateway, which survives them all."""
    found = launch_elsewhere(10)
    assert len(set(found)) == 1
    assert create(found[0]).status_code == 200
    assert ensure_gateway() == found[0]
    assert len(running_gateways()) == 1


def test_start_is_fast_and_finding_faster(runtime: Path) -> None:
    """A gateway answers well within a second of its launch, and is found again in no time."""
    began = time.perf_counter()
    info = ensure_gateway()
    started = time.perf_counter()
    assert ensure_gateway() == info
    found = time.perf_counter()
    assert started - began < 3.0
    assert found - started < 0.5


def test_it_is_nobodys_child_and_nobodys_terminal(runtime: Path) -> None:
    """The gateway leads its own session, away from its starter's process group, folder and descriptors."""
    process = psutil.Process(ensure_gateway().pid)
    assert os.getpgid(process.pid) != os.getpgid(0)
    assert process.ppid() != os.getpid()
    assert process.terminal() is None
    assert process.cwd() == "/"


def test_the_state_file_is_private(runtime: Path) -> None:
    """The token is in a file that only its owner may read, and nowhere in the command line or a repr."""
    info = ensure_gateway()
    (state,) = runtime.glob("*.json")
    assert state.stat().st_mode & 0o777 == 0o600
    assert info.token in state.read_text()
    assert info.token not in " ".join(psutil.Process(info.pid).cmdline())
    assert info.token not in repr(info)
    assert all(info.token not in path.read_text() for path in runtime.glob("*.log"))


def test_credentials_do_not_reach_it(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway is given what its Python needs, and none of the user's credentials, known or not."""
    for name in (
        "AGENTCUBE_TOKEN",
        "AGENTCUBE_OAUTH_CLIENT_SECRET",
        "AWS_SECRET_ACCESS_KEY",
        "SOME_NEW_TOOL",
    ):
        monkeypatch.setenv(name, "very-secret")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://user:very-secret@packages.example")
    monkeypatch.setenv("LC_TIME", "C")
    environment = psutil.Process(ensure_gateway().pid).environ()
    assert "very-secret" not in str(environment)
    assert environment["LC_TIME"] == "C"


def test_every_client_must_show_the_token(runtime: Path) -> None:
    """Knowing a session's id is not enough at the shared gateway."""
    info = ensure_gateway()
    session = create(info).json()["sessionId"]
    headers = {"x-agentcube-session-id": session}
    assert httpx.get(info.router_url + BASE + "/health", headers=headers, trust_env=False).status_code == 401
    headers["authorization"] = f"Bearer {info.token}"
    assert httpx.get(info.router_url + BASE + "/health", headers=headers, trust_env=False).status_code == 200


def test_a_killed_gateway_is_replaced(runtime: Path) -> None:
    """A state file whose gateway is gone leads to a new one."""
    first = ensure_gateway()
    os.kill(first.pid, signal.SIGKILL)
    assert eventually(lambda: not alive(first.pid))
    second = ensure_gateway()
    assert second.pid != first.pid
    assert create(second).status_code == 200


@contextlib.contextmanager
def impostor(heard: list[bytes]) -> Iterator[int]:
    """A server that answers 200 to everything and remembers what it was told."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    heard.append(connection.recv(65536))
                    body = b'{"status": "ok", "proof": "0000"}'
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_another_program_on_the_port_is_not_taken_for_it(runtime: Path) -> None:
    """A program that now listens where the gateway was is recognised, and never sees the token."""
    first = ensure_gateway()
    (state,) = runtime.glob("*.json")
    heard: list[bytes] = []
    with impostor(heard) as port:
        url = f"http://127.0.0.1:{port}"
        values = json.loads(state.read_text())
        state.write_text(json.dumps({**values, "router_url": url, "workload_manager_url": url}))
        second = ensure_gateway()
    os.kill(first.pid, signal.SIGTERM)
    assert second.router_url != url
    assert heard
    assert not any(first.token.encode() in request for request in heard)
    assert eventually(lambda: not alive(first.pid))
    assert probe(state) == second


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"router_url": 7, "token": null}'])
def test_a_damaged_state_file(runtime: Path, content: str) -> None:
    """A state file that cannot be read is replaced."""
    info = ensure_gateway()
    (state,) = runtime.glob("*.json")
    os.kill(info.pid, signal.SIGTERM)
    assert eventually(lambda: not alive(info.pid))
    assert not state.exists()
    state.write_text(content)
    assert create(ensure_gateway()).status_code == 200


def test_it_ends_when_idle(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without requests the gateway ends, with its sessions, its state file and its folder."""
    monkeypatch.setenv("AGENTCUBE_GATEWAY_IDLE", "1.5")
    info = ensure_gateway()
    headers = {"authorization": f"Bearer {info.token}"}
    with httpx.Client(base_url=info.router_url, headers=headers, trust_env=False) as client:
        script = "setsid sleep 300 >/dev/null 2>&1 </dev/null & echo $! $PWD $(readlink /proc/self/ns/pid); sleep 2"
        answer = client.post(BASE + "/api/execute", json={"command": ["sh", "-c", script]}).json()
    # The request was longer than the idle time: it counts until its end.
    assert answer["exit_code"] == 0
    assert alive(info.pid)
    number, workspace, *namespace = answer["stdout"].split()
    pid = host_pid(int(number), *namespace)
    assert eventually(lambda: not alive(info.pid))
    assert not alive(pid)
    assert not Path(workspace).parents[1].exists()
    assert not list(runtime.glob("*.json"))


def test_what_keeps_it_from_starting_is_told(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that cannot run says why, within the time given."""
    monkeypatch.setenv("AGENTCUBE_GATEWAY_SESSION_TIMEOUT", "soon")
    with pytest.raises(
        GatewayStartError, match="AGENTCUBE_GATEWAY_SESSION_TIMEOUT must be a positive number"
    ):
        ensure_gateway()
    monkeypatch.delenv("AGENTCUBE_GATEWAY_SESSION_TIMEOUT")
    assert create(ensure_gateway()).status_code == 200


def test_a_runtime_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where the runtime folder should be is an error with its path, not a traceback of another kind."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(GatewayStartError, match="file"):
        ensure_gateway()


def test_starting_does_not_hang_on_someone_elses_lock(runtime: Path) -> None:
    """A process that holds the lock and never finishes costs the timeout, and is named."""
    import fcntl

    os.kill(ensure_gateway().pid, signal.SIGTERM)
    assert eventually(lambda: not list(runtime.glob("*.json")))
    (lock,) = runtime.glob("*.lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(GatewayStartError, match="another process"):
            ensure_gateway(timeout=0.5)
        assert time.monotonic() - began < 3
