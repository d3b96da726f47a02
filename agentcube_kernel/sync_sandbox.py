"""The stateful sandbox for programs without an event loop, or in the middle of somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .client.code_interpreter import AsyncCodeInterpreterClient
from .client.sync.facade import SyncFacade
from .sandbox import AsyncSandbox, SandboxState
from .sync_cell_run import SyncCellRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .channel.cell_result import CellResult
    from .channel.protocol import Event
    from .channel.relay import GuestRef
    from .channel.trust import Trust
    from .results import Ownership
    from .sandbox import RecoveredCell
    from .timings import Timings


class Sandbox(SyncFacade[AsyncSandbox]):
    """`AsyncSandbox`, waiting for every result; see there for arguments and promises.

    ::

        with Sandbox() as sandbox:
            sandbox.run_cell("x = 20")
            assert sandbox.run_cell("x + 1").text == "21"

    The first call opens it, as does `with`, which also stops it at the end. Ctrl-C interrupts the cell that runs.
    Callbacks are called on another thread. A forked child process shares the interpreter, and never deletes the
    session.
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
        super().__init__(
            AsyncSandbox(
                client,
                client_id=client_id,
                new_client=new_client,
                guest=guest,
                env=env,
                timings=timings,
                on_background=on_background,
                on_notice=on_notice,
            )
        )

    @property
    def client(self) -> AsyncCodeInterpreterClient:
        """The code-interpreter client, which belongs to this sandbox's event loop."""
        return self._core.client

    @property
    def session_id(self) -> str | None:
        """The session's id, or None while there is none."""
        return self._core.session_id

    @property
    def ownership(self) -> Ownership:
        """Who is to delete the session."""
        return self._core.ownership

    @property
    def guest(self) -> GuestRef | None:
        """What another process needs to take this guest over, or None while there is none."""
        return self._core.guest

    @property
    def closed(self) -> bool:
        """True after `close()` or `stop()`."""
        return self._core.closed

    @property
    def state(self) -> SandboxState:
        """Where the sandbox is in its life."""
        return self._core.state

    @property
    def trust(self) -> Trust:
        """What its output may do in a front end, from the next output on."""
        return self._core.trust

    @trust.setter
    def trust(self, trust: Trust) -> None:
        self._core.trust = trust

    @property
    def execution_count(self) -> int:
        """Of the latest cell that was counted."""
        return self._core.execution_count

    @property
    def recovered(self) -> list[RecoveredCell]:
        """Cells that were running or had output waiting in the guest that was taken over."""
        return self._core.recovered

    def start_cell(
        self,
        code: str,
        *,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        allow_stdin: bool = False,
        cell_id: str | None = None,
    ) -> SyncCellRun:
        """See `AsyncSandbox.start_cell`."""

        async def start(sandbox: AsyncSandbox) -> SyncCellRun:
            run = await sandbox.start_cell(
                code,
                silent=silent,
                store_history=store_history,
                user_expressions=user_expressions,
                allow_stdin=allow_stdin,
                cell_id=cell_id,
            )
            return SyncCellRun(run)

        return self._run(start)

    def stream_cell(
        self,
        code: str,
        *,
        cell_id: str | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        allow_stdin: bool = False,
    ) -> Iterator[Event]:
        """See `AsyncSandbox.stream_cell`; Ctrl-C between two events does not interrupt the cell."""
        return self._iterate(
            lambda s: s.stream_cell(
                code,
                cell_id=cell_id,
                silent=silent,
                store_history=store_history,
                user_expressions=user_expressions,
                allow_stdin=allow_stdin,
            )
        )

    def run_cell(
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
        """See `AsyncSandbox.run_cell`. Ctrl-C cancels the call."""
        return self._run(
            lambda s: s.run_cell(
                code,
                timeout=timeout,
                queue_timeout=queue_timeout,
                on_event=on_event,
                silent=silent,
                store_history=store_history,
                user_expressions=user_expressions,
                on_cancel=on_cancel,
            )
        )

    def stream_comm(
        self,
        type: str,
        content: Mapping[str, Any],
        *,
        message_id: str,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes | memoryview] = (),
    ) -> Iterator[Event]:
        """See `AsyncSandbox.stream_comm`."""
        return self._iterate(
            lambda s: s.stream_comm(type, content, message_id=message_id, metadata=metadata, buffers=buffers)
        )

    def stream_recovered(self) -> Iterator[Event]:
        """See `AsyncSandbox.stream_recovered`."""
        return self._iterate(lambda s: s.stream_recovered())

    def interrupt(self) -> None:
        """See `AsyncSandbox.interrupt`."""
        self._run(lambda s: s.interrupt())

    def restart(self) -> None:
        """See `AsyncSandbox.restart`."""
        self._run(lambda s: s.restart())

    def complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """See `AsyncSandbox.complete`."""
        return self._run(lambda s: s.complete(code, cursor_pos))

    def inspect(self, code: str, cursor_pos: int, detail_level: int = 0) -> dict[str, Any]:
        """See `AsyncSandbox.inspect`."""
        return self._run(lambda s: s.inspect(code, cursor_pos, detail_level))

    def is_complete(self, code: str) -> dict[str, Any]:
        """See `AsyncSandbox.is_complete`."""
        return self._run(lambda s: s.is_complete(code))

    def comm_info(self, target_name: str | None = None) -> dict[str, Any]:
        """See `AsyncSandbox.comm_info`."""
        return self._run(lambda s: s.comm_info(target_name))

    def usage(self) -> dict[str, Any]:
        """See `AsyncSandbox.usage`."""
        return self._run(lambda s: s.usage())

    def _in_child(self, parent: AsyncSandbox) -> AsyncSandbox:
        client = AsyncCodeInterpreterClient(settings=parent.client.settings, session_id=parent.session_id)
        sandbox = AsyncSandbox(
            client,
            timings=parent.timings,
            on_background=parent.on_background,
            on_notice=parent.on_notice,
        )
        sandbox.trust = parent.trust
        return sandbox
