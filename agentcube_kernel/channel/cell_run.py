"""A running cell as a handle."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from ..errors import ClientStateError, GuestLostError
from .cell_result import result_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from .cell_result import CellResult
    from .event_stream import EventStream
    from .protocol import Event

logger = logging.getLogger("agentcube_kernel.channel")


class CellControl(Protocol):
    """What a cell can be told, by whoever runs it."""

    async def answer(self, cell_id: str, text: str | None) -> None: ...

    async def interrupt(self, cell_id: str | None) -> None: ...

    def leave(self, cell_id: str) -> None: ...


class CellRun:
    """A cell that was handed to a sandbox, from `AsyncSandbox.start_cell`.

    It needs no attention: the cell runs whether or not anybody reads its events. Events come once, to one reader;
    up to 16 MB of stream text are kept for a reader that comes late. All methods belong to the event loop of the
    sandbox.
    """

    def __init__(
        self, stream: EventStream, control: CellControl, *, silent: bool = False, started: bool = False
    ) -> None:
        self._stream = stream
        self._control = control
        self._silent = silent
        self._reply: Event | None = None
        self._count: int | None = None
        self._left = False
        self._begun = asyncio.Event()
        self._collected: list[Event] = []
        self._collecting = asyncio.Lock()
        self._started = started
        if started:
            self._begun.set()
        self._orders: set[asyncio.Task[None]] = set()
        self.on_change: Callable[[CellRun], None] = lambda run: None
        """Called when the cell has begun, and when it has ended or is left."""
        stream.watch, stream.on_end = self._watch, self._over

    def __repr__(self) -> str:
        count = "" if self._count is None else f" [{self._count}]"
        return f"<CellRun {self.id}{count}, {self._state}>"

    @property
    def id(self) -> str:
        """What the cell is called in the sandbox."""
        return self._stream.id

    @property
    def count(self) -> int | None:
        """The cell's execution count; None until it is known."""
        return self._count

    @property
    def started(self) -> bool:
        """Whether the cell is known to have begun: it no longer waits behind other cells."""
        return self._started

    @property
    def ended(self) -> bool:
        """Whether the cell has ended, or is lost."""
        return self._reply is not None or self._stream.error is not None

    @property
    def left(self) -> bool:
        """Whether `leave` was called before the cell's end."""
        return self._left

    async def begun(self) -> None:
        """Wait until the cell has begun, or has ended without that."""
        await self._begun.wait()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield the events, each once and in order; the last is `execute_reply`.

        Iterate inside `contextlib.aclosing`. Leaving early leaves the cell running, and what it puts out to the next
        reader.

        Raises:
            SessionNotFoundError, GuestLostError: the cell did not run, or was cut short; the message says what is lost.
            SandboxUnreachableError: no contact; the cell may be running on.
            ClientStateError: somebody else is reading, or the cell was left and its output went elsewhere.
        """
        async with aclosing(self._stream.events()) as events:
            async for event in events:
                yield event
        if self._reply is None:
            raise ClientStateError(
                "This cell was left; its further output and its result went to the background."
            )

    async def answer(self, text: str | None) -> None:
        """Answer the cell's `input_request`; None is an end of file. Delivered once."""
        await self._control.answer(self.id, text)

    async def interrupt(self) -> None:
        """Interrupt this cell and no other: KeyboardInterrupt if it runs, and if it waits it ends without having run.

        Returns when the sandbox has been told; the cell may take longer, or catch the interrupt. Does nothing when
        the cell has ended.
        """
        if not self.ended:
            await self._control.interrupt(self.id)

    def interrupt_soon(self) -> asyncio.Task[None]:
        """Begin to `interrupt`, and go on with that even if nobody waits for it."""
        order = asyncio.get_running_loop().create_task(self.interrupt(), name="agentcube-interrupt")
        self._orders.add(order)
        order.add_done_callback(self._ordered)
        return order

    def _ordered(self, order: asyncio.Task[None]) -> None:
        self._orders.discard(order)
        if not order.cancelled() and (error := order.exception()) is not None:
            logger.warning("an interrupt could not be delivered: %s", error)

    async def result(self) -> CellResult:
        """Wait for the end and return the result; an exception in the cell is a result with the status `error`.

        Its `events` are those that nobody has taken through `events`, and always the reply. A cancelled call leaves
        the cell running, and a later one goes on. Raises like `events`.
        """
        async with self._collecting:
            async with aclosing(self.events()) as events:
                async for event in events:
                    self._collected.append(event)
            if not self._collected:
                assert self._reply is not None
                self._collected.append(self._reply)
            return result_of(self._collected)

    def leave(self) -> None:
        """Stop listening. The cell runs on, and what it puts out from now on is background output. Idempotent."""
        if not self.ended and not self._left:
            self._left = True
            self._control.leave(self.id)
            self._stream.finish()

    @property
    def _state(self) -> str:
        if self._stream.error is not None:
            return "lost"
        if self._reply is not None:
            return "ended"
        if self._left:
            return "left"
        return "running" if self._started else "waiting"

    def _watch(self, event: Event) -> bool:
        if event.type in ("execute_input", "execute_reply"):
            self._count = event.content["execution_count"]
        if event.type == "execute_reply":
            self._reply = event
        if event.content.get("started") is not False and not self._started:
            self._started = True
            self._begun.set()
            self.on_change(self)
        return not (self._silent and event.type == "execute_input")

    def _over(self) -> None:
        if not self.ended and not self._left:
            self._stream.error = GuestLostError("The sandbox stopped talking in the middle of the cell.")
        self._begun.set()
        self.on_change(self)
