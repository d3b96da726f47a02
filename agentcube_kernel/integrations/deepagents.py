"""A sandbox as the backend of LangChain's deep agents: their files, searches, edits and shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arguments import check_timeout
from ..errors import (
    AgentCubeError,
    ArgumentTypeError,
    ConfigurationError,
    RemoteFileNotFoundError,
    RemoteIsADirectoryError,
    RemoteStorageError,
)
from ..sessions.keeper import Keeper
from ..sync_sandbox import Sandbox
from .commands import run_program
from .files import read_anywhere, spare_name, write_anywhere
from .missing import missing_framework
from .own_sandbox import own_sandbox

try:
    from deepagents.backends.protocol import ExecuteResponse, FileDownloadResponse, FileUploadResponse
    from deepagents.backends.sandbox import BaseSandbox
except ImportError as error:
    raise missing_framework("deepagents", "deepagents") from error

if TYPE_CHECKING:
    from ..results import CommandResult
    from ..sandbox import AsyncSandbox

_DEFAULT_TIMEOUT = 1800.0
_OUTPUT_LIMIT = 4 * 1024 * 1024
_FILE_LIMIT = 512 * 1024 * 1024
_ONE_ARGUMENT = 100 * 1024


class AgentCubeBackend(BaseSandbox):
    """A backend for `create_deep_agent(backend=…)`.

    Constructing does no I/O. Paths are absolute, anywhere in the sandbox.

    Args:
        sandbox: use this one, which remains the caller's; by default a new one, which `close` stops, and which does
            not outlive this process.
        timeout: seconds that a command may take if the agent does not say.
    """

    def __init__(self, sandbox: Sandbox | None = None, *, timeout: float = _DEFAULT_TIMEOUT) -> None:
        if sandbox is not None and not isinstance(sandbox, Sandbox):
            raise ArgumentTypeError(
                f"sandbox must be a Sandbox, not {type(sandbox).__name__}.", name="sandbox"
            )
        self._timeout = check_timeout(timeout, default=_DEFAULT_TIMEOUT)
        self._keeper: Keeper | None = None
        if sandbox is None:
            self._keeper = Keeper()
            sandbox = own_sandbox(self._keeper)
        self.sandbox = sandbox

    @property
    def id(self) -> str:
        """The session's id. Raises what `Sandbox.open` raises."""
        self.sandbox.open()
        assert self.sandbox.session_id is not None
        return self.sandbox.session_id

    def close(self) -> None:
        """Stop the sandbox if this backend made it. Raises what `Sandbox.stop` raises."""
        if self._keeper is not None:
            try:
                self.sandbox.stop()
            finally:
                self._keeper.close()

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a command line with `sh`, in the workspace; a failure to do so is an answer too, without exit code."""
        try:
            seconds = check_timeout(timeout, default=self._timeout)
            done = self.sandbox._run(lambda core: _execute(core, command, seconds))
        except AgentCubeError as error:
            return ExecuteResponse(output=str(error), exit_code=None)
        if done.timed_out:
            return ExecuteResponse(
                output=f"The command did not end within {seconds:g} s and was stopped.", exit_code=124
            )
        text = done.stdout + done.stderr
        return ExecuteResponse(
            output=text[:_OUTPUT_LIMIT], exit_code=done.exit_code, truncated=len(text) > _OUTPUT_LIMIT
        )

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files; each has an error of its own."""
        return [FileUploadResponse(path=path, error=self._upload(path, data)) for path, data in files]

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files of up to 512 MiB; each has an error of its own."""
        return [self._download(path) for path in paths]

    def _upload(self, path: str, data: bytes) -> str | None:
        async def upload(core: AsyncSandbox) -> None:
            await core.open()
            await write_anywhere(core.client, path, data)

        try:
            _check_absolute(path)
            self.sandbox._run(upload)
        except AgentCubeError as error:
            return _in_their_words(error)
        return None

    def _download(self, path: str) -> FileDownloadResponse:
        async def download(core: AsyncSandbox) -> bytes:
            await core.open()
            return await read_anywhere(core.client, path, max_bytes=_FILE_LIMIT)

        try:
            _check_absolute(path)
            data = self.sandbox._run(download)
        except AgentCubeError as error:
            return FileDownloadResponse(path=path, error=_in_their_words(error))
        if len(data) > _FILE_LIMIT:
            return FileDownloadResponse(path=path, error="The file is larger than 512 MiB.")
        return FileDownloadResponse(path=path, content=data)


async def _execute(core: AsyncSandbox, command: str, timeout: float) -> CommandResult:
    await core.open()
    if len(command.encode("utf-8", "replace")) <= _ONE_ARGUMENT:
        argv = ["sh", "-c", f"exec 2>&1\n{command}"]
    else:
        name = spare_name()
        await core.client.write_file(f'exec 2>&1\nrm -f -- "$0"\n{command}', name)
        argv = ["sh", name]
    return await run_program(core.client, argv, timeout=timeout, limit=_OUTPUT_LIMIT)


def _check_absolute(path: str) -> None:
    if not path.startswith("/"):
        raise ConfigurationError("The path must be absolute.", name="path")


def _in_their_words(error: AgentCubeError) -> str:
    if isinstance(error, RemoteFileNotFoundError):
        return "file_not_found"
    if isinstance(error, RemoteIsADirectoryError):
        return "is_directory"
    if isinstance(error, ConfigurationError):
        return "invalid_path"
    if isinstance(error, RemoteStorageError) and "permission denied" in str(error).lower():
        return "permission_denied"
    return str(error)
