"""The MCP server, as MCP's own client sees it over standard input and output."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("mcp", reason="tests/integrations/test_frameworks.py runs this where mcp is")

from mcp import Client, StdioServerParameters

from agentcube_kernel import AsyncCodeInterpreterClient, SessionNotFoundError
from tests.integrations.examples import output_of

pytestmark = pytest.mark.timeout(120)


def server(*arguments: str) -> StdioServerParameters:
    """The command, as a host starts it."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "agentcube_kernel.cli.main", "mcp", *arguments],
        env=dict(os.environ),
    )


class Caller:
    """A host with a connection."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, name: str, **arguments: Any) -> dict[str, Any]:
        """A tool's answer."""
        return dict(json.loads((await self.call(name, **arguments)).content[0].text))

    async def call(self, name: str, **arguments: Any) -> Any:
        """A tool's whole result."""
        return await self.client.call_tool(name, arguments)


@pytest.fixture
async def call(configured: dict[str, str]) -> AsyncIterator[Caller]:
    """A server that runs for one test."""
    async with Client(server()) as client:
        yield Caller(client)


async def test_tools_are_described(call: Caller) -> None:
    """AgentCube's seven tools and the stateful ones are there, and every parameter says what it is."""
    tools = (await call.client.list_tools()).tools
    upstream = {
        "run_code",
        "execute_command",
        "write_file",
        "list_files",
        "upload_file",
        "download_file",
        "stop_session",
    }
    assert {tool.name for tool in tools} == upstream | {"run_cell", "interrupt", "restart"}
    for tool in tools:
        assert tool.description
        assert "ctx" not in tool.input_schema["properties"]
        assert all(each.get("description") for each in tool.input_schema["properties"].values())


async def test_cells_remember(call: Caller) -> None:
    """Variables stay from cell to cell until a restart; an error is one for the host too."""
    assert (await call("run_cell", code="x = 20; print('set')"))["stdout"] == "set\n"
    assert (await call("run_cell", code="x + 1"))["result"] == "21"
    failed = await call.call("run_cell", code="1 / 0")
    assert failed.is_error
    assert "ZeroDivisionError" in failed.content[0].text
    late = await call.call("run_cell", code="import time; time.sleep(60)", timeout_seconds=0.5)
    assert late.is_error
    assert "was interrupted" in late.content[0].text
    assert (await call("restart"))["status"] == "ok"
    assert "NameError" in (await call("run_cell", code="x"))["error"]


async def test_images(call: Caller) -> None:
    """A picture that a cell displays is an image for the model."""
    code = "from PIL import Image; Image.new('RGB', (3, 2))"
    result = await call.call("run_cell", code=code)
    image = result.content[1]
    assert image.type == "image"
    assert image.mime_type == "image/png"
    assert base64.b64decode(image.data).startswith(b"\x89PNG")


async def test_progress_and_cancel(call: Caller) -> None:
    """Output arrives while the cell runs, and a call that is cancelled interrupts its cell."""
    begun = asyncio.Event()

    async def progress(count: float, total: float | None, message: str | None) -> None:
        if "begun" in (message or ""):
            begun.set()

    code = "x = 3; print('begun', flush=True); import time; time.sleep(60)"
    running = asyncio.create_task(
        call.client.call_tool("run_cell", {"code": code}, progress_callback=progress)
    )
    async with asyncio.timeout(30):
        await begun.wait()
    running.cancel()
    await asyncio.wait({running})
    async with asyncio.timeout(10):
        assert (await call("run_cell", code="x"))["result"] == "3"


async def test_interrupt(call: Caller) -> None:
    """A cell that runs can be interrupted by another call."""
    begun = asyncio.Event()

    async def progress(count: float, total: float | None, message: str | None) -> None:
        begun.set()

    code = "print('begun', flush=True); import time; time.sleep(60)"
    running = asyncio.create_task(
        call.client.call_tool("run_cell", {"code": code}, progress_callback=progress)
    )
    async with asyncio.timeout(30):
        await begun.wait()
        await call("interrupt")
        assert "KeyboardInterrupt" in (await running).content[0].text


async def test_stateless_tools(call: Caller) -> None:
    """AgentCube's own tools share files and no variables, and say which session they used."""
    first = await call("run_code", language="python", code="x = 10; print(x)", session_reuse=True)
    assert first["output"] == "10\n"
    session = first["session_id"]
    failed = await call.call("run_code", language="python", code="print(x)", session_id=session)
    assert failed.is_error
    assert "NameError" in failed.content[0].text
    await call("write_file", content="hello", remote_path="a/b.txt", session_id=session)
    assert (await call("execute_command", command="cat a/b.txt | tr h H"))["output"] == "Hello"
    assert [entry["name"] for entry in (await call("list_files", path="a"))["entries"]] == ["b.txt"]
    data = base64.b64encode(bytes(range(256))).decode()
    assert (await call("upload_file", content_base64=data, remote_path="c"))["bytes"] == 256
    assert (await call("download_file", remote_path="c"))["content_base64"] == data
    assert (await call.call("upload_file", content_base64="?", remote_path="c")).is_error
    assert (await call.call("download_file", remote_path="missing")).is_error
    failed = await call.call("execute_command", command="echo out; exit 3")
    assert failed.is_error
    assert json.loads(failed.content[0].text)["exit_code"] == 3


async def test_sessions(call: Caller, needs_sessions: None) -> None:
    """A stopped session is gone, the next call gets a new one, and other sessions cannot be named."""
    session = (await call("run_cell", code="1"))["session_id"]
    assert (await call.call("stop_session", session_id="somebody-elses")).is_error
    assert (await call("stop_session", session_id=session))["status"] == "stopped"
    assert (await call.call("run_code", language="python", code="1", session_id=session)).is_error
    assert (await call("run_cell", code="1"))["session_id"] != session
    assert await is_gone(session)


async def test_session_ends_with_the_server(configured: dict[str, str], needs_sessions: None) -> None:
    """The sandbox is deleted when the host hangs up, but not one that the server was told to attach to."""
    async with Client(server()) as client:
        session = (await Caller(client)("run_cell", code="1"))["session_id"]
    assert await is_gone(session)
    async with AsyncCodeInterpreterClient() as owner:
        async with Client(server("--session-id", str(owner.session_id))) as client:
            assert (await Caller(client)("run_cell", code="1"))["session_id"] == owner.session_id
        assert await owner.execute_command("echo here") == "here\n"


async def is_gone(session: str) -> bool:
    """True when a session no longer exists, a moment after it was deleted at the latest."""
    async with AsyncCodeInterpreterClient(session_id=session) as client:
        for _ in range(100):
            try:
                await client.health()
            except SessionNotFoundError:
                return True
            await asyncio.sleep(0.1)
    return False


async def test_example(configured: dict[str, str]) -> None:
    """The example lists the tools and computes."""
    assert (await output_of("mcp_client.py", configured)).endswith("write_file\n21\n")
