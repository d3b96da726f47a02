"""What a cell shows while it waits for its sandbox."""

from __future__ import annotations

import asyncio
import html
import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .cell import Cell

QUIET_SECONDS = 3.0
REFRESH_SECONDS = 1.0


class StartProgress:
    """Nothing for the first seconds, then one display that is updated and ends as one quiet line."""

    def __init__(self, cell: Cell, *, enabled: bool) -> None:
        self._cell = cell
        self._enabled = enabled and not cell.silent and not cell.compares_outputs
        self._display_id = uuid.uuid4().hex
        self._started = time.monotonic()
        self._step = "starting"
        self._shown = False

    def say(self, step: str) -> None:
        """Name what is being done now."""
        self._step = step
        if self._shown:
            self._show(self._line())

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show progress while the block runs."""
        ticker = asyncio.create_task(self._tick()) if self._enabled else None
        outcome = "The sandbox did not start"
        try:
            yield
            outcome = "The sandbox is ready"
        finally:
            if ticker is not None:
                ticker.cancel()
            if self._shown:
                self._show(f"{outcome} ({self._elapsed():.0f} s).")

    async def _tick(self) -> None:
        await asyncio.sleep(QUIET_SECONDS)
        while True:
            self._show(self._line())
            await asyncio.sleep(REFRESH_SECONDS)

    def _line(self) -> str:
        return f"Waiting for the sandbox: {self._step} ({self._elapsed():.0f} s)"

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _show(self, text: str) -> None:
        msg_type = "update_display_data" if self._shown else "display_data"
        self._shown = True
        self._cell.publish(msg_type, _bundle(text, self._display_id))


def _bundle(text: str, display_id: str) -> dict[str, Any]:
    return {
        "data": {"text/plain": text, "text/html": f"<small>{html.escape(text)}</small>"},
        "metadata": {},
        "transient": {"display_id": display_id},
    }
