"""Sandboxes that integrations make for themselves, several in one process."""

from __future__ import annotations

import asyncio

from agentcube_kernel.integrations.own_sandbox import own_async_sandbox
from agentcube_kernel.sessions.keeper import Keeper


async def test_one_ends_before_another(configured: dict[str, str], needs_sessions: None) -> None:
    """When one integration of a process is done, the sandboxes of the others stay."""
    keepers = [Keeper(), Keeper()]
    first, second = (own_async_sandbox(keeper) for keeper in keepers)
    try:
        await first.run_cell("x = 1")
        await second.run_cell("x = 2")
        await second.stop()
        keepers[1].close()
        # A reaper that took this for the end of the process would delete the other session within moments.
        for _ in range(20):
            await first.client.health()
            await asyncio.sleep(0.1)
        assert (await first.run_cell("x")).text == "1"
    finally:
        await first.stop()
        await second.stop()
        for keeper in keepers:
            keeper.close()
