"""Sandboxes for Deep Agents Code, which finds this module by its entry point: `--sandbox agentcube`."""

from __future__ import annotations

from typing import Any

from ..client.code_interpreter import AsyncCodeInterpreterClient
from ..errors import AgentCubeError, SessionNotFoundError
from ..sync_sandbox import Sandbox
from .missing import missing_framework

try:
    from deepagents_code.integrations.sandbox_provider import (
        SandboxError,
        SandboxNotFoundError,
        SandboxProvider,
        SandboxProviderMetadata,
    )

    from .deepagents import AgentCubeBackend
except ImportError as error:
    raise missing_framework("deepagents-code", "deepagents-code") from error


class AgentCubeProvider(SandboxProvider):
    """Creates sandboxes, finds them by the ids of their sessions, and deletes them."""

    @property
    def metadata(self) -> SandboxProviderMetadata:
        """What Deep Agents Code shows; the working folder is that of AgentCube's own image."""
        return SandboxProviderMetadata(name="agentcube", working_dir="/workspace")

    def get_or_create(self, *, sandbox_id: str | None = None, **kwargs: Any) -> AgentCubeBackend:
        """A backend on a new session, or on one that exists.

        Raises:
            SandboxNotFoundError: there is no such session.
            SandboxError: a session could not be created or reached.
        """
        given = None
        if sandbox_id is not None:
            given = Sandbox(AsyncCodeInterpreterClient(session_id=sandbox_id))
        backend = AgentCubeBackend(given)
        try:
            backend.sandbox.open()
        except AgentCubeError as error:
            backend.sandbox.close()
            backend.close()
            kind = SandboxNotFoundError if isinstance(error, SessionNotFoundError) else SandboxError
            raise kind(str(error)) from error
        return backend

    def delete(self, *, sandbox_id: str, **kwargs: Any) -> None:
        """Delete a session; one that is gone already counts as deleted. Raises SandboxError when that fails."""
        try:
            Sandbox(AsyncCodeInterpreterClient(session_id=sandbox_id)).stop(force=True)
        except AgentCubeError as error:
            raise SandboxError(str(error)) from error
