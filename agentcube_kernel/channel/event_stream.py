"""The events of one cell or comm message, on their way from the channel to whoever reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ..errors import ClientStateError
from .events import Form, event_type
from .protocol import notice_event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ..errors import AgentCubeError
    from .protocol import Event

_FAR_BEHIND = 256
"""Events that a reader may be behind before the sandbox has to wait."""

_KEPT = 16 * 1024 * 1024
"""Characters of stream text that are kept for a stream which nobody reads."""

_MOST = 64 * 1024 * 1024
"""Characters of anything, past which the sandbox has to wait even if nobody reads."""


class EventStream:
    """A queue of events with one reader at a time, which may leave and come back.

    While it is read, a flood waits in the sandbox. While nobody reads, the stream holds up nobody else: it keeps what
    comes, and past 16 MB of stream text the oldest text gives way to a line that says how much is missing.

    `watch` sees every event as it arrives and says whether readers get it.
    """

    def __init__(self, id: str, *, watch: Callable[[Event], bool] = lambda event: True) -> None:
        self.id = id
        self.watch = watch
        self.error: AgentCubeError | None = None
        self.on_end: Callable[[], None] = lambda: None
        self._events: deque[Event] = deque()
        self._size = self._text = 0
        self._finished = self._reading = False
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether nothing more will arrive."""
        return self._finished or self.error is not None

    def put(self, event: Event) -> None:
        """Add an event."""
        if not self.watch(event):
            return
        self._events.append(event)
        self._count(event, 1)
        if not self._reading and self._text > _KEPT:
            self._drop_oldest_text()
        self._arrived.set()

    def finish(self) -> None:
        """End the stream after what has arrived."""
        self._finished = True
        self._arrived.set()
        self.on_end()

    def fail(self, error: AgentCubeError) -> None:
        """End the stream: what has arrived is still delivered, then `error` is raised."""
        self.error = error
        self._arrived.set()
        self.on_end()

    async def room(self) -> None:
        """Wait while the reader is far behind, so that a flood stays in the sandbox and not in our memory."""
        while (self._reading and len(self._events) > _FAR_BEHIND) or self._size > _MOST:
            if self.over:
                return
            self._taken.clear()
            await self._taken.wait()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield the events, each once. Leaving early leaves the rest for the next reader.

        Raises:
            ClientStateError: somebody else is reading.
            AgentCubeError: what `fail` was given.
        """
        if self._reading:
            raise ClientStateError(
                "The events of this cell are being read already; each comes once, to one reader."
            )
        self._reading = True
        try:
            while True:
                while not self._events:
                    if self.error is not None:
                        raise self.error
                    if self._finished:
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                event = self._events.popleft()
                self._count(event, -1)
                self._taken.set()
                yield event
        finally:
            self._reading = False
            self._taken.set()

    def _count(self, event: Event, sign: int) -> None:
        size = _size(event)
        self._size += sign * size
        if _is_text(event):
            self._text += sign * size

    def _drop_oldest_text(self) -> None:
        """Replace the older half of the stream text by one line."""
        kept: list[Event] = []
        lost, place = 0, None
        while self._events and self._text > _KEPT // 2:
            event = self._events.popleft()
            if _is_text(event):
                self._count(event, -1)
                lost += len(event.content["text"])
                place = len(kept) if place is None else place
            else:
                kept.append(event)
        notice = notice_event(
            self.id, f"\n[{lost:,} characters of output were dropped here: nobody read them]\n"
        )
        kept.insert(place or 0, notice)
        self._count(notice, 1)
        self._events.extendleft(reversed(kept))


def _is_text(event: Event) -> bool:
    row = event_type(event.type)
    return row is not None and row.form is Form.TEXT


def _size(event: Event) -> int:
    content = event.content
    texts = [content.get("text", ""), *content.get("data", {}).values()]
    return 200 + sum(len(text) for text in (*texts, *event.buffers) if isinstance(text, str | bytes))
