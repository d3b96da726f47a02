"""The code-interpreter client for programs without an event loop, or in the middle of somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...wire.data_plane import DEFAULT_TIMEOUT
from ...wire.http import DEFAULT_LIMIT
from ..code_interpreter import AsyncCodeInterpreterClient
from .portal import portal
from .session import SyncSessionClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from ...config import Settings
    from ...results import (
        CommandResult,
        FileInfo,
        Health,
        Output,
        SessionInfo,
        Transferred,
    )
    from ...sessions.creation import SessionNotes
    from ...sessions.keeper import Keeper
    from ...wire.auth import AuthProvider
    from ...wire.http import AsyncTransport
    from ..command_stream import CommandStream as AsyncCommandStream
    from ..session import CreateThrough
    from ..transfers import Progress


class SyncCommandStream:
    """A running command's output: an iterator of `Output`, and a context manager that stops the command."""

    def __init__(self, stream: AsyncCommandStream) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return repr(self._stream)

    def __iter__(self) -> Iterator[Output]:
        return portal().iterate(lambda: self._stream)

    def __enter__(self) -> SyncCommandStream:
        portal().run(self._stream.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def exit_code(self) -> int | None:
        """The command's exit code once it has ended; more than 128 when a signal killed it."""
        return self._stream.exit_code

    def raise_for_exit(self) -> None:
        """Raise `CommandExecutionError` when the command ended with another exit code than 0."""
        self._stream.raise_for_exit()

    def close(self) -> None:
        """Stop the command if it still runs, with all its descendants. Idempotent."""
        portal().run(self._stream.aclose)


class CodeInterpreterClient(SyncSessionClient[AsyncCodeInterpreterClient]):
    """`AsyncCodeInterpreterClient`, waiting for every result; see there for arguments and promises.

    ::

        with CodeInterpreterClient() as client:
            print(client.run_code("python", "print('hello')"))

    Unlike with the stock SDK, constructing does no I/O: the first call opens the session.
    """

    def __init__(
        self,
        name: str | None = None,
        namespace: str | None = None,
        ttl: float | None = None,
        workload_manager_url: str | None = None,
        router_url: str | None = None,
        auth_token: str | None = None,
        verbose: bool = False,
        session_id: str | None = None,
        auth: AuthProvider | None = None,
        *,
        workload_manager_auth: AuthProvider | None = None,
        picod_url: str | None = None,
        settings: Settings | None = None,
        create_through: CreateThrough = "auto",
        on_session: Callable[[SessionInfo], Awaitable[None] | None] | None = None,
        keeper: Keeper | None = None,
        notes: SessionNotes | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float | None = None,
        max_connections: int = DEFAULT_LIMIT,
        transport: AsyncTransport | None = None,
    ) -> None:
        super().__init__(
            AsyncCodeInterpreterClient,
            name=name,
            namespace=namespace,
            ttl=ttl,
            workload_manager_url=workload_manager_url,
            router_url=router_url,
            auth_token=auth_token,
            verbose=verbose,
            session_id=session_id,
            auth=auth,
            workload_manager_auth=workload_manager_auth,
            picod_url=picod_url,
            settings=settings,
            create_through=create_through,
            on_session=on_session,
            keeper=keeper,
            notes=notes,
            timeout=timeout,
            connect_timeout=connect_timeout,
            max_connections=max_connections,
            transport=transport,
        )

    def execute_command(
        self,
        command: str | Sequence[str],
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> str:
        """See `AsyncCodeInterpreterClient.execute_command`."""
        return self._run(lambda c: c.execute_command(command, timeout, env=env, working_dir=working_dir))

    def execute_command_result(
        self,
        command: str | Sequence[str],
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> CommandResult:
        """See `AsyncCodeInterpreterClient.execute_command_result`."""
        return self._run(
            lambda c: c.execute_command_result(command, timeout, env=env, working_dir=working_dir)
        )

    def run_code(
        self,
        language: str,
        code: str,
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> str:
        """See `AsyncCodeInterpreterClient.run_code`."""
        return self._run(lambda c: c.run_code(language, code, timeout, env=env, working_dir=working_dir))

    def run_code_result(
        self,
        language: str,
        code: str,
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> CommandResult:
        """See `AsyncCodeInterpreterClient.run_code_result`."""
        return self._run(
            lambda c: c.run_code_result(language, code, timeout, env=env, working_dir=working_dir)
        )

    def stream_command(
        self,
        command: str | Sequence[str],
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> SyncCommandStream:
        """See `AsyncCodeInterpreterClient.stream_command`; `with` and `for` in place of the asynchronous ones."""
        self.open()
        stream = self._async().stream_command(command, timeout, env=env, working_dir=working_dir)
        return SyncCommandStream(stream)

    def write_file(self, content: str | bytes, remote_path: str) -> None:
        """See `AsyncCodeInterpreterClient.write_file`."""
        return self._run(lambda c: c.write_file(content, remote_path))

    def read_file(self, remote_path: str) -> bytes:
        """See `AsyncCodeInterpreterClient.read_file`."""
        return self._run(lambda c: c.read_file(remote_path))

    def upload_file(
        self, local_path: str, remote_path: str, *, mode: str = "0644", progress: Progress | None = None
    ) -> Transferred:
        """See `AsyncCodeInterpreterClient.upload_file`; `progress` is called on another thread."""
        return self._run(lambda c: c.upload_file(local_path, remote_path, mode=mode, progress=progress))

    def download_file(
        self,
        remote_path: str,
        local_path: str,
        *,
        progress: Progress | None = None,
        max_bytes: int | None = None,
    ) -> Transferred:
        """See `AsyncCodeInterpreterClient.download_file`; `progress` is called on another thread."""
        return self._run(
            lambda c: c.download_file(remote_path, local_path, progress=progress, max_bytes=max_bytes)
        )

    def upload_folder(
        self, local_path: str, remote_path: str, *, progress: Progress | None = None
    ) -> Transferred:
        """See `AsyncCodeInterpreterClient.upload_folder`; `progress` is called on another thread."""
        return self._run(lambda c: c.upload_folder(local_path, remote_path, progress=progress))

    def download_folder(
        self,
        remote_path: str,
        local_path: str,
        *,
        progress: Progress | None = None,
        max_bytes: int | None = None,
        max_members: int | None = None,
    ) -> Transferred:
        """See `AsyncCodeInterpreterClient.download_folder`; `progress` is called on another thread."""
        return self._run(
            lambda c: c.download_folder(
                remote_path, local_path, progress=progress, max_bytes=max_bytes, max_members=max_members
            )
        )

    def list_files(self, path: str = ".") -> list[FileInfo]:
        """See `AsyncCodeInterpreterClient.list_files`."""
        return self._run(lambda c: c.list_files(path))

    def health(self) -> Health:
        """See `AsyncCodeInterpreterClient.health`."""
        return self._run(lambda c: c.health())
