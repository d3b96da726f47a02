"""Saying that a cell waits for another one, when somebody else uses the same session."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import AgentCubeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PATIENCE = 1.5
"""Seconds without a sign of a cell that was sent, after which the sandbox is asked what it does instead."""


class Shared(Protocol):
    """A sandbox that others may use too."""

    @property
    def session_id(self) -> str | None: ...

    async def usage(self) -> dict[str, Any]: ...


@asynccontextmanager
async def told_of_waiting(
    sandbox: Shared, cell_id: str, tell: Callable[[str], None]
) -> AsyncIterator[Callable[[], object]]:
    """Tell the user if the sandbox runs something else first. The block calls what it gets at the cell's first sign.

    A session runs one cell at a time, in the order in which they came, whoever sent them.
    """

    async def ask() -> None:
        await asyncio.sleep(PATIENCE)
        try:
            running = (await sandbox.usage()).get("running")
        except AgentCubeError:
            return
        if isinstance(running, str) and running != cell_id:
            tell(
                f"Waiting: session {sandbox.session_id} is running something else, for another notebook or program "
                "that uses it. This cell begins when that has ended; an interrupt takes this cell back."
            )

    asking = asyncio.get_running_loop().create_task(ask())
    try:
        yield asking.cancel
    finally:
        asking.cancel()
        await asyncio.wait({asking})
