"""Sessions: created and deleted at the WorkloadManager, or created by the Router."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from ..arguments import check_segment, check_timeout, check_url
from ..config import Settings
from ..errors import (
    ArgumentTypeError,
    ConfigurationError,
    Delivery,
    ExchangeError,
    PermissionDeniedError,
    ResponseError,
    ServerError,
    SessionCreateError,
    SessionDeleteError,
)
from . import answers
from .auth import explicit_auth, resolve_workload_manager_auth
from .endpoints import create_url, delete_url
from .http import DEFAULT_CONNECT_TIMEOUT, Connections
from .retry import RetryPolicy
from .server_connection import JSON, ServerConnection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from ..config import Credentials
    from .auth import AuthProvider
    from .endpoints import Kind
    from .http import AsyncTransport, HttpAnswer

logger = logging.getLogger("agentcube_kernel.control_plane")

# The WorkloadManager itself gives up after two minutes.
CREATE_TIMEOUT = 130.0


class AsyncControlPlaneClient:
    """Creates and deletes sessions at the WorkloadManager.

    The URL is `workload_manager_url` or `WORKLOAD_MANAGER_URL`; it is never guessed. The credential is `auth`,
    `auth_token` or what `credentials` names; only when none of the three is given it is what the environment names, the
    pod's service-account token last.
    """

    def __init__(
        self,
        workload_manager_url: str | None = None,
        auth_token: str | None = None,
        timeout: float = 120,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        *,
        auth: AuthProvider | None = None,
        credentials: Credentials | None = None,
        max_connections: int = 10,
        transport: AsyncTransport | None = None,
    ) -> None:
        provider = explicit_auth(auth, auth_token)
        if workload_manager_url is None or (provider is None and credentials is None):
            found = Settings.load()
            workload_manager_url = workload_manager_url or found.workload_manager_url
            credentials = credentials or found.credentials
        if workload_manager_url is None:
            raise ConfigurationError(
                "No WorkloadManager is known: give workload_manager_url or set WORKLOAD_MANAGER_URL.",
                name="workload_manager_url",
            )
        self.base_url = check_url(workload_manager_url, name="workload_manager_url")
        self.timeout = check_timeout(timeout, default=120.0)
        if provider is None and credentials is not None:
            provider = resolve_workload_manager_auth(credentials)
        connections = Connections(
            self.base_url,
            limit=max_connections,
            connect_timeout=check_timeout(
                connect_timeout, name="connect_timeout", default=DEFAULT_CONNECT_TIMEOUT
            ),
            transport=transport,
        )
        self._server = ServerConnection(connections, provider)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    async def __aenter__(self) -> AsyncControlPlaneClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def create_session(
        self,
        name: str = "my-interpreter",
        namespace: str = "default",
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        *,
        kind: Kind = "code-interpreter",
    ) -> str:
        """Create a session and return its id.

        Waits until the sandbox is ready, which AgentCube allows two minutes for. `ttl` is the session's longest
        lifetime in seconds, capped by the cluster; versions of AgentCube before August 2026 ignore it. A
        cancelled call may leave an orphaned sandbox, which AgentCube deletes after its idle timeout.

        Raises:
            InterpreterNotFoundError: the cluster has no such CodeInterpreter or AgentRuntime.
            SessionCreateError: creation failed; with `delivery` UNKNOWN a sandbox may exist until its idle timeout.
            AuthenticationError, PermissionDeniedError, ConnectionFailedError, ResponseError: as their names say.
        """
        check_segment(name, name="name")
        check_segment(namespace, name="namespace")
        content: dict[str, Any] = {"name": name, "namespace": namespace, "metadata": dict(metadata or {})}
        if ttl is not None:
            content["ttl"] = check_ttl(ttl)
        body = _json(content, name="metadata")

        def read(answer: HttpAnswer) -> str:
            if answer.status not in (200, 201):
                raise _create_error(answer, kind, name, namespace)
            return _session_id(answer)

        try:
            return await RetryPolicy.ONCE_DELIVERED.call(
                lambda: self._server.send(
                    "POST",
                    create_url(self.base_url, kind),
                    read=read,
                    body=body,
                    headers=(JSON,),
                    timeout=max(self.timeout, CREATE_TIMEOUT),
                )
            )
        except ExchangeError as error:
            if error.delivery is Delivery.UNKNOWN and not isinstance(error, SessionCreateError):
                error.add_note(
                    "A sandbox may have been created nevertheless; AgentCube deletes it after its idle timeout."
                )
            raise

    async def delete_session(self, session_id: str, *, kind: Kind = "code-interpreter") -> bool:
        """Delete a session. True when it was there, False when it was gone already; both are success.

        Raises:
            SessionDeleteError: it could not be deleted and may still be running.
        """
        check_segment(session_id, name="session_id")

        def read(answer: HttpAnswer) -> bool:
            if answer.status in (200, 202, 204) and not answers.looks_like_html(answer):
                return True
            if answer.status == 404 and not _is_unknown_route(answer):
                return False
            raise _refusal(answer, session_id)

        try:
            url = delete_url(self.base_url, kind, session_id)
            return await RetryPolicy.IDEMPOTENT.call(
                lambda: self._server.send("DELETE", url, read=read, timeout=self.timeout)
            )
        except ExchangeError as error:
            raise SessionDeleteError(
                f"Session {session_id} could not be deleted and may still be running: {error} "
                f"Delete it later with: agentcube-kernel sessions stop {session_id}",
                session_id=session_id,
                status=error.status,
                delivery=error.delivery,
                url=error.url,
                transient=error.transient,
            ) from error

    async def health(self) -> bool:
        """True when the WorkloadManager says that it is healthy.

        Raises:
            ExchangeError: it cannot be reached or answers something else.
        """

        def read(answer: HttpAnswer) -> bool:
            if answer.status != 200:
                raise _refusal(answer, None)
            return answers.json_object(answer).get("status") == "healthy"

        return await self._server.send(
            "GET",
            f"{self.base_url}/health",
            read=read,
            timeout=min(self.timeout, 10.0),
        )

    async def close(self) -> None:
        """Close the connections. Idempotent; deletes nothing."""
        await self._server.aclose()

    aclose = close


def check_ttl(ttl: object) -> int:
    """A lifetime as whole seconds.

    Raises:
        ConfigurationError: not a number, or less than a second.
    """
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise ArgumentTypeError(f"ttl must be seconds as a number, not {type(ttl).__name__}.", name="ttl")
    if not 1 <= ttl < 1e10:
        raise ConfigurationError(f"ttl must be at least 1 second, not {ttl!r}.", name="ttl")
    return int(ttl)


def _json(content: Mapping[str, Any], *, name: str) -> bytes:
    try:
        return json.dumps(content).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name} cannot be sent as JSON: {error}.", name=name) from None


def _session_id(answer: HttpAnswer) -> str:
    session_id = answers.json_object(answer).get("sessionId")
    try:
        return check_segment(session_id, name="sessionId")
    except ConfigurationError:
        raise answers.wrong_shape(answer, "an object with a sessionId") from None


def _is_unknown_route(answer: HttpAnswer) -> bool:
    return answer.headers.get("content-type", "").startswith("text/")


def _create_error(answer: HttpAnswer, kind: Kind, name: str, namespace: str) -> ExchangeError:
    words, _ = answers.error_text(answer)
    details: dict[str, Any] = {"status": answer.status, "url": answer.url}
    if answer.status == 404 and not _is_unknown_route(answer):
        return answers.interpreter_not_found(kind, name, namespace, {**details, "delivery": Delivery.NEVER})
    if answer.status == 504:
        return SessionCreateError(
            f"The sandbox for {namespace}/{name} was not ready within two minutes ({words}). The cluster may lack "
            "capacity, or cannot pull the image; ask its administrator, or try again later.",
            **details,
        )
    if answer.status >= 500:
        return SessionCreateError(
            f"The WorkloadManager could not create a session for {namespace}/{name}: status {answer.status}"
            f"{f' ({words})' if words else ''}. Its log says why.",
            **details,
        )
    return _refusal(answer, None)


def _refusal(answer: HttpAnswer, session_id: str | None) -> ExchangeError:
    """The error for a status that creating and deleting share."""
    words, _ = answers.error_text(answer)
    status = answer.status
    details: dict[str, Any] = {"session_id": session_id, "status": status, "url": answer.url}
    never = {**details, "delivery": Delivery.NEVER}
    if status < 300:
        return answers.not_json(answer, session_id=session_id)
    if status < 400:
        return answers.redirected(answer, never)
    if status == 401:
        return answers.unauthorised("the WorkloadManager", never)
    if status == 403:
        return PermissionDeniedError(
            "The WorkloadManager refused access. Its credential needs the right to create and delete sandboxes in "
            "this namespace; ask the cluster's administrator.",
            **never,
        )
    if status == 429:
        return answers.overloaded(answer, words, never)
    if status >= 500:
        return ServerError(
            f"The WorkloadManager failed with status {status}{f' ({words})' if words else ''}.",
            **details,
            transient=status in (500, 502, 503, 504),
        )
    if status == 404:
        return ResponseError(
            f"{answer.url} does not exist (404). Check that WORKLOAD_MANAGER_URL is the WorkloadManager's base URL.",
            **never,
        )
    return SessionCreateError(
        f"The WorkloadManager answered {status}{f' ({words})' if words else ''}.", **never
    )
