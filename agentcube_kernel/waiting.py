"""Saying that a cell waits for another one, when somebody else uses the same session."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PATIENCE = 1.5
"""Seconds without a sign of a cell that was sent, after which something else must be running there."""


@asynccontextmanager
async def told_of_waiting(
    tell: Callable[[str], None], session_id: str | None
) -> AsyncIterator[Callable[[], None]]:
    """Tell the user if a cell that has been sent does not begin. The block calls what it gets at the cell's first sign.

    A session runs one cell at a time, in the order in which they came, whoever sent them.
    """

    def wait_is_long() -> None:
        tell(
            f"Waiting: session {session_id} is running something else, from another notebook or program that uses it. "
            "This cell begins when that has ended; an interrupt takes this cell back."
        )

    timer = asyncio.get_running_loop().call_later(PATIENCE, wait_is_long)
    try:
        yield timer.cancel
    finally:
        timer.cancel()
