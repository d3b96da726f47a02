"""What a guest that was taken over had not delivered to the client before this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .connection import number
from .event_stream import EventStream
from .events import event_type
from .shapes import identifier

if TYPE_CHECKING:
    from .guest_start import Hello
    from .protocol import Event


class Recovery:
    """Collects the events of cells from before the takeover in one stream.

    The stream ends when those cells have ended and all that the guest had kept has come.
    """

    def __init__(self, hello: Hello, acknowledged: int) -> None:
        reply = hello.answer.reply or {}
        listed = reply.get("unfinished", [])
        self.unfinished: list[str] = (
            [identifier(name) for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        )
        """The cells that had not ended."""
        self.stream = EventStream("")
        self._last = number(hello, "last")
        self._running = set(self.unfinished)
        if not self.unfinished and self._last <= acknowledged:
            self.stream.finish()

    @property
    def over(self) -> bool:
        """Whether nothing more is to be expected."""
        return self.stream.over

    def take(self, event: Event) -> bool:
        """Take an event of a cell that this client has not sent itself; False when the recovery is over."""
        if self.over:
            return False
        self.stream.put(event)
        row = event_type(event.type)
        if row is not None and row.ends:
            self._running.discard(event.cell_id)
        return True

    def check(self, acknowledged: int) -> None:
        """End the stream if all has come."""
        if not self.over and not self._running and acknowledged >= self._last:
            self.stream.finish()
