"""A sandbox for each sample of an evaluation with inspect-ai: `sandbox="agentcube"`.

`sandbox=("agentcube", "my-interpreter")` names a CodeInterpreter. inspect-ai finds this module by its entry point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from ..arguments import NO_TIMEOUT
from ..client.code_interpreter import AsyncCodeInterpreterClient
from ..errors import RemoteStorageError, SessionNotFoundError
from ..sessions.creation import SessionNotes
from ..sessions.keeper import Keeper
from .commands import run_program
from .files import read_anywhere, write_anywhere
from .missing import missing_framework

try:
    from inspect_ai.util import (
        ExecResult,
        OutputLimitExceededError,
        SandboxEnvironment,
        SandboxEnvironmentLimits,
        SandboxUnavailableError,
        SandboxUserUnsupportedError,
        sandboxenv,
    )
except ImportError as error:
    raise missing_framework("inspect-ai", "inspect") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

_keeper = Keeper()
_open: set[AgentCubeSandboxEnvironment] = set()


@sandboxenv(name="agentcube")
class AgentCubeSandboxEnvironment(SandboxEnvironment):
    """One AgentCube session. It is deleted after its sample, and if this process dies before that."""

    def __init__(self, client: AsyncCodeInterpreterClient) -> None:
        super().__init__()
        self._client = client

    # The life of samples.

    @classmethod
    async def sample_init(
        cls, task_name: str, config: Any, metadata: Mapping[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Create a session. Raises what `AsyncCodeInterpreterClient.open` raises, and ValueError for a wrong config."""
        if config is not None and not isinstance(config, str):
            raise ValueError("The config of an agentcube sandbox is the name of a CodeInterpreter.")
        client = AsyncCodeInterpreterClient(
            config, keeper=_keeper, notes=SessionNotes(name=f"inspect {task_name}"[:100])
        )
        environment = cls(client)
        _open.add(environment)
        try:
            await client.open()
        except BaseException:
            await environment._stop()
            raise
        return {"default": environment}

    @classmethod
    async def sample_cleanup(
        cls, task_name: str, config: Any, environments: Mapping[str, SandboxEnvironment], interrupted: bool
    ) -> None:
        """Delete the sessions of a sample."""
        for environment in environments.values():
            await environment.as_type(cls)._stop()

    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:
        """Delete a session. Without an id there is nothing to do: what a dead process leaves is deleted by itself."""
        if id is not None:
            await AsyncCodeInterpreterClient(session_id=id).stop(force=True)

    async def _stop(self) -> None:
        try:
            await self._client.stop()
        finally:
            _open.discard(self)
            if not _open:
                _keeper.close()

    # What samples do.

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run a program; a timeout is not tried again, since a program may have done something already.

        Raises:
            SandboxUserUnsupportedError: there is a `user`.
            SandboxUnavailableError: the session is gone.
            TimeoutError, PermissionError, OutputLimitExceededError: as inspect-ai has them.
            AgentCubeError: the sandbox could not be asked.
        """
        if user is not None:
            raise SandboxUserUnsupportedError(
                f"A program cannot run as {user!r}: AgentCube's sandboxes have one user."
            )
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        try:
            done = await run_program(
                self._client,
                cmd,
                timeout=NO_TIMEOUT if timeout is None else timeout,
                folder=cwd or ".",
                env=env,
                input=input.encode() if isinstance(input, str) else input,
                limit=limit,
            )
        except SessionNotFoundError as error:
            raise SandboxUnavailableError(str(error)) from error
        if done.timed_out:
            raise TimeoutError(f"The command did not end within {timeout} s and was stopped.")
        if done.exit_code == 126 and "permission denied" in done.stderr.lower():
            raise PermissionError(f"The command may not be run: {done.stderr.strip()}")
        for output in (done.stdout, done.stderr):
            if len(output.encode()) > limit:
                raise OutputLimitExceededError(
                    limit_str=SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR,
                    truncated_output=output[:limit],
                )
        return ExecResult(done.exit_code == 0, done.exit_code, done.stdout, done.stderr)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file. Raises IsADirectoryError, PermissionError, or AgentCubeError when it could not be asked."""
        data = contents.encode() if isinstance(contents, str) else contents
        try:
            await write_anywhere(self._client, file, data)
        except RemoteStorageError as error:
            raise _permission(error) from error

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """Read a file.

        Raises:
            FileNotFoundError, IsADirectoryError, PermissionError, UnicodeDecodeError: as their names say.
            OutputLimitExceededError: it is larger than inspect-ai's limit.
        """
        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        try:
            data = await read_anywhere(self._client, file, max_bytes=limit)
        except RemoteStorageError as error:
            raise _permission(error) from error
        if len(data) > limit:
            raise OutputLimitExceededError(
                limit_str=SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, truncated_output=None
            )
        return data.decode() if text else data


def _permission(error: RemoteStorageError) -> Exception:
    return PermissionError(str(error)) if "permission denied" in str(error).lower() else error
