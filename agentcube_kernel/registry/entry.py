"""One sandbox under its name, with what the user asked for when it was made."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from ..channel.trust import Trust
from ..errors import AgentCubeError, SessionNotFoundError
from ..results import Ownership
from ..shared_attempt import SharedAttempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..client.code_interpreter import AsyncCodeInterpreterClient
    from ..sandbox import AsyncSandbox

log = logging.getLogger("agentcube_kernel.registry")

DEFAULT_NAME = "main"
"""What the first sandbox of a notebook is called, unless the user says otherwise."""

KEEP_ALIVE_INTERVAL = 20.0
"""AgentCube lets no session idle out in less than a minute."""


def _quietly(step: str) -> None:
    """Tell nobody about a step."""


class Entry:
    """A sandbox that is made when it is first needed.

    `make` yields the sandbox, not yet opened, with the entry's `session_id` if it has one. `go_on`, if given, is
    awaited once before the sandbox is first opened, and brings back what an earlier kernel has left in it.
    `session_id` is that of a session which is there already. `on_open` is awaited when it has been opened. Belongs to
    one event loop.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Entry], Awaitable[AsyncSandbox]],
        *,
        keep: bool = False,
        ttl: float | None = None,
        session_id: str | None = None,
        owned: bool = True,
        on_open: Callable[[Entry], Awaitable[None]],
        go_on: Callable[[Entry], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.keep = keep
        self.ttl = ttl
        self.created: float | None = None
        """When its session was made, in seconds since the epoch."""
        self.keep_alive_until: float | None = None
        self.sandbox: AsyncSandbox | None = None
        self._make = make
        self._go_on = go_on
        self._on_open = on_open
        self._trust = Trust.ON
        self._opening = SharedAttempt(self._open, name="agentcube-open-entry")
        self._on_step: Callable[[str], None] = _quietly
        self._session_id = session_id
        self._ownership = Ownership.OWNED if owned else Ownership.ATTACHED
        self._making = asyncio.Lock()
        self._untouched = False  # nothing is lost with the sandbox
        self._keeping_alive: asyncio.Task[None] | None = None
        self._last_used: float | None = None

    def __repr__(self) -> str:
        return f"<Entry {self.name}: {self.sandbox!r}>"

    @property
    def session_id(self) -> str | None:
        """The session's id, or None while there is none."""
        return self._session_id if self.sandbox is None else self.sandbox.session_id

    @property
    def ownership(self) -> Ownership:
        """Who is to delete the session."""
        return self._ownership if self.sandbox is None else self.sandbox.ownership

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
    def ready(self) -> AsyncSandbox | None:
        """The sandbox if cells and questions can be sent to it right now, else None."""
        sandbox = self.sandbox
        usable = sandbox is not None and sandbox.state.value in ("ready", "busy")
        return sandbox if usable and not self._opening.running else None

    @property
    def trust(self) -> Trust:
        """What its output may do in the user's front end."""
        return self._trust

    @trust.setter
    def trust(self, trust: Trust) -> None:
        self._trust = trust
        if self.sandbox is not None:
            self.sandbox.trust = trust

    # Opening

    def open_soon(self) -> None:
        """Begin to open it in the background. A failure is only logged: whoever needs the sandbox tries again."""
        self._opening.begin().add_done_callback(_log_failure)

    async def open(self, on_step: Callable[[str], None] = _quietly) -> AsyncSandbox:
        """The sandbox, ready to run cells; `on_step` is told what is being done.

        Any number of callers share one attempt. A cancelled call ends the attempt: a session that was being created
        for it is deleted again.

        Raises:
            AgentCubeError: there is no sandbox, for the reason given. The next call tries again.
        """
        self._on_step = on_step
        if self.ready is None:
            try:
                await self._opening.join()
            except asyncio.CancelledError:
                await self._give_up()
                raise
        self.used()
        assert self.sandbox is not None
        return self.sandbox

    async def _open(self) -> None:
        await self.make()
        if self._go_on is not None:
            await self._go_on(self)
            self._go_on = None
        sandbox = await self.make()
        await sandbox.open()
        self._untouched = False
        await self._on_open(self)

    async def make(self) -> AsyncSandbox:
        """The sandbox, made if there is none yet. Nothing is sent."""
        async with self._making:
            if self.sandbox is None:
                self.sandbox = await self._make(self)
                self.sandbox.trust = self._trust
                self.sandbox.on_notice = lambda step: self._on_step(step)
                self._untouched = True
            return self.sandbox

    def forget(self) -> None:
        """The session is gone: the next `make` yields a sandbox with a session of its own."""
        self.sandbox = self.created = self._last_used = None
        self.keep = False
        self._session_id, self._ownership = None, Ownership.OWNED

    async def _give_up(self) -> None:
        await self._opening.cancel()
        if self.sandbox is not None and self._untouched:
            sandbox, self.sandbox = self.sandbox, None
            with contextlib.suppress(AgentCubeError):
                await sandbox.stop()

    async def reach(self, on_step: Callable[[str], None] = _quietly) -> AsyncCodeInterpreterClient:
        """The client with its session, for files; no interpreter is started. Raises what `open` raises."""
        if self._go_on is not None or self._opening.running:
            await self.open(on_step)
        client = (await self.make()).client
        if client.session_id is None:
            on_step("creating a session")
        await client.open()
        self._untouched = False
        self.used()
        return client

    def used(self) -> None:
        """Note that something was sent to the sandbox."""
        self._last_used = time.time()
        self.created = self.created or self._last_used

    # Keeping alive

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
        await self._opening.cancel()
        task, self._keeping_alive = self._keeping_alive, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


def _log_failure(opening: asyncio.Task[None]) -> None:
    if not opening.cancelled() and (error := opening.exception()) is not None:
        log.warning("the sandbox did not start: %s", error)
