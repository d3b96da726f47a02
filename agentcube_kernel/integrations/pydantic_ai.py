"""A sandbox as the workspace of pydantic-ai's agents, which later runs and other processes can find again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..arguments import NO_TIMEOUT, check_command
from ..client.code_interpreter import AsyncCodeInterpreterClient
from ..errors import ExchangeError, SessionNotFoundError
from ..sessions.creation import SessionNotes
from ..sessions.keeper import Keeper
from .commands import run_program
from .missing import missing_framework

try:
    from pydantic_ai.workspaces import (
        CommandResult,
        WorkspaceOutputLimitError,
        WorkspaceRef,
        WorkspaceTimeoutError,
        WorkspaceUnavailableError,
    )
except ImportError as error:
    raise missing_framework("pydantic-ai (2.68 or newer)", "pydantic-ai") from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..config import Settings
    from ..results import CommandResult as Result

PROVIDER = "agentcube"
_OUTPUT_LIMIT = 10 * 1024 * 1024


class AgentCubeWorkspace:
    """A workspace backend: `Workspace(AgentCubeWorkspace())`.

    Constructing does no I/O. The first call creates a session, or attaches to the one of `ref`. As pydantic-ai wants
    it, the session outlives runs and processes: `delete` ends it, or `agentcube-kernel sessions stop`, or its idle
    timeout. It belongs to the event loop that first uses it.

    Args:
        ref: attach to this session of an earlier run.
        settings: where AgentCube is; by default as the environment says.
    """

    def __init__(self, ref: WorkspaceRef | None = None, *, settings: Settings | None = None) -> None:
        if ref is not None and ref.provider != PROVIDER:
            raise ValueError(f"The workspace {ref.id} is not of {PROVIDER!r} but of {ref.provider!r}.")
        self._ref = ref
        self._keeper = Keeper()
        self._client = AsyncCodeInterpreterClient(
            settings=settings,
            session_id=None if ref is None else ref.id,
            keeper=self._keeper,
            notes=SessionNotes(name="pydantic-ai", keep=True),
        )
        self._working_dir: str | None = None

    def __repr__(self) -> str:
        return f"<AgentCubeWorkspace {self._client.session_id or 'without a session'}>"

    @property
    def ref(self) -> WorkspaceRef | None:
        """Names the session, for a later run; None until it is created."""
        if self._ref is None and self._client.session_id is not None:
            self._ref = WorkspaceRef(provider=PROVIDER, id=self._client.session_id)
        return self._ref

    async def working_dir(self) -> str:
        """The absolute path of the workspace. Raises like `run`."""
        if self._working_dir is None:
            done = await self._run(["pwd", "-P"], timeout=NO_TIMEOUT, env=None)
            self._working_dir = done.stdout.removesuffix("\n")
        return self._working_dir

    async def run(
        self,
        command: str | Sequence[str],
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        """Run a program (a sequence), or a command line (a str, with `shell`), in `working_dir`.

        Raises:
            WorkspaceUnavailableError: the session is gone.
            WorkspaceTimeoutError: it took longer than `timeout` seconds, and was stopped.
            WorkspaceOutputLimitError: it put out more than 10 MiB.
            TypeError, ValueError: wrong arguments.
            ExchangeError: the sandbox could not be asked.
        """
        if isinstance(command, str) is not shell:
            raise TypeError("command must be a str with shell=True, and a sequence of str without")
        if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
            raise ValueError("timeout must be a positive finite number or None")
        argv = ["sh", "-c", command] if isinstance(command, str) else check_command(command)
        done = await self._run(argv, timeout=NO_TIMEOUT if timeout is None else timeout, env=env)
        if done.timed_out:
            raise WorkspaceTimeoutError(f"The command did not end within {timeout:g} s and was stopped.")
        if max(len(done.stdout.encode()), len(done.stderr.encode())) > _OUTPUT_LIMIT:
            raise WorkspaceOutputLimitError(
                f"The command put out more than {_OUTPUT_LIMIT} bytes. Send its output to a file.",
                limit=_OUTPUT_LIMIT,
                stdout=done.stdout,
                stderr=done.stderr,
            )
        return CommandResult(exit_code=done.exit_code, stdout=done.stdout, stderr=done.stderr)

    async def close(self) -> None:
        """Close this side; the session lives on. Idempotent."""
        await self._client.close()
        self._keeper.close()

    async def delete(self) -> None:
        """Delete the session. Raises what the client's `stop` raises."""
        try:
            await self._client.stop(force=True)
        finally:
            self._keeper.close()

    async def _run(self, argv: list[str], *, timeout: float, env: Mapping[str, str] | None) -> Result:
        try:
            await self._client.open()
            # The session is written down, as one to be kept: there is nothing left to watch.
            self._keeper.close()
            done = await run_program(self._client, argv, timeout=timeout, env=env, limit=_OUTPUT_LIMIT)
            if done.exit_code < 0:
                await self._client.health()  # killed together with its sandbox, or alone
            return done
        except SessionNotFoundError as error:
            raise WorkspaceUnavailableError(str(error)) from error
        except ExchangeError as error:
            await self._raise_if_gone(error)
            raise

    async def _raise_if_gone(self, cause: ExchangeError) -> None:
        try:
            await self._client.health()
        except SessionNotFoundError as error:
            raise WorkspaceUnavailableError(str(error)) from cause
        except ExchangeError:
            return  # unknown: the first error says more
