"""A stateful sandbox: an AgentCube session with an interpreter in it that keeps its variables.

The one object that kernel, magics, pool and integrations share.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
import uuid
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from .channel.cell_result import CellResult, result_of
from .channel.cell_run import CellRun
from .channel.cell_wait import check_limits, wait_for_cell
from .channel.channel import Channel, cell_task, comm_task
from .channel.relay import FOLDER, GuestRef
from .channel.shell_cells import shell_command, start_shell_cell
from .channel.trust import Trust
from .config import Settings
from .errors import (
    AgentCubeError,
    ArgumentTypeError,
    ClientStateError,
    GuestLostError,
    GuestStartError,
    SessionNotFoundError,
)
from .results import Ownership
from .shared_attempt import SharedAttempt
from .text import well_formed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from .channel.protocol import Event
    from .channel.recovery import Recovery
    from .client.code_interpreter import AsyncCodeInterpreterClient
    from .timings import Timings


class SandboxState(Enum):
    """Where a sandbox is in its life."""

    NEW = "new"
    OPENING = "opening"
    READY = "ready"
    BUSY = "busy"
    LOST = "lost"
    """The session is gone, or the interpreter is; see `AsyncSandbox` for what the next cell does."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredCell:
    """A cell of an earlier process that had not ended when this one took its guest over."""

    id: str


class AsyncSandbox:
    """A session with a stateful IPython in it.

    ::

        async with AsyncSandbox() as sandbox:
            await sandbox.run_cell("x = 20")
            result = await sandbox.run_cell("x + 1")
            assert result.text == "21"

    Constructing does no I/O. `open` creates the session (or attaches to the client's) and starts the interpreter, or
    finds the one that other sandboxes on the same session use: they share variables, and each gets the output of its
    own cells. Cells run one after the other.

    What happens to state is never hidden. A call that finds the interpreter gone raises `GuestLostError`, and the next
    one starts a fresh interpreter; one that finds the session gone raises `SessionNotFoundError`, and the next one
    creates a new session if `new_client` can make a client for it, else raises the same again.

    Args:
        client: whose session to use; by default a new one with the settings of the environment. It is closed or
            stopped together with the sandbox.
        client_id: names this user of the guest; by default random.
        new_client: makes the client for another session when an owned one is gone.
        guest: take this guest over, as the client it names; see `recovered`.
        env: environment variables of the interpreter, if this sandbox is the one that starts it.
        timings: how long each thing is waited for; by default as the client's settings say.
        on_background: gets events that belong to no running cell: output of threads after their cell's end.
        on_notice: gets lines about a start that takes long.

    All methods belong to the event loop that first uses them.
    """

    def __init__(
        self,
        client: AsyncCodeInterpreterClient | None = None,
        *,
        client_id: str | None = None,
        new_client: Callable[[], AsyncCodeInterpreterClient] | None = None,
        guest: GuestRef | None = None,
        env: Mapping[str, str] | None = None,
        timings: Timings | None = None,
        on_background: Callable[[Event], None] | None = None,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        if client is None:
            from .client.code_interpreter import AsyncCodeInterpreterClient

            settings = Settings.load().override(timings=timings)
            new_client = new_client or (lambda: AsyncCodeInterpreterClient(settings=settings))
            client = new_client()
        self.client = client
        self.client_id = client_id or uuid.uuid4().hex
        self.timings = timings or client.settings.timings
        self.recovered: list[RecoveredCell] = []
        """Cells that were running or had output waiting in the guest that was taken over."""
        self.execution_count = 0
        """Of the latest cell that was counted."""
        self.last_used: float | None = None
        """When the interpreter was last asked for something, in seconds since the epoch."""
        self.trust = Trust.ON
        """What its output may do in a front end, from the next output on."""
        self._new_client = new_client
        self._take_over = guest
        self._env = dict(env or {})
        self.on_background = on_background
        self.on_notice = on_notice
        self._channel: Channel | None = None
        self._opening = SharedAttempt(self._open, name="agentcube-open")
        self._recovery: Recovery | None = None
        self._runs: dict[str, CellRun] = {}
        self._lost: Exception | None = None
        self._untold: Exception | None = None  # a loss that nobody was waiting to hear of
        self._calls = 0
        self._fresh_guest_needed = True
        self._closed = False

    def __repr__(self) -> str:
        return f"<AsyncSandbox {self.session_id or 'without a session'}, {self.state.value}>"

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            with contextlib.suppress(AgentCubeError):
                await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def session_id(self) -> str | None:
        return self.client.session_id

    @property
    def ownership(self) -> Ownership:
        return self.client.ownership

    @property
    def guest(self) -> GuestRef | None:
        """What another process needs to take this guest over, or None while there is none."""
        return self._channel.guest if self._channel is not None else None

    @property
    def closed(self) -> bool:
        """True after `close()` or `stop()`."""
        return self._closed

    @property
    def state(self) -> SandboxState:
        if self._closed:
            return SandboxState.CLOSED
        if self._opening.running:
            return SandboxState.OPENING
        if self._lost is not None:
            return SandboxState.LOST
        if self._fresh_guest_needed:
            return SandboxState.NEW
        return SandboxState.BUSY if self._runs else SandboxState.READY

    # Opening.

    async def open(self) -> None:
        """Have a session and an interpreter in it. Idempotent; concurrent callers share one attempt.

        A cancelled call stops waiting; what was being created remains this sandbox's and the next call finds it.

        Raises:
            AgentCubeError: whatever the client raises when it creates a session; `GuestStartError` when no
                interpreter can be started; `GuestLostError` when the guest to take over is no more. A loss that was
                noticed while nobody waited is told here, once; the next call starts anew.
        """
        if self._closed:
            raise ClientStateError("This sandbox is closed; make a new one.", session_id=self.session_id)
        untold, self._untold = self._untold, None
        if untold is not None:
            raise untold
        if not self._fresh_guest_needed:
            return
        await self._opening.join()

    async def _open(self) -> None:
        if isinstance(self._lost, SessionNotFoundError):
            await self._replace_session(self._lost)
        await self.client.open()
        if self._channel is None:
            self._channel = Channel(
                self.client.data_plane.wire,
                client_id=self.client_id,
                session_id=self.session_id,
                trust=lambda: self.trust,
                on_background=lambda event: self.on_background and self.on_background(event),
                on_notice=lambda text: self.on_notice and self.on_notice(text),
                on_loss=self._lose,
                env=self._env,
                timings=self.timings,
            )
        try:
            await self._find_guest(self._channel)
        except Exception as exc:
            self._note(exc)
            raise
        self._lost, self._untold, self._fresh_guest_needed = None, None, False

    async def _find_guest(self, channel: Channel) -> None:
        ref = self._take_over
        if ref is None:
            await channel.start()
            return
        try:
            self._recovery = await channel.take_over(ref)
        except GuestLostError:
            self._take_over = None  # said once; the next call starts a fresh interpreter
            raise
        self._take_over = None
        self.client_id = ref.client_id
        self.recovered = [RecoveredCell(id=name) for name in self._recovery.unfinished]

    async def _replace_session(self, lost: SessionNotFoundError) -> None:
        if self._new_client is None or self.ownership is not Ownership.OWNED:
            raise lost
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
        await self.client.close()
        self.client = self._new_client()
        self._take_over = None

    def _lose(self, exc: Exception) -> None:
        self._note(exc)
        if not self._runs and not self._calls:
            self._untold = exc

    def _note(self, exc: BaseException) -> None:
        """Remember what a failure means for the next call."""
        if isinstance(exc, SessionNotFoundError | GuestLostError):
            self._lost, self._fresh_guest_needed = exc, True

    @contextlib.asynccontextmanager
    async def _ready(self) -> AsyncIterator[Channel]:
        await self.open()
        assert self._channel is not None
        self.last_used = time.time()
        self._calls += 1
        try:
            yield self._channel
        finally:
            self._calls -= 1
            self.last_used = time.time()

    # Cells.

    async def start_cell(
        self,
        code: str,
        *,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        allow_stdin: bool = False,
        cell_id: str | None = None,
    ) -> CellRun:
        """Hand a cell to the sandbox and return it as a handle; it runs when those before it have ended.

        With `allow_stdin` the cell may put questions, as events of type `input_request` that `CellRun.answer` answers.
        Where there is no python3 that would do, cells that are all shell run as plain commands. A cancelled call has
        not started the cell.

        Raises:
            ArgumentTypeError: `code` is no str.
            AgentCubeError: whatever `open` raises; the cell did not run.
        """
        if not isinstance(code, str):
            raise ArgumentTypeError(f"code must be a str, not {type(code).__name__}.", name="code")
        cell_id = well_formed(cell_id or uuid.uuid4().hex)
        try:
            async with self._ready() as channel:
                task = cell_task(
                    cell_id,
                    well_formed(code),
                    silent=silent,
                    store_history=store_history,
                    user_expressions=user_expressions or {},
                    allow_stdin=allow_stdin,
                )
                run = CellRun(channel.submit(task), channel, silent=silent)
        except GuestStartError:
            command = shell_command(code)
            if command is None or self.client.closed:
                raise
            # There is no python3 in this sandbox that would do, but a shell is.
            run = start_shell_cell(self.client.data_plane, command, cell_id, silent=silent)
        self._runs[cell_id] = run
        run.on_change = self._follow
        return run

    def _follow(self, run: CellRun) -> None:
        if run.count:  # a shell cell is not counted
            self.execution_count = run.count
        if run.ended or run.left:
            self._runs.pop(run.id, None)
        self.last_used = time.time()

    async def stream_cell(
        self,
        code: str,
        *,
        cell_id: str | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        allow_stdin: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Run a cell and yield its events as they happen: `start_cell` for a loop that only reads.

        Iterate inside `contextlib.aclosing`. Leaving early does not stop the cell: it runs on, and what it still puts
        out is background output. Raises what `start_cell` and `CellRun.events` raise.
        """
        run = await self.start_cell(
            code,
            cell_id=cell_id,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            allow_stdin=allow_stdin,
        )
        try:
            async with aclosing(run.events()) as events:
                async for event in events:
                    yield event
        finally:
            run.leave()

    async def run_cell(
        self,
        code: str,
        *,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        on_event: Callable[[Event], None] | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        on_cancel: str = "interrupt",
    ) -> CellResult:
        """Run a cell to its end; an exception in it is a result with `status` `error`, not an exception here.

        A cancelled call hands an interrupt over to the sandbox, for at most 3 seconds, and does not wait for the
        cell's end; with `on_cancel="leave"` the cell runs on.

        Args:
            timeout: seconds from the cell's beginning, after which it is interrupted.
            queue_timeout: seconds that it may wait behind other cells, after which it is taken out of the queue.
            on_event: called with each event as it comes.

        Raises:
            CellTimeoutError: it took too long; `started` says whether it had begun, `events` is what it had put out.
            ConfigurationError: a wrong `timeout`, `queue_timeout` or `on_cancel`; nothing was run.
            AgentCubeError: what `start_cell` and `CellRun.events` raise.
        """
        check_limits(timeout, queue_timeout, on_cancel)
        run = await self.start_cell(
            code, silent=silent, store_history=store_history, user_expressions=user_expressions
        )
        seen: list[Event] = []

        async def read() -> CellResult:
            async with aclosing(run.events()) as events:
                async for event in events:
                    seen.append(event)
                    if on_event is not None:
                        on_event(event)
            return result_of(seen)

        return await wait_for_cell(
            run,
            read(),
            patience=self.timings.interrupt,
            timeout=timeout,
            queue_timeout=queue_timeout,
            on_cancel=on_cancel,
            session_id=self.session_id,
            seen=lambda: seen,
        )

    async def stream_comm(
        self,
        type: str,
        content: Mapping[str, Any],
        *,
        message_id: str,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes | memoryview] = (),
    ) -> AsyncGenerator[Event, None]:
        """Deliver a front end's `comm_open`, `comm_msg` or `comm_close` once; yield what it causes, `comm_reply` last.

        It is handled also while a cell awaits something. Raises like `stream_cell`.
        """
        message_id = well_formed(message_id)
        task = comm_task(type, content, metadata or {}, buffers, message_id)
        async with self._ready() as channel:
            try:
                async with aclosing(channel.submit(task).events()) as events:
                    async for event in events:
                        yield event
            finally:
                channel.leave(message_id)

    async def stream_recovered(self) -> AsyncGenerator[Event, None]:
        """Yield what the cells in `recovered` had put out and not delivered, and go on until they have ended."""
        recovery, self._recovery = self._recovery, None
        if recovery is None:
            return
        try:
            async with self._ready(), aclosing(recovery.stream.events()) as events:
                async for event in events:
                    yield event
        finally:
            recovery.stream.finish()
        self.recovered = []

    async def interrupt(self) -> None:
        """Interrupt what runs in the interpreter now, whoever sent it (SIGINT to it and to what it has started).

        The cell ends with KeyboardInterrupt. Cells that wait are not touched: `CellRun.interrupt` is for those. Does
        nothing when nothing runs.
        """
        if self._channel is not None and self._channel.guest is not None:
            async with self._ready() as channel:
                await channel.interrupt(None)

    async def restart(self) -> None:
        """Replace the interpreter by a fresh one: variables are gone, files and the session stay.

        Other sandboxes on the same session lose their variables too. Cells that run end with `GuestLostError`.
        """
        if self._channel is None or self._channel.guest is None or self._lost is not None:
            await self.open()
        assert self._channel is not None
        try:
            await self._channel.restart()
        except AgentCubeError as exc:
            self._note(exc)
            raise
        self.execution_count = 0
        self._recovery, self.recovered = None, []
        self._lost, self._untold, self._fresh_guest_needed = None, None, False

    # Questions.

    async def complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """Content of a `complete_reply`; also while a cell runs. `{}` if none comes within `timings.question`."""
        return await self._ask("complete", code=well_formed(code), cursor_pos=cursor_pos)

    async def inspect(self, code: str, cursor_pos: int, detail_level: int = 0) -> dict[str, Any]:
        """Content of an `inspect_reply`; like `complete`."""
        return await self._ask(
            "inspect", code=well_formed(code), cursor_pos=cursor_pos, detail_level=detail_level
        )

    async def is_complete(self, code: str) -> dict[str, Any]:
        """Content of an `is_complete_reply`; like `complete`."""
        return await self._ask("is_complete", code=well_formed(code))

    async def comm_info(self, target_name: str | None = None) -> dict[str, Any]:
        """The open comms, as `{"comm_id": {"target_name": …}}`; like `complete`."""
        return await self._ask("comm_info", target_name=target_name)

    async def usage(self) -> dict[str, Any]:
        """Content of a `usage_reply`: processor and memory of the sandbox."""
        async with self._ready() as channel:
            return await channel.usage()

    async def _ask(self, what: str, **fields: Any) -> dict[str, Any]:
        async with self._ready() as channel:
            return await channel.ask(what, **fields)

    # The end.

    def detach(self) -> str:
        """Give the session up without deleting it, and return its id; the sandbox still has to be closed."""
        return self.client.detach()

    async def close(self) -> None:
        """Close this side. Session, interpreter and a running cell go on. Idempotent."""
        await self._close_channel()
        await self.client.close()

    async def stop(self, *, force: bool = False) -> None:
        """Close, and delete the session if this sandbox created it, or with `force` in any case.

        On a bare PicoD, which has no sessions, the interpreter is ended and its files are removed instead.
        Raises what the client's `stop` raises; the sandbox is closed all the same.
        """
        channel = self._channel
        if channel is not None and self.client.settings.picod_url is not None and not self._closed:
            with contextlib.suppress(AgentCubeError, TimeoutError):
                async with asyncio.timeout(self.timings.interrupt):
                    await channel.shut_down_guest()
                    folder = shlex.quote(FOLDER.split("/")[0])
                    await self.client.data_plane.wire.execute(["sh", "-c", f"rm -rf {folder}"], timeout=10)
        await self._close_channel()
        await self.client.stop(force=force)

    async def _close_channel(self) -> None:
        self._closed = True
        await self._opening.cancel()
        if self._channel is not None:
            await self._channel.close()
        for run in list(self._runs.values()):
            run.leave()
