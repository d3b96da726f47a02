"""Sessions of agent runtimes."""

from __future__ import annotations

import asyncio

import pytest

from agentcube_kernel import (
    AsyncAgentRuntimeClient,
    AsyncAgentRuntimeDataPlaneClient,
    ConfigurationError,
    Ownership,
    ResponseError,
    SessionCreateError,
    SessionLeakWarning,
)
from tests.client.stub import Request, from_sandbox, reply, stub

pytestmark = pytest.mark.anyio

BASE = "/v1/namespaces/lab/agent-runtimes/my-agent/invocations/"


class Agent:
    """A Router with one agent that echoes, and a WorkloadManager."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def __call__(self, request: Request) -> bytes:
        if request.method == "DELETE":
            self.deleted.append(request.target)
            return reply(200, {"message": "Sandbox deleted successfully"})
        if request.method == "GET":
            return from_sandbox(405, b"method not allowed", session="agent-1")
        assert request.headers["x-agentcube-session-id"] == "agent-1"
        if request.target.endswith("/text"):
            return from_sandbox(200, b"just text", headers={"content-type": "text/plain"})
        return from_sandbox(200, {"echo": request.json, "target": request.target})


async def test_owned_session_is_deleted() -> None:
    """The Router makes the session, whatever the agent says to the request; the end of the block deletes it."""
    agent = Agent()
    async with stub(agent) as server:
        async with AsyncAgentRuntimeClient(
            "my-agent", "lab", router_url=server.url, workload_manager_url=server.url
        ) as client:
            assert (client.session_id, client.ownership) == ("agent-1", Ownership.OWNED)
            assert server.requests[0].target == BASE
            answer = await client.invoke({"prompt": "hällo"}, path="/v1/chat?x=1 2")
            assert answer == {"echo": {"prompt": "hällo"}, "target": BASE + "v1/chat?x=1%202"}
            assert await client.invoke({}, path="text") == "just text"
        assert client.session_id is None
    assert agent.deleted == ["/v1/agent-runtime/sessions/agent-1"]


async def test_attached_session_is_never_deleted() -> None:
    """A session whose id was given stays; `force=True` deletes it."""
    agent = Agent()
    async with stub(agent) as server:
        urls = {"router_url": server.url, "workload_manager_url": server.url}
        async with AsyncAgentRuntimeClient("my-agent", "lab", session_id="agent-1", **urls) as client:
            await client.invoke({})
        assert agent.deleted == []
        await AsyncAgentRuntimeClient("my-agent", "lab", session_id="agent-1", **urls).stop(force=True)
    assert agent.deleted == ["/v1/agent-runtime/sessions/agent-1"]


async def test_without_workload_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its URL is optional and never guessed: what cannot be deleted is reported."""
    agent = Agent()
    async with stub(agent) as server:
        monkeypatch.setenv("ROUTER_URL", server.url)
        client = await AsyncAgentRuntimeClient.create("my-agent", "lab")
        assert await client.invoke({"a": 1}) == {"echo": {"a": 1}, "target": BASE}
        with pytest.warns(SessionLeakWarning, match="agent-1"):
            await client.stop()
    assert agent.deleted == []


async def test_no_session_header() -> None:
    """A Router that names no session is reported, and its answer not mistaken for the agent's."""
    async with (
        stub(lambda request: reply(200, {"hello": 1})) as server,
        AsyncAgentRuntimeDataPlaneClient(server.url, "lab", "my-agent") as plane,
    ):
        with pytest.raises(ResponseError, match="not as AgentCube's Router does"):
            await plane.bootstrap_session_id()
    async with (
        stub(lambda request: reply(502, {"error": "sandbox unreachable"})) as server,
        AsyncAgentRuntimeDataPlaneClient(server.url, "lab", "my-agent") as plane,
    ):
        with pytest.raises(SessionCreateError):
            await plane.bootstrap_session_id()


async def test_streamed_answer() -> None:
    """Pieces arrive as the agent sends them; lines and characters are put together again."""
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nx-agentcube-session-id: s\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (b"data: \xc3", b"\xa4\n\nda", b"ta: two\r\n", b"data: three"):
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
            if piece.startswith(b"\xa4"):
                await go_on.wait()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with AsyncAgentRuntimeClient("a", router_url=url, session_id="s") as client:
            async with client.invoke_stream({"prompt": "x"}) as stream:
                lines = []
                async for line in stream.lines():
                    lines.append(line)
                    go_on.set()
            assert lines == ["data: ä", "", "data: two", "data: three"]
            async with client.invoke_stream({"prompt": "x"}) as stream:
                assert "".join([text async for text in stream]) == "data: ä\n\ndata: two\r\ndata: three"
        await asyncio.sleep(0)


async def test_streamed_answer_cut_short() -> None:
    """A stream that breaks raises, after what had come."""
    seen = ""

    async def read(client: AsyncAgentRuntimeClient) -> None:
        nonlocal seen
        async with client.invoke_stream({}) as stream:
            async for text in stream:
                seen += text

    async with (
        stub(lambda request: from_sandbox(200, b"0123456789", cut=4)) as server,
        AsyncAgentRuntimeClient("a", router_url=server.url, session_id="s") as client,
    ):
        with pytest.raises(ResponseError, match="cut short after 6 bytes"):
            await read(client)
    assert seen == "012345"


async def test_bad_arguments() -> None:
    """Payloads that are no JSON, and paths that lead out, are refused by name."""
    async with AsyncAgentRuntimeClient("a", router_url="http://127.0.0.1:1", session_id="s") as client:
        for payload in ({"a": object()}, {"a": float("nan")}):
            with pytest.raises(ConfigurationError, match="payload"):
                await client.invoke(payload)
        for path in ("../other", "a/../../b"):
            with pytest.raises(ConfigurationError, match="path"):
                await client.invoke({}, path=path)
    for name in ("", "a/b", "..", 5):
        with pytest.raises(ConfigurationError):
            AsyncAgentRuntimeClient(name, router_url="http://x")  # type: ignore[arg-type]


async def test_bare_picod_has_no_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but a PicoD configured, the error says what is missing."""
    monkeypatch.setenv("AGENTCUBE_PICOD_URL", "http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="ROUTER_URL"):
        AsyncAgentRuntimeClient("a")


async def test_on_a_real_agentcube(configured: dict[str, str], needs_embedded: None) -> None:
    """Through the gateway: a session is made, invoked and deleted."""
    async with AsyncAgentRuntimeClient("my-agent") as client:
        session_id = client.session_id
        assert session_id is not None
        async with AsyncAgentRuntimeClient("my-agent", session_id=session_id) as other:
            assert other.session_id == session_id
