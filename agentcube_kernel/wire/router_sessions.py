"""Sessions that the Router creates: a request without a session header makes one, and its answer names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arguments import check_segment
from ..errors import ConfigurationError, Delivery, ExchangeError, SessionCreateError
from . import answers
from .control_plane import CREATE_TIMEOUT
from .endpoints import SESSION_HEADER, InvocationEndpoint
from .http import Connections
from .retry import RetryPolicy
from .server_connection import ServerConnection

if TYPE_CHECKING:
    from .auth import AuthProvider
    from .http import AsyncTransport, HttpAnswer


async def create_through_router(
    endpoint: InvocationEndpoint,
    path: str,
    *,
    auth: AuthProvider | None,
    connect_timeout: float,
    transport: AsyncTransport | None,
) -> str:
    """GET `path` without a session header and return the new session's id, whatever the sandbox answered.

    Raises:
        SessionCreateError: no session; with `delivery` UNKNOWN a sandbox may exist until its idle timeout.
        InterpreterNotFoundError, AuthenticationError, OverloadedError and others: as their names say.
    """

    def read(answer: HttpAnswer) -> str:
        session_id = answer.headers.get(SESSION_HEADER)
        if session_id is None:
            raise _without_session(answer, endpoint)
        try:
            return check_segment(session_id, name=SESSION_HEADER)
        except ConfigurationError:
            raise answers.wrong_shape(answer, f"a session id in {SESSION_HEADER}") from None

    server = ServerConnection(
        Connections(endpoint.base, limit=1, connect_timeout=connect_timeout, transport=transport), auth
    )
    try:
        return await RetryPolicy.ONCE_DELIVERED.call(
            lambda: server.send("GET", endpoint.url(path), read=read, timeout=CREATE_TIMEOUT)
        )
    finally:
        await server.aclose()


def _without_session(answer: HttpAnswer, endpoint: InvocationEndpoint) -> ExchangeError:
    error = answers.router_error(answer, endpoint, None)
    if answer.status < 500:
        return error
    # A session may have been made before the Router failed, so even its 502 must not be tried again here.
    words, _ = answers.error_text(answer)
    return SessionCreateError(
        f"The Router could not create a session for {endpoint.namespace}/{endpoint.name}: status {answer.status}"
        f"{f' ({words})' if words else ''}. If a sandbox was created nevertheless, AgentCube deletes it after its idle "
        "timeout.",
        status=answer.status,
        delivery=Delivery.UNKNOWN,
        url=answer.url,
    )
