"""Helpers for tests that run cells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentcube_kernel.channel.cell_run import CellRun
from agentcube_kernel.channel.protocol import Event
from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.sandbox import AsyncSandbox, CellResult


@asynccontextmanager
async def opened(**options: object) -> AsyncIterator[AsyncSandbox]:
    """A sandbox of the configured AgentCube, stopped at the end."""
    sandbox = AsyncSandbox(**options)  # type: ignore[arg-type]
    try:
        await sandbox.open()
        yield sandbox
    finally:
        await sandbox.stop()


def attached(sandbox: AsyncSandbox, **options: object) -> AsyncSandbox:
    """Another sandbox object on the same session."""
    return AsyncSandbox(AsyncCodeInterpreterClient(session_id=sandbox.session_id), **options)  # type: ignore[arg-type]


class Running:
    """A cell that runs while the test goes on, and what it has put out so far."""

    def __init__(
        self, sandbox: AsyncSandbox, code: str, *, cell_id: str | None = None, allow_stdin: bool = False
    ) -> None:
        self.events: list[Event] = []
        self.run: CellRun | None = None
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._collect(sandbox, code, cell_id, allow_stdin))

    async def _collect(
        self, sandbox: AsyncSandbox, code: str, cell_id: str | None, allow_stdin: bool
    ) -> None:
        self.run = await sandbox.start_cell(code, cell_id=cell_id, allow_stdin=allow_stdin)
        async for event in self.run.events():
            async with self._changed:
                self.events.append(event)
                self._changed.notify_all()

    async def until(self, type: str, text: str = "") -> Event:
        """Wait for an event of a type, whose content contains `text`."""
        async with self._changed:
            while True:
                for event in self.events:
                    if event.type == type and text in str(event.content):
                        return event
                await self._changed.wait()

    async def answer(self, text: str | None) -> None:
        """Answer the cell's question."""
        assert self.run is not None
        await self.run.answer(text)

    async def end(self) -> dict[str, object]:
        """Wait for the cell's end; its reply."""
        await self.task
        return self.events[-1].content


def types(result: CellResult) -> list[str]:
    """The event types of a cell, without those that frame every cell; text may come in any number of pieces."""
    found = [event.type for event in result.events if event.type not in ("execute_input", "execute_reply")]
    return [
        type
        for before, type in zip([None, *found], found, strict=False)
        if (before, type) != ("stream", "stream")
    ]
