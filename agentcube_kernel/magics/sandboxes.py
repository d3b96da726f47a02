"""The sandboxes of one notebook, by name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from typing import TYPE_CHECKING, Any

from ..channel.trust import Trust
from ..config import Settings
from ..errors import AgentCubeError, SessionNotFoundError
from ..results import Ownership
from .usage import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..channel.protocol import Event
    from ..client.code_interpreter import AsyncCodeInterpreterClient
    from ..results import SessionInfo
    from ..sandbox import AsyncSandbox
    from .custody import Custody

log = logging.getLogger("agentcube_kernel.magics")

KEEP_ALIVE_INTERVAL = 20.0
"""AgentCube lets no session idle out in less than a minute."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,62}")


class Entry:
    """One sandbox under its name, with what the user asked for when it was made."""

    def __init__(self, name: str, *, keep: bool = False, ttl: float | None = None) -> None:
        self.name = name
        self.keep = keep
        self.ttl = ttl
        self.created: float | None = None
        self.keep_alive_until: float | None = None
        self.sandbox: AsyncSandbox | None = None
        self._keeping_alive: asyncio.Task[None] | None = None
        self._last_used: float | None = None

    def __repr__(self) -> str:
        return f"<Entry {self.name}: {self.sandbox!r}>"

    @property
    def session_id(self) -> str | None:
        """The session's id, or None while there is none."""
        return None if self.sandbox is None else self.sandbox.session_id

    @property
    def ownership(self) -> Ownership:
        """Whose session it is."""
        return Ownership.OWNED if self.sandbox is None else self.sandbox.ownership

    @property
    def last_used(self) -> float | None:
        """When something was last sent to the sandbox from here, in seconds since the epoch."""
        of_cells = None if self.sandbox is None else self.sandbox.last_used
        return max((moment for moment in (self._last_used, of_cells) if moment is not None), default=None)

    @property
    def cells(self) -> int:
        """The execution count of the last cell that was run from here."""
        return 0 if self.sandbox is None else self.sandbox.execution_count

    @property
    def state(self) -> str:
        """The sandbox's state in one word."""
        return "new" if self.sandbox is None else self.sandbox.state.value

    @property
    def trust(self) -> Trust:
        """What its output may do in the user's front end."""
        return Trust.ON if self.sandbox is None else self.sandbox.trust

    async def set_trust(self, trust: Trust) -> None:
        """Set `trust`, for output from now on."""
        assert self.sandbox is not None
        self.sandbox.trust = trust

    async def open(self, on_step: Callable[[str], None]) -> AsyncSandbox:
        """The sandbox, ready to run cells. Raises what `AsyncSandbox.open` raises."""
        assert self.sandbox is not None
        self.sandbox.on_notice = on_step
        await self.sandbox.open()
        self.used()
        return self.sandbox

    async def reach(self, on_step: Callable[[str], None]) -> AsyncCodeInterpreterClient:
        """The client with its session, for files; no interpreter is started."""
        assert self.sandbox is not None
        client = self.sandbox.client
        if client.session_id is None:
            on_step("creating a session")
        await client.open()
        self.used()
        return client

    def used(self) -> None:
        """Note that something was sent to the sandbox."""
        self._last_used = time.time()
        self.created = self.created or self._last_used

    def keep_alive(self, seconds: float) -> None:
        """Keep the idle session from being collected for that long, 0 for no longer. Replaces an earlier wish."""
        if self._keeping_alive is not None:
            self._keeping_alive.cancel()
            self._keeping_alive = None
        self.keep_alive_until = time.time() + seconds if seconds else None
        if seconds:
            self._keeping_alive = asyncio.get_running_loop().create_task(self._keep_alive(seconds))

    async def _keep_alive(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await asyncio.sleep(KEEP_ALIVE_INTERVAL)
                    try:
                        if self.sandbox is not None and self.session_id is not None:
                            await self.sandbox.client.data_plane.health()
                    except SessionNotFoundError:
                        break
                    except AgentCubeError as error:
                        log.debug("keeping session %s alive: %s", self.session_id, error)
        self.keep_alive_until = None

    async def end_tasks(self) -> None:
        """End what runs on behalf of this entry."""
        task, self._keeping_alive = self._keeping_alive, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


class Sandboxes:
    """Sandboxes by name, and which of them is the current one. Belongs to one event loop."""

    def __init__(self, custody: Custody, *, on_background: Callable[[str, Event], None]) -> None:
        self.custody = custody
        self._on_background = on_background
        self._entries: dict[str, Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.current_name: str | None = None

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def settings(self) -> Settings:
        """The settings of the environment. Raises ConfigurationError for bad ones."""
        return Settings.load()

    @property
    def names(self) -> list[str]:
        """All names, in the order in which they were given."""
        return list(self._entries)

    @property
    def current(self) -> Entry | None:
        """The entry that plain commands are about."""
        return None if self.current_name is None else self._entries.get(self.current_name)

    def find(self, name: str | None) -> Entry:
        """The entry of that name, or of that session id; the current one for None.

        Raises:
            UsageError: there is no such entry.
        """
        if name is None:
            if self.current is None:
                raise UsageError("There is no sandbox yet. Make one with `%sandbox new`.")
            return self.current
        for entry in self:
            if name in (entry.name, entry.session_id):
                return entry
        if not self._entries:
            raise UsageError(
                f"There is no sandbox {name!r}; there is none at all. Make one with `%sandbox new`."
            )
        raise UsageError(
            f"There is no sandbox {name!r}; there are: {', '.join(self.names)}.{did_you_mean(name, self.names)}"
        )

    def check_new_name(self, name: str | None) -> str:
        """A name for another sandbox, made up when None.

        Raises:
            UsageError: it is taken, or cannot be a name.
        """
        if name is None:
            number = 1
            while f"s{number}" in self._entries:
                number += 1
            return f"s{number}"
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a name: use letters, digits, '_', '.' and '-', and begin with a letter or digit."
            )
        if name in self._entries:
            raise UsageError(
                f"There is a sandbox {name!r} already. Use it with `%sandbox use {name}`, or take another name."
            )
        return name

    def add_new(
        self,
        name: str,
        *,
        keep: bool = False,
        ttl: float | None = None,
        interpreter: str | None = None,
        namespace: str | None = None,
        env: Mapping[str, str] | None = None,
        session_id: str | None = None,
    ) -> Entry:
        """Put a new entry under a name. Nothing is sent yet, and the current one stays the current one.

        Raises:
            ConfigurationError: a setting is bad.
        """
        entry = Entry(name, keep=keep, ttl=ttl)
        self._make(entry, interpreter=interpreter, namespace=namespace, env=env, session_id=session_id)
        self._entries[name] = entry
        return entry

    async def use(self, entry: Entry) -> None:
        """Make an entry the current one."""
        self.current_name = entry.name

    async def remove(self, entry: Entry) -> None:
        """Take an entry out; if it was the current one, the one before it becomes that."""
        await entry.end_tasks()
        self._entries.pop(entry.name, None)
        if self.current_name == entry.name:
            last = next(reversed(self._entries.values()), None)
            self.current_name = None
            if last is not None:
                await self.use(last)

    async def discard(self, entry: Entry) -> None:
        """Take back an entry that could not be made; a session that was made for it is deleted."""
        await self.remove(entry)
        sandbox, session_id = entry.sandbox, entry.session_id
        if sandbox is None:
            return
        stopping = asyncio.get_running_loop().create_task(self._discard(sandbox, session_id))
        self._tasks.add(stopping)
        stopping.add_done_callback(self._tasks.discard)
        await asyncio.shield(stopping)

    async def _discard(self, sandbox: AsyncSandbox, session_id: str | None) -> None:
        owned = sandbox.ownership is Ownership.OWNED
        with contextlib.suppress(AgentCubeError):
            await sandbox.stop()
            if owned and session_id is not None:
                await self.custody.forget(session_id)

    def _make(
        self,
        entry: Entry,
        *,
        interpreter: str | None = None,
        namespace: str | None = None,
        env: Mapping[str, str] | None = None,
        session_id: str | None = None,
    ) -> None:
        from ..client.code_interpreter import AsyncCodeInterpreterClient
        from ..sandbox import AsyncSandbox

        settings = self.settings.override(interpreter=interpreter, namespace=namespace)

        async def on_session(session: SessionInfo) -> None:
            entry.used()
            await self.custody.take(
                session, name=entry.name, keep=entry.keep, embedded=settings.uses_embedded_gateway
            )

        def new_client() -> AsyncCodeInterpreterClient:
            return AsyncCodeInterpreterClient(settings=settings, ttl=entry.ttl, on_session=on_session)

        attached: dict[str, Any] = {"settings": settings, "session_id": session_id}
        entry.sandbox = AsyncSandbox(
            new_client() if session_id is None else AsyncCodeInterpreterClient(**attached),
            new_client=new_client if session_id is None else None,
            env=env,
            on_background=lambda event: self._on_background(entry.name, event),
        )
