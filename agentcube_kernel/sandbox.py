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
from .channel.channel import Channel, comm_task
from .channel.policy import restrain
from .channel.relay import FOLDER, GuestRef
from .channel.shell_cells import shell_command, stream_shell_cell
from .config import Settings
from .errors import (
    AgentCubeError,
    CellTimeoutError,
    ClientStateError,
    ExchangeError,
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

    from .channel.cell_stream import CellStream
    from .channel.protocol import Event
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
        self.trusted = True
        """Whether its output may do in a browser what the output of local code may; see `channel/policy.py`."""
        self._new_client = new_client
        self._take_over = guest
        self._env = dict(env or {})
        self.on_background = on_background
        self.on_notice = on_notice
        self._channel: Channel | None = None
        self._opening = SharedAttempt(self._open, name="agentcube-open")
        self._recovery: CellStream | None = None
        self._open_cells: dict[str, None] = {}
        self._lost: Exception | None = None
        self._fresh_guest_needed = True
        self._closed = False

    def __repr__(self) -> str:
        return f"<AsyncSandbox {self.session_id or 'without a session'}, {self.state.value}>"

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self._stop_quietly()
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
        return SandboxState.BUSY if self._open_cells else SandboxState.READY

    # Opening.

    async def open(self) -> None:
        """Have a session and an interpreter in it. Idempotent; concurrent callers share one attempt.

        A cancelled call stops waiting; what was being created remains this sandbox's and the next call finds it.

        Raises:
            AgentCubeError: whatever the client raises when it creates a session; `GuestStartError` when no
                interpreter can be started; `GuestLostError` when the guest to take over is no more.
        """
        if self._closed:
            raise ClientStateError("This sandbox is closed; make a new one.", session_id=self.session_id)
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
                on_background=self._background,
                on_notice=self._notice,
                env=self._env,
                timings=self.timings,
            )
        try:
            await self._find_guest(self._channel)
        except Exception as exc:
            self._note(exc)
            raise
        self._lost, self._fresh_guest_needed = None, False

    async def _find_guest(self, channel: Channel) -> None:
        ref = self._take_over
        if ref is None:
            await channel.start()
            return
        try:
            hello = await channel.take_over(ref)
        except GuestLostError:
            self._take_over = None  # said once; the next call starts a fresh interpreter
            raise
        self._take_over = None
        self.client_id = ref.client_id
        self._recovery, unfinished = channel.recover(hello)
        self.recovered = [RecoveredCell(id=name) for name in unfinished]

    async def _replace_session(self, lost: SessionNotFoundError) -> None:
        if self._new_client is None or self.ownership is not Ownership.OWNED:
            raise lost
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
        await self.client.close()
        self.client = self._new_client()
        self._take_over = None

    def _note(self, exc: BaseException) -> None:
        """Remember what a failure means for the next call."""
        if isinstance(exc, SessionNotFoundError | GuestLostError):
            self._lost, self._fresh_guest_needed = exc, True

    def _background(self, event: Event) -> None:
        admitted = self._admit(event)
        if self.on_background is not None and admitted is not None:
            self.on_background(admitted)

    def _admit(self, event: Event) -> Event | None:
        return event if self.trusted else restrain(event)

    def _notice(self, text: str) -> None:
        if self.on_notice is not None:
            self.on_notice(text)

    @contextlib.asynccontextmanager
    async def _ready(self) -> AsyncIterator[Channel]:
        await self.open()
        assert self._channel is not None
        self.last_used = time.time()
        try:
            yield self._channel
        except (ExchangeError, GuestLostError) as exc:
            self._note(exc)
            raise
        finally:
            self.last_used = time.time()

    # Cells.

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
        """Run a cell and yield its events as they happen, each once and in order; the last is `execute_reply`.

        Iterate inside `contextlib.aclosing`. Leaving early does not stop the cell: it goes on, and what it still puts
        out is background output; `interrupt` stops it. With `allow_stdin` the cell may put questions, as events of
        type `input_request` that `send_input` answers.

        Raises:
            SessionNotFoundError, GuestLostError: the cell did not run, or was cut short; the message says what is lost.
            SandboxUnreachableError: no contact; the cell may be running on.
            AgentCubeError: whatever `open` raises; then the cell did not run.
        """
        cell_id = cell_id or uuid.uuid4().hex
        task = {
            "id": cell_id,
            "kind": "cell",
            "code": well_formed(code),
            "silent": silent,
            "store_history": store_history,
            "user_expressions": dict(user_expressions or {}),
            "allow_stdin": allow_stdin,
        }
        try:
            await self.open()
        except GuestStartError:
            command = shell_command(code)
            if command is None or self.client.closed:
                raise
            # There is no python3 in this sandbox that would do, but a shell is.
            async for event in stream_shell_cell(self.client.data_plane, command, cell_id):
                yield event
            return
        self._open_cells[cell_id] = None
        try:
            async with self._ready() as channel, aclosing(channel.submit(task).events()) as events:
                async for event in events:
                    if event.type in ("execute_input", "execute_reply"):
                        self.execution_count = max(0, event.content["execution_count"])
                    if (admitted := self._admit(event)) is not None:
                        yield admitted
        finally:
            self._open_cells.pop(cell_id, None)

    async def run_cell(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_event: Callable[[Event], None] | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
    ) -> CellResult:
        """Run a cell to its end; an exception in it is a result with `status` `error`, not an exception here.

        After `timeout` seconds the cell is interrupted and `CellTimeoutError` raised, whose `events` are what it had
        put out. A cancelled call leaves the cell running; see `stream_cell` for the rest.
        """
        events: list[Event] = []
        cell_id = uuid.uuid4().hex

        async def collect() -> None:
            stream = self.stream_cell(
                code,
                cell_id=cell_id,
                silent=silent,
                store_history=store_history,
                user_expressions=user_expressions,
            )
            async with aclosing(stream):
                async for event in stream:
                    events.append(event)
                    if on_event is not None:
                        on_event(event)

        if timeout is None:
            await collect()
            return result_of(events)
        with contextlib.suppress(GuestStartError):
            await self.open()
        collecting = asyncio.get_running_loop().create_task(collect(), name="agentcube-cell")
        try:
            done, _ = await asyncio.wait({collecting}, timeout=timeout)
            if not done:
                stopped = await self._stop_cell(cell_id, collecting)
                raise self._timed_out(timeout, events, stopped)
        finally:
            if not collecting.done():
                collecting.cancel()
                await asyncio.wait({collecting})
        await collecting
        return result_of(events)

    async def _stop_cell(self, cell_id: str, collecting: asyncio.Task[None]) -> bool:
        """Interrupt a cell and wait a while for its end; say whether it came."""
        assert self._channel is not None
        with contextlib.suppress(AgentCubeError, TimeoutError):
            async with asyncio.timeout(self.timings.interrupt):
                await self._channel.interrupt(cell_id)
        done, _ = await asyncio.wait({collecting}, timeout=self.timings.interrupt)
        return bool(done)

    def _timed_out(self, timeout: float, events: list[Event], stopped: bool) -> CellTimeoutError:
        what = "was interrupted" if stopped else "does not react to an interrupt; it runs on until `restart`"
        return CellTimeoutError(
            f"The cell did not end within {timeout:g} s and {what}. Variables are kept.",
            timeout=timeout,
            events=tuple(events),
            session_id=self.session_id,
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
        task = comm_task(type, content, metadata or {}, buffers, message_id)
        async with self._ready() as channel, aclosing(channel.submit(task).events()) as events:
            async for event in events:
                if (admitted := self._admit(event)) is not None:
                    yield admitted

    async def stream_recovered(self) -> AsyncGenerator[Event, None]:
        """Yield what the cells in `recovered` had put out and not delivered, and go on until they have ended."""
        recovery, self._recovery = self._recovery, None
        if recovery is None:
            return
        async with self._ready(), aclosing(recovery.events()) as events:
            async for event in events:
                if (admitted := self._admit(event)) is not None:
                    yield admitted
        self.recovered = []

    async def send_input(self, value: str | None, *, cell_id: str) -> None:
        """Answer an `input_request` of a cell; None is an end of file. Delivered once."""
        async with self._ready() as channel:
            await channel.send_input(cell_id, value)

    async def interrupt(self) -> None:
        """Interrupt the cell that runs (SIGINT to it and to what it has started); it ends with KeyboardInterrupt.

        A cell of this sandbox that waits behind another one's ends too, without having run. Does nothing when none
        runs.
        """
        if self._channel is None or self._channel.guest is None:
            return
        async with self._ready() as channel:
            await channel.interrupt(next(iter(self._open_cells), None))

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
        self._lost, self._fresh_guest_needed = None, False

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

    async def _stop_quietly(self) -> None:
        with contextlib.suppress(AgentCubeError):
            await self.stop()
