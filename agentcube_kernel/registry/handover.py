"""From one kernel to the next on the same connection file: sandboxes, the interpreter, the output not yet shown."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from ..errors import GuestLostError, SessionNotFoundError
from ..sessions.kept_sessions import offers
from ..sessions.process_identity import ProcessIdentity
from ..sessions.succession import Succession
from .entry import DEFAULT_NAME

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from ..channel.protocol import Event
    from ..channel.relay import GuestRef
    from ..config import Settings
    from ..sandbox import AsyncSandbox
    from ..sessions.keeper import Keeper
    from ..sessions.ledger import SessionRecord
    from ..sessions.succession import Predecessor
    from .entry import Entry
    from .registry import Registry

EMBEDDED = "embedded"

LONG_CELL_SECONDS = 0.25
"""A cell that takes longer is written down, so that a kernel that takes over knows whose output was not shown."""


class Handover:
    """What this kernel has from the one before it, and what it writes down for the one after it.

    Nothing here raises because of the ledger, and no network is involved but in `_go_on`, when a sandbox is opened.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._succession = Succession(keeper)
        self._claiming: asyncio.Task[Predecessor | None] | None = None
        self._predecessor: Predecessor | None = None
        self._news: list[str] = []
        self._unseen: frozenset[str] = frozenset()
        self._noted: tuple[str | None, GuestRef | None] = (None, None)
        self._told_trouble: str | None = None
        self._writing: asyncio.Task[None] | None = None

    # From the kernel before this one

    def claim_soon(self) -> None:
        """Look for what the kernel before this one has left, in the background, before anybody cleans it up."""
        if self._claiming is None:
            claim = asyncio.to_thread(self._succession.claim)
            self._claiming = asyncio.get_running_loop().create_task(claim)

    async def restore(self, registry: Registry) -> None:
        """Put the sandboxes of the kernel before this one into the registry, under their names."""
        self.claim_soon()
        assert self._claiming is not None
        self._predecessor = predecessor = await asyncio.shield(self._claiming)
        for record in await self._inherited():
            ours = predecessor is not None and record.session_id == predecessor.session_id
            entry = registry.add_new(
                _free_name(registry, record.name),
                session_id=record.session_id,
                owned=True,
                keep=record.keep,
                guest=self._guest() if ours else None,
                go_on=self._go_on if ours else None,
            )
            entry.created = record.created
            if ours:
                await registry.use(entry)
        if predecessor is None:
            self._news += await asyncio.to_thread(offers, self._keeper.ledger)
        elif registry.current is None and (predecessor.session_id or predecessor.guest):
            # Not ours to delete: somebody gave us the session's id, or there is one PicoD and nothing else.
            entry = registry.add_new(
                _free_name(registry, None),
                session_id=predecessor.session_id,
                guest=self._guest(),
                go_on=self._go_on,
            )
            await registry.use(entry)

    async def _inherited(self) -> list[SessionRecord]:
        file, me = self._keeper.connection_file, ProcessIdentity.current()
        known = [] if file is None else await self._keeper.known()
        return [record for record in known if record.connection_file == file and record.owner == me]

    def _guest(self) -> GuestRef | None:
        from ..channel.relay import GuestRef

        assert self._predecessor is not None
        guest = self._predecessor.guest
        return None if guest is None else GuestRef.from_dict(guest)

    async def _go_on(self, entry: Entry) -> None:
        """Use the sandbox of the kernel before this one, as far as it is still there."""
        predecessor = self._predecessor
        assert predecessor is not None
        sandbox = await entry.make()
        if predecessor.endpoint != endpoint_of(sandbox.client.settings):
            self._news.append(
                "This kernel was pointed at another AgentCube meanwhile, and starts in a new sandbox."
            )
            await self._start_anew(entry, sandbox)
            return
        forward = sandbox.on_background
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
            if predecessor.session_id is not None:
                await self._keeper.forget(predecessor.session_id)
            await self._start_anew(entry, sandbox)
        finally:
            sandbox.on_background = forward

    async def _start_anew(self, entry: Entry, sandbox: AsyncSandbox) -> None:
        entry.forget()
        await sandbox.close()

    @property
    def has_news(self) -> bool:
        """True when the next cell has something to say about the sandbox that it runs in."""
        return bool(self._news) or self._trouble is not None

    def take_news(self) -> list[str]:
        """What the next cell has to say, once."""
        news, self._news = self._news, []
        if (trouble := self._trouble) is not None:
            self._told_trouble = trouble
            news.append(trouble)
        return news

    @property
    def _trouble(self) -> str | None:
        trouble = self._keeper.trouble
        return trouble if trouble != self._told_trouble else None

    async def stream_unseen(self, sandbox: AsyncSandbox) -> AsyncGenerator[Event, None]:
        """Yield what the cell has put out that the kernel before this one was waiting for, until it has ended.

        The sandbox also still has the last output of cells that had ended then. That has been seen.
        """
        unseen, self._unseen = self._unseen, frozenset()
        async with aclosing(sandbox.stream_recovered()) as events:
            async for event in events:
                if event.cell_id in unseen:
                    yield event

    # For the kernel after this one

    async def note(self, current: Entry | None) -> None:
        """Write down which interpreter is in use, if that has changed, so that another kernel could take it over."""
        sandbox = None if current is None else current.sandbox
        session_id = None if current is None else current.session_id
        guest = None if sandbox is None else sandbox.guest
        if (session_id, guest) == self._noted or (sandbox is None and session_id is not None):
            return  # nothing new; or it is still as the kernel before this one has noted it
        self._noted = (session_id, guest)
        if sandbox is None or (session_id is None and guest is None):
            await asyncio.to_thread(self._succession.use_nothing)
            return
        await asyncio.to_thread(
            self._succession.use,
            session_id=session_id,
            endpoint=endpoint_of(sandbox.client.settings),
            guest=None if guest is None else guest.to_dict(),
        )

    async def note_session(self, session_id: str, settings: Settings) -> None:
        """Write down a session that has just been created, in which no interpreter runs yet."""
        self._noted = (session_id, None)
        await asyncio.to_thread(
            self._succession.use, session_id=session_id, endpoint=endpoint_of(settings), guest=None
        )

    @contextmanager
    def waiting_for(self, cell_id: str) -> Iterator[None]:
        """Have a kernel that takes over from this one know that this cell is being waited for."""
        noted = False

        def note() -> None:
            nonlocal noted
            noted = True
            self._write(self._succession.wait_for, cell_id)

        timer = asyncio.get_running_loop().call_later(LONG_CELL_SECONDS, note)
        try:
            yield
        finally:
            timer.cancel()
            if noted:
                self._write(self._succession.wait_for, None)

    def _write(self, action: Callable[[str | None], None], cell_id: str | None) -> None:
        """Write in the background, one after the other."""
        before, loop = self._writing, asyncio.get_running_loop()

        async def write() -> None:
            if before is not None:
                await before
            await asyncio.to_thread(action, cell_id)

        self._writing = loop.create_task(write())

    def leave(self, *, restart: bool) -> None:
        """This kernel ends. Blocks for some milliseconds."""
        if restart:
            self._succession.leave_for_next()
        else:
            self._succession.leave()


def endpoint_of(settings: Settings) -> str:
    """Which AgentCube the settings lead to, to tell whether a kernel was pointed at another one."""
    if settings.uses_embedded_gateway:
        return EMBEDDED
    return settings.picod_url or settings.router_url or settings.workload_manager_url or ""


def _free_name(registry: Registry, name: str | None) -> str | None:
    wanted = name or DEFAULT_NAME
    return None if wanted in registry.names else wanted


def _took_over(*, running: bool) -> str:
    line = "The kernel ended unexpectedly and was started again; it goes on in the same sandbox, with its variables."
    return f"{line} The cell that was running then went on; this is its output since:" if running else line
