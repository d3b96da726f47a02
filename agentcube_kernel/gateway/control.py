"""The WorkloadManager's routes: create and delete sessions."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING

from .runtime import RuntimeFailed, start_runtime
from .sandboxes import AGENT_RUNTIME, CODE_INTERPRETER
from .wire import Answer, ManagerError, json_answer

if TYPE_CHECKING:
    from .sandboxes import Sandbox, SandboxStore

_log = logging.getLogger("agentcube_kernel.gateway")

_KUBERNETES_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_NOT_FOUND = {CODE_INTERPRETER: "code interpreter not found", AGENT_RUNTIME: "agent runtime not found"}


class ControlPlane:
    """Creates and deletes sessions as the WorkloadManager does."""

    def __init__(self, store: SandboxStore, endpoint: str) -> None:
        self._store = store
        self.endpoint = endpoint

    async def create(self, kind: str, body: bytes) -> Answer:
        """POST /v1/code-interpreter and /v1/agent-runtime."""
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            raise ManagerError(400, "Invalid request body")
        name, namespace, ttl = (request.get(key) for key in ("name", "namespace", "ttl"))
        if not all(value is None or isinstance(value, str) for value in (name, namespace)):
            raise ManagerError(400, "Invalid request body")
        if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int) or ttl < 0):
            raise ManagerError(400, "Invalid request body")
        if not namespace:
            raise ManagerError(400, "namespace is required")
        if not name:
            raise ManagerError(400, "name is required")
        sandbox = await self.start(kind, namespace, name, ttl=float(ttl) if ttl else None)
        return json_answer(
            200,
            {
                "kind": "Sandbox",
                "sessionId": sandbox.session_id,
                "sandboxId": sandbox.sandbox_id,
                "sandboxName": sandbox.sandbox_name,
                "entryPoints": [{"path": "/", "protocol": "HTTP", "endpoint": self.endpoint}],
            },
        )

    async def start(self, kind: str, namespace: str, name: str, *, ttl: float | None = None) -> Sandbox:
        """A new session. Raises ManagerError: 404 for an unknown resource, 500 when it cannot be started."""
        if not self._known(kind, namespace, name):
            raise ManagerError(404, _NOT_FOUND[kind])
        try:
            sandbox = await self._store.create(kind, namespace, name, ttl)
        except OSError as exc:
            _log.warning("no sandbox could be made: %s", exc)
            raise ManagerError(500, f"the embedded gateway cannot make a sandbox: {exc}") from exc
        if kind == AGENT_RUNTIME:
            try:
                sandbox.runtime = await start_runtime(
                    name,
                    self._store.config.runtime_command,
                    self._store.children,
                    folder=sandbox.folder,
                    env=sandbox.env,
                )
            except BaseException as exc:
                await self._store.delete(sandbox.session_id)
                if isinstance(exc, RuntimeFailed):
                    _log.warning("agent runtime %s/%s: %s", namespace, name, exc)
                    raise ManagerError(500, "internal server error") from exc
                raise
        return sandbox

    async def delete(self, session_id: str) -> Answer:
        """DELETE /v1/…/sessions/:id, whatever kind the session is of."""
        if not await self._store.delete(session_id):
            raise ManagerError(404, f"Session ID {session_id} not found, maybe already deleted")
        return json_answer(200, {"message": "Sandbox deleted successfully"})

    def _known(self, kind: str, namespace: str, name: str) -> bool:
        config = self._store.config
        allowed = config.interpreters if kind == CODE_INTERPRETER else config.runtimes
        if allowed is not None:
            return name in allowed or f"{namespace}/{name}" in allowed
        return all(_KUBERNETES_NAME.fullmatch(part) for part in (name, namespace))
