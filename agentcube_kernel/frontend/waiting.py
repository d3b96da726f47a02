"""Saying that a cell waits for another one, when somebody else uses the same session."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..errors import AgentCubeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ..channel.cell_run import CellRun
    from ..sandbox import AsyncSandbox

PATIENCE = 1.5
"""Seconds without a sign of a cell that was sent, after which the sandbox is asked what it does instead."""


@asynccontextmanager
async def told_of_waiting(
    sandbox: AsyncSandbox, run: CellRun, tell: Callable[[str], None]
) -> AsyncIterator[None]:
    """Tell the user if the sandbox runs something else first, while the block reads the events of `run`.

    A session runs one cell at a time, in the order in which they came, whoever sent them.
    """

    async def ask() -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await run.begun()
            return
        except TimeoutError:
            pass
        try:
            running = (await sandbox.usage()).get("running")
        except AgentCubeError:
            return
        if isinstance(running, str) and running != run.id and not run.started:
            tell(
                f"Waiting: session {sandbox.session_id} is running something else, for another notebook or program "
                "that uses it. This cell begins when that has ended; an interrupt takes this cell back."
            )

    asking = asyncio.get_running_loop().create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.wait({asking})
