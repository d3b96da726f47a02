"""What goes on in the current sandbox while another one is being made."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kernel.frontend import FrontEnd
from tests.magics.notebooks import notebook
from tests.sessions.slow_manager import SlowManager, slow_manager

pytestmark = [pytest.mark.usefixtures("configured", "needs_sessions"), pytest.mark.timeout(120)]

OPEN_A_COMM = """
from comm import create_comm
import comm
def opened(channel, message):
    channel.on_msg(lambda message: channel.send({"echo": message["content"]["data"]}))
comm.get_comm_manager().register_target("echo", opened)
unlikely_name = 1
"""


@pytest.fixture
async def manager(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowManager]:
    """A WorkloadManager that holds creations back when it is told to."""
    async with slow_manager(os.environ["WORKLOAD_MANAGER_URL"]) as manager:
        monkeypatch.setenv("WORKLOAD_MANAGER_URL", manager.url)
        manager.go_on()
        yield manager


async def echoed(user: FrontEnd, value: int) -> None:
    """Send a message to the comm and wait for its echo."""
    user.send("comm_msg", {"comm_id": "c1", "data": value})
    await user.until(lambda m: m["msg_type"] == "comm_msg" and m["content"]["data"] == {"echo": value})


async def test_questions_and_comms_go_on(manager: SlowManager, tmp_path: Path) -> None:
    """While another sandbox opens, completion, inspection and comms of the ready current one are answered."""
    async with notebook("agentcube", tmp_path / "one", {}) as user:
        await user.cell(OPEN_A_COMM)
        user.send("comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}})
        await echoed(user, 1)
        manager.hold()
        busy = user.begin("%sandbox new other")
        await manager.asked()
        async with asyncio.timeout(20):
            assert await user.completions("unlikely_na") == ["unlikely_name"]
            found = await user.ask("inspect_request", {"code": "unlikely_name", "cursor_pos": 5})
            assert found["found"]
            await echoed(user, 2)
        manager.go_on()
        assert (await user.end(busy)).status == "ok"
