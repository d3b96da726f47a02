"""Which sandbox the cells run in, from the kernel's start to its end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from ..channel.protocol import Event
    from ..config import Settings
    from ..results import SessionInfo
    from ..sandbox import AsyncSandbox
    from .records import Predecessor, Records

log = logging.getLogger("agentcube_kernel.kernel")

EMBEDDED = "embedded"

LONG_CELL_SECONDS = 0.25
"""A cell that takes longer is written down, so that a kernel that takes over knows whose output was not shown."""


class Lifecycle:
    """Makes the kernel's sandbox, or finds the one of the kernel before it; replaces it; gives it up.

    Everything that imports much or waits for a network happens in here, after the kernel has begun to answer.
    """

    def __init__(self, *, connection_file: str, on_event: Callable[[Event], None]) -> None:
        self.connection_file = connection_file
        self.forward = on_event
        """Takes the events of a sandbox that belong to no running cell."""
        self.sandbox: AsyncSandbox | None = None
        self._on_step: Callable[[str], None] = lambda step: None
        self._opened_records: Records | None = None
        self._claiming: asyncio.Task[Predecessor | None] | None = None
        self._opening: asyncio.Task[AsyncSandbox] | None = None
        self._inherited: AsyncSandbox | None = None
        self._continued = False
        self._untouched = False  # the sandbox is new, and nothing is lost with it
        self._news: list[str] = []
        self._unseen: frozenset[str] = frozenset()
        self._told_trouble = False
        self._noted: object = None
        self._writing: asyncio.Task[None] | None = None
        self._ending = False

    @property
    def running(self) -> AsyncSandbox | None:
        """The sandbox, if cells and questions can be sent to it right now."""
        sandbox = self.sandbox
        if sandbox is None or sandbox.state.name not in ("READY", "BUSY"):
            return None
        return sandbox if self._opening is None else None

    @property
    def _records(self) -> Records:
        if self._opened_records is None:
            from .records import Records

            self._opened_records = Records(self.connection_file)
        return self._opened_records

    # Starting

    def claim_soon(self) -> None:
        """Look for a sandbox of the kernel before this one, in the background. No network is involved."""
        claim = asyncio.to_thread(lambda: self._records.claim())
        self._claiming = asyncio.get_running_loop().create_task(claim)

    def start_soon(self) -> None:
        """Start the sandbox in the background. An error is kept from sight: the first cell tries again."""
        self._begin()

    async def ready(self, *, on_step: Callable[[str], None]) -> AsyncSandbox:
        """Return the sandbox once it can run cells.

        Any number of callers share one attempt, and `on_step` is told what it does. Cancelling a call ends the attempt:
        a session that was being created is deleted again.

        Raises:
            AgentCubeError: there is no sandbox, for the reason given. The next call tries again.
        """
        self._on_step = on_step
        opening = self._opening or self._begin()
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if not opening.done():
                await self._give_up(opening)
            raise

    def _begin(self) -> asyncio.Task[AsyncSandbox]:
        if self._claiming is None:
            self.claim_soon()
        self._opening = opening = asyncio.get_running_loop().create_task(self._open())
        opening.add_done_callback(self._opened)
        return opening

    def _opened(self, opening: asyncio.Task[AsyncSandbox]) -> None:
        if self._opening is opening:
            self._opening = None
        if not opening.cancelled() and (error := opening.exception()) is not None:
            log.warning("the sandbox did not start: %s", error)

    async def _give_up(self, opening: asyncio.Task[AsyncSandbox]) -> None:
        opening.cancel()
        self._opening = None
        if self.sandbox is not None and self._untouched:
            sandbox, self.sandbox = self.sandbox, None
            abandoned = asyncio.ensure_future(self._dispose(sandbox))
            abandoned.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _dispose(self, sandbox: AsyncSandbox) -> None:
        session_id = sandbox.session_id
        await sandbox.stop()
        if session_id is not None:
            await asyncio.to_thread(self._records.forget, session_id)

    async def _open(self) -> AsyncSandbox:
        settings = await asyncio.to_thread(_load)
        predecessor = None if self._claiming is None else await self._claiming
        if predecessor is not None and not self._continued and self.sandbox is self._inherited:
            await self._continue(settings, predecessor)
            self._continued = True
        if self.sandbox is None:
            self.sandbox = self._make(settings)
            self._untouched = True
            self._news += await asyncio.to_thread(self._records.offers)
        sandbox = self.sandbox
        await sandbox.open()
        self._untouched = False
        await self.note_guest()
        return sandbox

    def _make(self, settings: Settings, predecessor: Predecessor | None = None) -> AsyncSandbox:
        from ..channel.relay import GuestRef
        from ..client.code_interpreter import AsyncCodeInterpreterClient
        from ..results import Ownership
        from ..sandbox import AsyncSandbox

        async def on_session(session: SessionInfo) -> None:
            await asyncio.to_thread(
                self._records.own,
                session,
                embedded=settings.uses_embedded_gateway,
                endpoint=_endpoint(settings),
            )

        def new_client(session_id: str | None = None) -> AsyncCodeInterpreterClient:
            return AsyncCodeInterpreterClient(settings=settings, session_id=session_id, on_session=on_session)

        guest = None
        if predecessor is None:
            client = new_client(settings.session_id)
        else:
            client = new_client(predecessor.session_id)
            guest = None if predecessor.guest is None else GuestRef.from_dict(predecessor.guest)
            if predecessor.owned:
                client.ownership = Ownership.OWNED
        return AsyncSandbox(
            client,
            new_client=new_client,
            guest=guest,
            on_background=self.forward,
            on_notice=lambda step: self._on_step(step),
        )

    # Going on where the last kernel ended

    async def _continue(self, settings: Settings, predecessor: Predecessor) -> None:
        """Use the sandbox of the kernel before this one, as far as it is still there."""
        from ..errors import GuestLostError, SessionNotFoundError

        if predecessor.endpoint != _endpoint(settings):
            self._news.append(
                "This kernel was pointed at another AgentCube meanwhile, and starts in a new sandbox."
            )
            return
        if self._inherited is None:
            self._inherited = self.sandbox = self._make(settings, predecessor)
        sandbox = self._inherited
        try:
            if predecessor.restarted:
                sandbox.on_background = None  # whatever the old interpreter has left to say
            await sandbox.open()
            if predecessor.restarted:
                await sandbox.restart()
            elif predecessor.guest is not None:
                self._unseen = frozenset(cell.id for cell in sandbox.recovered)
                if predecessor.running is not None:
                    self._unseen |= {predecessor.running}
                self._news.append(_took_over(running=bool(self._unseen)))
        except GuestLostError:
            if not predecessor.restarted:
                self._news.append(
                    "The kernel ended unexpectedly and was started again. The interpreter in its sandbox has ended "
                    "too: variables are lost, files are still there."
                )
        except SessionNotFoundError:
            self._news.append(
                f"The sandbox that this kernel used (session {predecessor.session_id}) is gone, with its variables and "
                "files. This is a new one."
            )
            self._inherited = self.sandbox = None
            await sandbox.close()
            if predecessor.session_id is not None:
                await asyncio.to_thread(self._records.forget, predecessor.session_id)
        finally:
            sandbox.on_background = self.forward

    @property
    def has_news(self) -> bool:
        """Whether the next cell has something to say about the sandbox that it runs in."""
        return bool(self._news) or (self._records.trouble is not None and not self._told_trouble)

    def take_news(self) -> list[str]:
        """What the next cell has to say, once."""
        news, self._news = self._news, []
        if self._records.trouble is not None and not self._told_trouble:
            self._told_trouble = True
            news.append(self._records.trouble)
        return news

    async def stream_unseen(self, sandbox: AsyncSandbox) -> AsyncGenerator[Event, None]:
        """Yield what the cell has put out that the kernel before this one was waiting for, until it has ended.

        The sandbox also still has the last output of cells that had ended then. That has been seen.
        """
        unseen, self._unseen = self._unseen, frozenset()
        async with aclosing(sandbox.stream_recovered()) as events:
            async for event in events:
                if event.cell_id in unseen:
                    yield event

    # While it is used

    @contextmanager
    def waiting_for(self, cell_id: str) -> Iterator[None]:
        """Have a kernel that takes over from this one know that this cell is being waited for."""
        noted = False

        def note() -> None:
            nonlocal noted
            noted = True
            self._write(self._records.wait_for, cell_id)

        timer = asyncio.get_running_loop().call_later(LONG_CELL_SECONDS, note)
        try:
            yield
        finally:
            timer.cancel()
            if noted:
                self._write(self._records.wait_for, None)

    def _write(self, action: Callable[[str | None], None], cell_id: str | None) -> None:
        """Write in the background, one after the other."""
        before, loop = self._writing, asyncio.get_running_loop()

        async def write() -> None:
            if before is not None:
                await before
            await asyncio.to_thread(action, cell_id)

        self._writing = loop.create_task(write())

    def use(self, sandbox: AsyncSandbox) -> AsyncSandbox | None:
        """Run cells in another sandbox from now on. Returns the one used until now, which goes on existing."""
        before, self.sandbox = self.sandbox, sandbox
        return before

    async def note_guest(self) -> None:
        """Write down which interpreter is in use, if that has changed, so that another kernel could take it over."""
        sandbox = self.sandbox
        if sandbox is None or (sandbox.session_id, sandbox.guest) == self._noted:
            return
        guest = sandbox.guest
        self._noted = (sandbox.session_id, guest)
        await asyncio.to_thread(
            self._records.use,
            session_id=sandbox.session_id,
            endpoint=_endpoint(sandbox.client.settings),
            guest=None if guest is None else guest.to_dict(),
        )

    # Ending

    async def end(self, *, restart: bool) -> None:
        """Leave the sandbox to the next kernel on this connection file, or delete it if it is ours.

        A session that could not be deleted in the time that the caller gives is left to the reaper. Idempotent.
        """
        if self._ending:
            return
        self._ending = True
        if self._claiming is not None:
            await asyncio.wait({self._claiming})
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        try:
            if not restart and self.sandbox is not None:
                await self._delete(self.sandbox)
        finally:
            # Not in a thread: a cancelled call must have done this, and the process ends right after.
            if restart:
                self._records.leave_for_next()
            else:
                self._records.leave()

    async def _delete(self, sandbox: AsyncSandbox) -> None:
        session_id = sandbox.session_id
        if session_id is not None and await asyncio.to_thread(self._records.is_kept, session_id):
            sandbox.detach()
        await sandbox.stop()
        if session_id is not None and sandbox.session_id is None:
            await asyncio.to_thread(self._records.forget, session_id)


def _load() -> Settings:
    """Import what the sandbox needs (it takes a while, and the kernel answers meanwhile) and read the settings."""
    from .. import sandbox  # noqa: F401
    from ..client import code_interpreter  # noqa: F401
    from ..config import Settings

    return Settings.load()


def _endpoint(settings: Settings) -> str:
    if settings.uses_embedded_gateway:
        return EMBEDDED
    return settings.picod_url or settings.router_url or settings.workload_manager_url or ""


def _took_over(*, running: bool) -> str:
    line = "The kernel ended unexpectedly and was started again; it goes on in the same sandbox, with its variables."
    return f"{line} The cell that was running then went on; this is its output since:" if running else line
