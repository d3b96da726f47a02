"""Gateways of these tests' own, and small clients that show the raw answers."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from agentcube_kernel.gateway.isolation import Isolation
from tests.endpoints import Endpoint, start_embedded

BASE = "/v1/namespaces/default/code-interpreters/my-interpreter/invocations"


@dataclass
class Server:
    """A running gateway and a client that shows it the token."""

    endpoint: Endpoint
    http: httpx.Client
    token: str = field(repr=False)

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.endpoint.pid)

    def anonymous(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request without the token."""
        with httpx.Client(base_url=self.endpoint.data_url, trust_env=False, timeout=30) as client:
            return client.request(method, path, **options)

    def create(self, resource: str = "code-interpreter", **fields: Any) -> Session:
        body = {"name": "my-interpreter", "namespace": "default", **fields}
        answer = self.http.post(f"/v1/{resource}", json=body)
        assert answer.status_code == 200, answer.text
        return Session(self, answer.json()["sessionId"], answer.json())


@dataclass
class Session:
    """One sandbox of a server."""

    server: Server
    id: str
    created: dict[str, Any]

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {
            "x-agentcube-session-id": self.id,
            "accept-encoding": "identity",
            **options.pop("headers", {}),
        }
        return self.server.http.request(method, BASE + path, headers=headers, **options)

    def execute(self, *command: str, **fields: Any) -> dict[str, Any]:
        answer = self.request("POST", "/api/execute", json={"command": list(command), **fields})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def sh(self, script: str, **fields: Any) -> dict[str, Any]:
        return self.execute("sh", "-c", script, **fields)

    def start(self, script: str) -> int:
        """Run a script that prints the number of a process in the sandbox; its number here."""
        pid = int(self.sh(script)["stdout"])
        return host_pid(pid, self.sh("readlink /proc/self/ns/pid")["stdout"].strip())

    def delete(self) -> httpx.Response:
        return self.server.http.delete(f"/v1/code-interpreter/sessions/{self.id}")

    @property
    def workspace(self) -> Path:
        return Path(self.execute("pwd", "-P")["stdout"].strip())


Start = Callable[..., contextlib.AbstractContextManager[Server]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Run one more gateway, with environment variables of its own, for the length of a `with` block."""

    @contextlib.contextmanager
    def run(python: str = sys.executable, **variables: str) -> Iterator[Server]:
        before = dict(os.environ)
        os.environ.update(variables)
        try:
            running = start_embedded(tmp_path_factory.mktemp("serve"), python=python)
            with running as endpoint:
                token = endpoint.env["AGENTCUBE_TOKEN"]
                headers = {"authorization": f"Bearer {token}"}
                with httpx.Client(
                    base_url=endpoint.data_url, headers=headers, trust_env=False, timeout=30
                ) as client:
                    yield Server(endpoint, client, token)
        finally:
            os.environ.clear()
            os.environ.update(before)

    return run


WORKS = bool(Isolation.choose(None))
needs_bubblewrap = pytest.mark.skipif(not WORKS, reason="bubblewrap is not installed, or not allowed here")


@pytest.fixture(
    scope="module", params=["0", pytest.param("1", marks=needs_bubblewrap)], ids=["plain", "bubblewrap"]
)
def server(start: Start, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The gateway that the tests of a module share, without bubblewrap and with it."""
    with start(AGENTCUBE_GATEWAY_BUBBLEWRAP=request.param) as running:
        yield running


@pytest.fixture
def session(server: Server) -> Iterator[Session]:
    """A session of one test's own."""
    created = server.create()
    yield created
    created.delete()


def host_pid(pid: int, namespace: str) -> int:
    """The number here of a process with the number `pid` in a namespace of processes, as /proc/self/ns/pid names it."""
    if not namespace or namespace == os.readlink("/proc/self/ns/pid"):
        return pid
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
            if numbers[-1] == str(pid) and os.readlink(f"/proc/{process.pid}/ns/pid") == namespace:
                return process.pid
    raise AssertionError(f"there is no process {pid} in {namespace}")


def eventually(look: Callable[[], object], timeout: float = 10.0) -> bool:
    """Whether `look` comes to be true in time."""
    deadline = time.monotonic() + timeout
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def lines(answer: httpx.Response) -> list[Any]:
    """The JSON values of a stream of server-sent events."""
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
