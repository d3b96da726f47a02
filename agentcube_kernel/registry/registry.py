"""The sandboxes of one notebook, by name."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError, SandboxNameError
from ..results import Ownership
from ..sessions.creation import SessionNotes
from ..text import did_you_mean
from .entry import DEFAULT_NAME, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..channel.protocol import Event
    from ..channel.relay import GuestRef
    from ..client.code_interpreter import AsyncCodeInterpreterClient
    from ..config import Settings
    from ..results import SessionInfo
    from ..sandbox import AsyncSandbox
    from ..sessions.keeper import Keeper
    from .handover import Handover

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,62}")


class Registry:
    """Sandboxes by name, and which of them is the current one. Belongs to one event loop.

    Args:
        keeper: notes the sessions that are made, and sees to their end.
        notebook: the notebook's path, for sessions that outlive it.
        on_background: gets events that belong to no running cell, with the name of their sandbox.
        handover: what an earlier kernel has left, and what the next one is to find; None where there is no next one.
    """

    def __init__(
        self,
        keeper: Keeper,
        *,
        on_background: Callable[[str, Event], None],
        notebook: str | None = None,
        handover: Handover | None = None,
    ) -> None:
        self.keeper = keeper
        self.notebook = notebook
        self.handover = handover
        self._on_background = on_background
        self._entries: dict[str, Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._restoring = asyncio.Lock()
        self._restored = handover is None
        self._current: str | None = None

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def settings(self) -> Settings:
        """The settings of the environment. Raises ConfigurationError for bad ones."""
        from ..config import Settings

        return Settings.load()

    @property
    def names(self) -> list[str]:
        """All names, in the order in which they were given."""
        return list(self._entries)

    # The current one

    @property
    def current(self) -> Entry | None:
        """The entry that plain commands are about."""
        return None if self._current is None else self._entries.get(self._current)

    @property
    def ready(self) -> AsyncSandbox | None:
        """The current sandbox if cells and questions can be sent to it right now, else None."""
        return None if self.current is None else self.current.ready

    async def default(self) -> Entry:
        """The current entry; one of the name `main` is added when there is none."""
        await self.restore()
        if self.current is None:
            self._current = self.add_new(DEFAULT_NAME if DEFAULT_NAME not in self._entries else None).name
        assert self.current is not None
        return self.current

    async def use(self, entry: Entry) -> None:
        """Make an entry the current one."""
        self._current = entry.name
        await self.note_current()

    async def note_current(self) -> None:
        """Have the next kernel find what is the current one now, if that has changed."""
        if self.handover is not None:
            await self.handover.note(self.current)

    async def restore(self) -> None:
        """Take over what an earlier kernel on the same connection file has left, once."""
        if self._restored or self.handover is None:
            return
        async with self._restoring:
            if not self._restored:
                await self.handover.restore(self)
                self._restored = True

    # Names

    def find(self, name: str | None) -> Entry:
        """The entry of that name, or of that session id; the current one for None.

        Raises:
            SandboxNameError: there is no such entry.
        """
        if name is None:
            if self.current is None:
                raise SandboxNameError("There is no sandbox yet. Make one with `%sandbox new`.")
            return self.current
        for entry in self:
            if name in (entry.name, entry.session_id):
                return entry
        if not self._entries:
            raise SandboxNameError(
                f"There is no sandbox {name!r}; there is none at all. Make one with `%sandbox new`."
            )
        raise SandboxNameError(
            f"There is no sandbox {name!r}; there are: {', '.join(self.names)}.{did_you_mean(name, self.names)}"
        )

    def check_new_name(self, name: str | None) -> str:
        """A name for another sandbox, made up when None.

        Raises:
            SandboxNameError: it is taken, or cannot be a name.
        """
        if name is None:
            number = 1
            while f"s{number}" in self._entries:
                number += 1
            return f"s{number}"
        if not _NAME.fullmatch(name):
            raise SandboxNameError(
                f"{name!r} cannot be a name: use letters, digits, '_', '.' and '-', and begin with a letter or digit."
            )
        if name in self._entries:
            raise SandboxNameError(
                f"There is a sandbox {name!r} already. Use it with `%sandbox use {name}`, or take another name."
            )
        return name

    # Entries

    def add_new(
        self,
        name: str | None,
        *,
        keep: bool = False,
        ttl: float | None = None,
        interpreter: str | None = None,
        namespace: str | None = None,
        env: Mapping[str, str] | None = None,
        session_id: str | None = None,
        owned: bool = False,
        guest: GuestRef | None = None,
        **options: Any,
    ) -> Entry:
        """Put a new entry under a name. Nothing is sent yet, and the current one stays the current one.

        With `session_id` it attaches to that session, and with `owned` that session is ours to delete. `guest` is the
        interpreter in it to take over. `options` are those of `Entry`.

        Raises:
            SandboxNameError: the name is taken, or cannot be a name.
        """

        async def make(entry: Entry) -> AsyncSandbox:
            settings = await asyncio.to_thread(_load)
            settings = settings.override(interpreter=interpreter, namespace=namespace)
            return self._make(
                entry, settings, guest=guest if entry.session_id == session_id else None, env=env
            )

        owned = owned or session_id is None
        entry = Entry(
            self.check_new_name(name),
            make,
            keep=keep,
            ttl=ttl,
            session_id=session_id,
            owned=owned,
            on_open=self._opened,
            **options,
        )
        self._entries[entry.name] = entry
        return entry

    async def _opened(self, entry: Entry) -> None:
        if entry is self.current:
            await self.note_current()

    async def rename(self, entry: Entry, name: str) -> None:
        """Give an entry another name, here and for whoever finds its session later.

        Raises:
            SandboxNameError: the name is taken, or cannot be a name.
        """
        current = entry is self.current
        entry.name = self.check_new_name(name)
        # In its place: the order of the names is the order in which sandboxes were made.
        self._entries = {e.name: e for e in self._entries.values()}
        if current:
            self._current = entry.name
        if entry.session_id is not None and entry.ownership is Ownership.OWNED:
            await self.keeper.note(entry.session_id, name=entry.name)

    async def remove(self, entry: Entry) -> None:
        """Take an entry out; if it was the current one, the one added last becomes that."""
        await entry.end_tasks()
        self._entries.pop(entry.name, None)
        if self._current == entry.name:
            self._current = next(reversed(self._entries), None)
            await self.note_current()

    async def discard(self, entry: Entry) -> None:
        """Take back an entry that could not be made; a session that was made for it is deleted."""
        await self.remove(entry)
        if entry.sandbox is not None:
            stopping = asyncio.get_running_loop().create_task(_stop(entry.sandbox))
            self._tasks.add(stopping)
            stopping.add_done_callback(self._tasks.discard)
            await asyncio.shield(stopping)

    async def end(self, *, restart: bool) -> None:
        """The notebook ends: delete what is ours and not to be kept. With `restart` the next kernel finds it all.

        What is not deleted in the time that the caller gives is left to the reaper. Idempotent.
        """
        try:
            ending = [self._end(entry, restart=restart) for entry in self]
            for problem in await asyncio.gather(*ending, return_exceptions=True):
                if isinstance(problem, Exception) and not isinstance(problem, AgentCubeError):
                    raise problem
        finally:
            # Not in a thread: a cancelled call must have done this, and the process ends right after.
            if self.handover is not None:
                self.handover.leave(restart=restart)
            self.keeper.close(takeover=restart)

    async def _end(self, entry: Entry, *, restart: bool) -> None:
        await entry.end_tasks()
        if entry.sandbox is None:
            return
        if restart or entry.keep or entry.ownership is Ownership.ATTACHED:
            await entry.sandbox.close()
        else:
            await entry.sandbox.stop()

    def _make(
        self,
        entry: Entry,
        settings: Settings,
        *,
        guest: GuestRef | None,
        env: Mapping[str, str] | None,
    ) -> AsyncSandbox:
        from ..client.code_interpreter import AsyncCodeInterpreterClient
        from ..sandbox import AsyncSandbox

        async def on_session(session: SessionInfo) -> None:
            entry.used()
            if self.handover is not None and entry is self.current:
                await self.handover.note_session(session.session_id, settings)

        def new_client(session_id: str | None = None) -> AsyncCodeInterpreterClient:
            return AsyncCodeInterpreterClient(
                settings=settings,
                session_id=session_id,
                ttl=entry.ttl,
                on_session=on_session,
                keeper=self.keeper,
                notes=SessionNotes(
                    name=entry.name,
                    keep=entry.keep,
                    connection_file=self.keeper.connection_file,
                    notebook=self.notebook,
                ),
            )

        # Only a kernel's own sandbox is attached by a setting: in a notebook of another kernel `%sandbox attach` is.
        given = settings.session_id if self.handover is not None else None
        client = new_client(entry.session_id or given)
        if entry.session_id is not None:
            client.ownership = entry.ownership
        return AsyncSandbox(
            client,
            new_client=new_client,
            guest=guest,
            env=env,
            on_background=lambda event: self._on_background(entry.name, event),
        )


def _load() -> Settings:
    """Import what a sandbox needs (it takes a while, and the kernel answers meanwhile) and read the settings."""
    from .. import sandbox  # noqa: F401
    from ..client import code_interpreter  # noqa: F401
    from ..config import Settings

    return Settings.load()


async def _stop(sandbox: AsyncSandbox) -> None:
    with contextlib.suppress(AgentCubeError):
        await sandbox.stop()
