"""The Router's routes: find or create the session, pass the request on, name the session in the answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .sandboxes import AGENT_RUNTIME, CODE_INTERPRETER
from .wire import Answer, ManagerError, RouterError, accepts_gzip, compress, json_answer

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from .auth import Guard
    from .control import ControlPlane
    from .picod import PicoD
    from .sandboxes import Sandbox, SandboxStore

SESSION_HEADER = b"x-agentcube-session-id"

_RESOURCES = {CODE_INTERPRETER: "codeinterpreters", AGENT_RUNTIME: "agentruntimes"}


class Router:
    """Answers `/v1/namespaces/…/invocations/…`."""

    def __init__(self, store: SandboxStore, control: ControlPlane, picod: PicoD, guard: Guard) -> None:
        self._store, self._control, self._picod, self._guard = store, control, picod, guard
        self.in_flight = 0

    async def answer(
        self, kind: str, namespace: str, name: str, path: str, scope: Scope, receive: Receive
    ) -> Answer:
        """The answer to one invocation. Raises RouterError for what never reached a sandbox."""
        # Of several headers of one name the first counts, as in Go.
        headers = dict(reversed(scope["headers"]))
        session_id = headers.get(SESSION_HEADER, b"").decode("latin-1")
        self._authorise(headers, session_id)
        if self.in_flight >= self._store.config.max_concurrent:
            raise RouterError(429, "server overloaded, please try again later", "SERVER_OVERLOADED")
        self.in_flight += 1
        try:
            sandbox = self._find(session_id) if session_id else await self._create(kind, namespace, name)
            with sandbox.use():
                return await self._forward(sandbox, path, scope, receive)
        finally:
            self.in_flight -= 1

    def _authorise(self, headers: dict[bytes, bytes], session_id: str) -> None:
        problem = self._guard.problem(headers)
        if not problem:
            return
        known = b"authorization" not in headers and self._store.get(session_id) is not None
        if not (known and self._store.config.session_id_authorises):
            raise RouterError(401, problem, "UNAUTHORIZED")

    def _find(self, session_id: str) -> Sandbox:
        sandbox = self._store.get(session_id)
        if sandbox is None:
            error = f'sessions.agentcube.volcano.sh "{session_id}" not found'
            raise RouterError(
                404, error, None if self._store.config.legacy_not_found else "SESSION_NOT_FOUND"
            )
        return sandbox

    async def _create(self, kind: str, namespace: str, name: str) -> Sandbox:
        try:
            return await self._control.start(kind, namespace, name)
        except ManagerError as exc:
            if exc.status == 404:
                resource = f"{_RESOURCES[kind]}.agentcube.volcano.sh"
                raise RouterError(404, f'{resource} "{namespace}/{name}" not found') from exc
            raise RouterError(500, "internal server error") from exc

    async def _forward(self, sandbox: Sandbox, path: str, scope: Scope, receive: Receive) -> Answer:
        if sandbox.runtime is not None:
            answer = await sandbox.runtime.answer(path, scope, receive)
        else:
            answer = await self._daemon(sandbox, path, scope, receive)
        answer.headers.append((SESSION_HEADER, sandbox.session_id.encode()))
        return answer

    async def _daemon(self, sandbox: Sandbox, path: str, scope: Scope, receive: Receive) -> Answer:
        limit = self._store.config.max_body
        try:
            body = await read_body(scope, receive, limit=limit, timeout=self._store.config.upload_timeout)
        except BodyTooLarge as exc:
            answer = _too_large(exc, limit)
        else:
            answer = await self._picod.answer(sandbox, scope["method"], path, scope, body)
        if not answer.compressible or not accepts_gzip(scope):
            return answer
        return await asyncio.to_thread(compress, answer) if len(answer.body) > 1 << 18 else compress(answer)


class BodyTooLarge(Exception):
    """The request's body exceeds the limit; `announced` when its Content-Length already said so."""

    def __init__(self, *, announced: bool) -> None:
        super().__init__("request body too large")
        self.announced = announced


async def read_body(scope: Scope, receive: Receive, *, limit: int, timeout: float) -> bytes:
    """The whole request body.

    Raises BodyTooLarge, or RouterError(503) when it takes longer than `timeout` seconds.
    """
    if scope["method"] == "GET":
        return b""
    announced = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
    message = await asyncio.wait_for(receive(), timeout) if announced > 65536 else await receive()
    if not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge(announced=announced > limit)
        return body
    try:
        async with asyncio.timeout(timeout):
            return await _rest_of_body(message.get("body", b""), receive, limit, announced > limit)
    except TimeoutError as exc:
        raise RouterError(503, "sandbox unreachable") from exc


async def _rest_of_body(first: bytes, receive: Receive, limit: int, announced: bool) -> bytes:
    chunks, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RouterError(503, "sandbox unreachable")
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        # What is too much is read all the same and dropped: closing on a client that still writes would
        # hide the answer from it behind a reset connection.
        if size <= limit:
            chunks.append(message.get("body", b""))
        else:
            chunks.clear()
    if size > limit:
        raise BodyTooLarge(announced=announced)
    return b"".join(chunks)


def _too_large(exc: BodyTooLarge, limit: int) -> Answer:
    if exc.announced:
        detail = f"maximum allowed size is {limit} bytes"
        return json_answer(413, {"error": "request body too large", "detail": detail})
    return json_answer(400, {"error": "http: request body too large", "code": 400})
