"""What many agents at once gain: their waiting overlaps, and so do their sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from agentcube_kernel import AsyncSandbox
from agentcube_kernel.integrations.tools import asandbox_tools
from tests.sandboxes import opened

AGENTS, CALLS, THINKING = 10, 10, 0.2


async def agent(sandbox: AsyncSandbox) -> str:
    """An agent that thinks before each call of a tool."""
    run_python = asandbox_tools(sandbox)[0]
    for number in range(CALLS):
        await asyncio.sleep(THINKING)
        answer = await run_python(f"total = {number} + (total if {number} else 0); total")
        assert answer["ok"], answer["error"]
    return str(answer["result"])


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_ten_agents(configured: dict[str, str], needs_sessions: None) -> None:
    """Ten agents with ten calls each take little longer than one, and each keeps its own variables."""
    async with contextlib.AsyncExitStack() as stack:
        sandboxes = [await stack.enter_async_context(opened()) for _ in range(AGENTS)]
        begun = time.monotonic()
        assert await agent(sandboxes[0]) == "45"
        alone = time.monotonic() - begun
        begun = time.monotonic()
        assert await asyncio.gather(*(agent(each) for each in sandboxes)) == ["45"] * AGENTS
        together = time.monotonic() - begun
        # On two processors that do nothing else it is more than 8.
        assert AGENTS * alone / together > 4
