"""The stock SDK's own tests, examples and end-to-end cases, restated for these classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentcube_kernel import (
    AgentRuntimeClient,
    AsyncAgentRuntimeDataPlaneClient,
    AsyncCodeInterpreterClient,
    CodeInterpreterClient,
    CommandExecutionError,
)
from tests.client.stub import Request, from_sandbox, reply, stub

FIBONACCI = """
import json

def fibonacci(n):
    numbers = [0, 1]
    while len(numbers) < n:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:n]

with open("output.json", "w") as file:
    json.dump({"numbers": fibonacci(10)}, file)
print("Fibonacci written")
"""


@pytest.fixture
def client(configured: dict[str, str]) -> Iterator[CodeInterpreterClient]:
    """An open client."""
    with CodeInterpreterClient() as opened:
        yield opened


def test_case_1_simple_code(client: CodeInterpreterClient) -> None:
    """A snippet's output comes back."""
    assert "2" in client.run_code("python", "print(1 + 1)")


def test_case_2_code_in_a_session_is_stateless(client: CodeInterpreterClient) -> None:
    """A second call does not see the first one's variables."""
    assert "defined" in client.run_code("python", "x = 10\nprint('defined')")
    with pytest.raises(CommandExecutionError) as caught:
        client.run_code("python", "print(x)")
    assert "NameError" in caught.value.stderr


def test_case_3_files(client: CodeInterpreterClient, tmp_path: Path) -> None:
    """A script is written and run, and what it wrote is downloaded."""
    client.write_file(FIBONACCI, "fibonacci.py")
    assert "Fibonacci written" in client.run_code("python", FIBONACCI)
    client.download_file("output.json", str(tmp_path / "output.json"))
    assert json.loads((tmp_path / "output.json").read_text())["numbers"] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]


def test_basic_usage_example(client: CodeInterpreterClient) -> None:
    """The example's first half: a command, a snippet, files read by key."""
    assert client.execute_command("whoami").strip()
    assert client.run_code("python", "import math\nprint(f'{math.pi:.6f}')") == "3.141593\n"
    client.write_file("Hello from AgentCube!", "hello.txt")
    assert "hello.txt" in [entry["name"] for entry in client.list_files(".")]


def test_session_reuse_example(configured: dict[str, str], needs_sessions: None) -> None:
    """The example's second half: no `with`, the id taken from one client and given to another."""
    first = CodeInterpreterClient(verbose=True)
    first.write_file("42", "value.txt")
    session_id = first.session_id
    second = CodeInterpreterClient(session_id=session_id)
    assert second.session_id == session_id
    assert second.run_code("python", "print(open('value.txt').read())") == "42\n"
    second.stop()
    first.stop()


@pytest.mark.anyio
async def test_new_session_and_reused_session() -> None:
    """Without an id one session is created, with one none; the end deletes what was created."""
    calls: list[str] = []

    def handler(request: Request) -> bytes:
        calls.append(request.method)
        return reply(200, {"sessionId": "new-session-123", "message": "ok"})

    async with stub(handler) as server:
        urls = {"workload_manager_url": server.url, "router_url": server.url}
        async with AsyncCodeInterpreterClient(**urls) as created:
            assert created.session_id == "new-session-123"
            assert server.requests[0].json == {
                "name": "my-interpreter",
                "namespace": "default",
                "metadata": {},
            }
        async with AsyncCodeInterpreterClient(**urls, session_id="existing-session-123") as reused:
            assert reused.session_id == "existing-session-123"
    assert calls == ["POST", "DELETE"]


@pytest.mark.anyio
async def test_agent_runtime_cases() -> None:
    """The session id is taken from the header whatever the status, sent with each call; JSON or text comes back."""

    def handler(request: Request) -> bytes:
        if request.method == "GET":
            return from_sandbox(404, b"not found", session="session-from-404")
        assert request.headers["x-agentcube-session-id"] == "session-from-404"
        return from_sandbox(200, {"ok": True}) if request.json == {"p": 1} else from_sandbox(200, b"plain")

    async with (
        stub(handler) as server,
        AsyncAgentRuntimeDataPlaneClient(server.url, "default", "agent") as plane,
    ):
        assert await plane.bootstrap_session_id() == "session-from-404"
        answer = await plane.invoke("session-from-404", {"p": 1})
        assert (answer.status, answer.json()) == (200, {"ok": True})
        assert (await plane.invoke("session-from-404", {"p": 2})).text == "plain"


@pytest.mark.anyio
async def test_synchronous_agent_cases() -> None:
    """The same through the synchronous client, in a thread of its own."""
    import asyncio

    def handler(request: Request) -> bytes:
        return from_sandbox(200, {"echo": request.json} if request.body else {}, session="existing-456")

    def use(url: str) -> Any:
        agent = AgentRuntimeClient("agent", router_url=url, session_id="existing-456")
        try:
            return agent.invoke({"input": "hi"}), list(agent.invoke_stream({"input": "x"})), agent.session_id
        finally:
            agent.close()

    async with stub(handler) as server:
        answer, pieces, session_id = await asyncio.to_thread(use, server.url)
    assert answer == {"echo": {"input": "hi"}}
    assert json.loads("".join(pieces)) == {"echo": {"input": "x"}}
    assert session_id == "existing-456"
