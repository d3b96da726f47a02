"""What can be done in a code-interpreter session, the same on both levels of client.

Names, parameters and results are the stock SDK's. Where its behaviour is a defect the docstring says what is
different here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ..arguments import check_text, check_timeout, remote_file_path
from ..errors import ArgumentTypeError
from ..wire.retry import RetryPolicy
from . import commands, downloads, folders, transfers
from .command_stream import CommandStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..results import CommandResult, FileInfo, Health, Transferred
    from .housekeeping import SessionTools
    from .transfers import Progress


class Operations(ABC):
    """Commands and files of one session."""

    @property
    @abstractmethod
    def _tools(self) -> SessionTools:
        """What the operations are made with.

        Raises:
            ClientStateError: there is no session yet.
        """

    async def execute_command(
        self,
        command: str | Sequence[str],
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> str:
        """Run a command and return its standard output.

        A string is split into arguments as a shell would, but no shell runs it: for pipes and variables use
        `["bash", "-c", "…"]`, `env` and `working_dir`. `working_dir` counts from the workspace.

        `timeout` is in seconds; None is the client's default (120 s) and `NO_TIMEOUT` no limit. Unlike with the
        stock SDK, 0 and strings are refused, and the output of a command that fails is kept in the error. A call
        that is cancelled or times out stops the command and all its descendants in the sandbox.

        Raises:
            CommandExecutionError: the exit code is not 0.
            CommandTimeoutError: the command did not end in time and was stopped.
            ExchangeError: the sandbox could not be asked; `delivery` tells whether the command may have run.
        """
        tools = self._tools
        result = await commands.run_command(tools, command, timeout=timeout, env=env, working_dir=working_dir)
        seconds = check_timeout(timeout, default=tools.wire.timeout)
        return commands.output_or_raise(result, command, seconds, tools.wire.session_id)

    async def execute_command_result(
        self,
        command: str | Sequence[str],
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> CommandResult:
        """As `execute_command`, but any end of the command is a result, a timeout too (exit code 124).

        Raises:
            ExchangeError: the sandbox could not be asked; `delivery` tells whether the command may have run.
        """
        return await commands.run_command(
            self._tools, command, timeout=timeout, env=env, working_dir=working_dir
        )

    async def run_code(
        self,
        language: str,
        code: str,
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> str:
        """Run a snippet in a process of its own and return its standard output.

        `language` is `python`, `py`, `python3`, `bash` or `sh` (bash too). Variables do not outlive the
        call; `AsyncSandbox` keeps them. Python code whose newlines were escaped twice is mended, where only that
        makes it Python. Unlike with the stock SDK no file is left behind, and concurrent calls never collide.

        Raises:
            CommandExecutionError: the code failed; `stderr` has the traceback and `stdout` what came before.
            CommandTimeoutError: it did not end in time and was stopped.
            ConfigurationError: another language.
            ExchangeError: the sandbox could not be asked.
        """
        tools = self._tools
        result = await commands.run_code(tools, language, code, timeout, env=env, working_dir=working_dir)
        seconds = check_timeout(timeout, default=tools.wire.timeout)
        return commands.output_or_raise(result, code, seconds, tools.wire.session_id)

    async def run_code_result(
        self,
        language: str,
        code: str,
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> CommandResult:
        """As `run_code`, but any end of the code is a result, a timeout too (exit code 124).

        Raises:
            ConfigurationError: another language.
            ExchangeError: the sandbox could not be asked.
        """
        return await commands.run_code(self._tools, language, code, timeout, env=env, working_dir=working_dir)

    def stream_command(
        self,
        command: str | Sequence[str],
        timeout: float | None = None,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
    ) -> CommandStream:
        """Run a command and get its output as it comes.

        ::

            async with client.stream_command(["make", "-j4"]) as stream:
                async for output in stream:
                    print(output.text, end="")
            print(stream.exit_code)

        The command is started when the stream is entered or first iterated, exactly once whatever happens to
        requests on the way. Leaving the `async with` before its end, or cancelling, stops it and all its
        descendants. `timeout` (seconds) is for the whole command; the default, None, is no limit here.
        """
        return CommandStream(self._tools, command, timeout, env=env, working_dir=working_dir)

    async def write_file(self, content: str | bytes, remote_path: str) -> None:
        """Write text (as UTF-8) or bytes of any size to a file of the workspace; parent folders are created.

        The file is replaced as a whole or not at all.

        Raises:
            RemoteFileError: as its subclasses say.
        """
        if isinstance(content, str):
            content = check_text(content, name="content").encode()
        elif not isinstance(content, (bytes, bytearray, memoryview)):
            raise ArgumentTypeError(
                f"content must be str or bytes, not {type(content).__name__}.", name="content"
            )
        tools = self._tools
        target = remote_file_path(remote_path, session_id=tools.wire.session_id)
        source = transfers.BytesSource(bytes(content))
        await transfers.Upload(tools, source, target, mode="0644", progress=None).run()

    async def read_file(self, remote_path: str) -> bytes:
        """A whole file of the workspace, up to 1 GiB. `download_file` is for more, and verifies what it got.

        Raises:
            RemoteFileError: as its subclasses say.
        """
        wire = self._tools.wire
        return await RetryPolicy.IDEMPOTENT.call(lambda: wire.read(remote_path))

    async def upload_file(
        self, local_path: str, remote_path: str, *, mode: str = "0644", progress: Progress | None = None
    ) -> Transferred:
        """Upload a file of any size.

        It is sent in pieces below every size limit, resumed when a connection breaks, verified by SHA-256 in the
        sandbox, and gets its name only when it is complete; a file that is replaced keeps its executable bit.
        `progress(done, total)` is called with bytes.

        Raises:
            LocalFileError: the local file cannot be read.
            RemoteFileError: the sandbox cannot store it; what was there before is untouched.
        """
        return await transfers.upload_file(self._tools, local_path, remote_path, mode=mode, progress=progress)

    async def download_file(
        self,
        remote_path: str,
        local_path: str,
        *,
        progress: Progress | None = None,
        max_bytes: int | None = None,
    ) -> Transferred:
        """Download a file; missing local parent folders are created.

        It is resumed when a connection breaks, verified by SHA-256, and gets its name only when it is complete.
        `progress(done, total)` is called with bytes; `total` is None if the sandbox does not report a size. `max_bytes`
        is the largest size to accept: by default 256 GiB, or 1 GiB if the sandbox does not report a size.

        Raises:
            RemoteFileError: as its subclasses say; `TransferError` if the file keeps changing or is larger than
                `max_bytes`.
            LocalFileError: it cannot be stored here; what was there before is untouched.
        """
        return await downloads.download_file(
            self._tools.wire, remote_path, local_path, progress=progress, max_bytes=max_bytes
        )

    async def upload_folder(
        self, local_path: str, remote_path: str, *, progress: Progress | None = None
    ) -> Transferred:
        """Upload a folder's content into a folder of the workspace, which is created or added to.

        Modes, times and symbolic links are kept; devices, sockets and pipes are skipped. A new folder appears
        only when it is complete. `progress(done, None)` is called with bytes.

        Raises:
            LocalFileError: something in the folder cannot be read.
            RemoteFileError: as its subclasses say.
        """
        return await folders.upload_folder(self._tools, local_path, remote_path, progress=progress)

    async def download_folder(
        self,
        remote_path: str,
        local_path: str,
        *,
        progress: Progress | None = None,
        max_bytes: int | None = None,
        max_members: int | None = None,
    ) -> Transferred:
        """Download a folder's content into a local folder, which is created or added to.

        Nothing lands outside `local_path`, whatever the sandbox sent, and nothing is written through a link. Links
        that lead out of the folder or through other links are left out and named in the result's `skipped`, as is
        what is neither file, folder nor link. Files of the same name are replaced one by one. `max_bytes` (default
        16 GiB) and `max_members` (default 200,000 files, folders and links) are the most to accept.

        Raises:
            RemoteFileError: as its subclasses say; `TransferError` above `max_bytes` or `max_members`.
            LocalFileError: it cannot be stored here.
        """
        limits = folders.folder_limits(max_bytes, max_members)
        return await folders.download_folder(
            self._tools, remote_path, local_path, progress=progress, limits=limits
        )

    async def list_files(self, path: str = ".") -> list[FileInfo]:
        """The entries of one folder of the workspace, sorted by name.

        Raises:
            RemoteFileNotFoundError, RemoteNotADirectoryError, OutsideWorkspaceError: as their names say.
            ResponseError: the listing has more than 200,000 entries or 64 MiB.
        """
        wire = self._tools.wire
        return await RetryPolicy.IDEMPOTENT.call(lambda: wire.list(path))

    async def health(self) -> Health:
        """The sandbox daemon's report. It also counts as activity, so it keeps an idle session alive.

        Raises:
            SessionNotFoundError: the session is gone.
            ExchangeError: the sandbox cannot be reached.
        """
        return await self._tools.wire.health()
