"""The events of one cell, as they come out of the channel."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ..errors import AgentCubeError
    from .protocol import Event

_MANY = 256


class CellStream:
    """An asynchronous iterator over a cell's events; its last event is `execute_reply` (or `comm_reply`).

    Leaving it early is no interrupt: the cell goes on, and its further events are background events.
    """

    def __init__(self, id: str, abandon: Callable[[CellStream], None]) -> None:
        self.id = id
        self._abandon = abandon
        self._events: deque[Event] = deque()
        self._error: AgentCubeError | None = None
        self._ended = False
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._ended = self.id != "" and event.type in ("execute_reply", "comm_reply")
        self._arrived.set()

    def finish(self) -> None:
        """End the stream after what has arrived."""
        self._ended = True
        self._arrived.set()

    def fail(self, error: AgentCubeError) -> None:
        """End the stream: what has arrived is still delivered, then `error` is raised."""
        self._error = error
        self._arrived.set()

    async def room(self) -> None:
        """Wait while the consumer is far behind, so that a flood stays in the sandbox and not in our memory."""
        while len(self._events) > _MANY:
            self._taken.clear()
            await self._taken.wait()

    async def events(self) -> AsyncGenerator[Event, None]:
        try:
            while True:
                while not self._events:
                    if self._error is not None:
                        raise self._error
                    if self._ended:
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                event = self._events.popleft()
                self._taken.set()
                yield event
                if self._ended and not self._events:
                    return
        finally:
            self._abandon(self)
            self._events.clear()
            self._taken.set()
