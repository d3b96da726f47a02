"""Ctrl-C while a sandbox is being made: nothing is left behind, and the next line works."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentcube_kernel.sandbox import AsyncSandbox
from tests.magics.notebooks import KINDS, notebook, shown


@pytest.fixture
async def silent_server(anyio_backend: str) -> AsyncIterator[str]:
    """A server that takes every request and never answers."""
    connections: set[asyncio.Task[None]] = set()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections)


@pytest.mark.usefixtures("configured")
async def test_right_after_a_sandbox_was_made() -> None:
    """An interrupt that comes while the interpreter is starting does not end it."""
    for _ in range(3):
        async with AsyncSandbox() as sandbox:
            await sandbox.interrupt()
            assert (await sandbox.run_cell("1")).text == "1"


@pytest.mark.usefixtures("needs_sessions")
@pytest.mark.parametrize("kind", KINDS)
async def test_while_a_sandbox_is_made(
    silent_server: str, endpoint_env: dict[str, str], tmp_path: Path, kind: str
) -> None:
    """The interrupt ends the line within seconds as KeyboardInterrupt, with one quiet line of progress at the end."""
    env = {**endpoint_env, "WORKLOAD_MANAGER_URL": silent_server, "AGENTCUBE_EAGER_START": "0"}
    async with notebook(kind, tmp_path, env) as user:
        for line in ("%sandbox new a", "%%sandbox\n1"):
            request = user.begin(line)
            await user.until(
                lambda m, r=request: m["msg_type"] == "display_data" and m["parent_header"].get("msg_id") == r
            )
            await user.interrupt()
            outcome = await user.end(request, 10)
            assert outcome.content["ename"] == "KeyboardInterrupt"
            assert (
                outcome.of_type("update_display_data")[-1]["data"]["text/plain"]
                .split(" (")[0]
                .endswith(": interrupted")
            )
            if "new" in line:
                assert " a " not in shown(await user.cell("%sandbox list"))
