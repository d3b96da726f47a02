"""One authorised way to one server: send, judge the answer, renew the credential, try again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from agentcube_kernel.client.auth import Authorizer
from agentcube_kernel.client.endpoints import SESSION_HEADER
from agentcube_kernel.client.http import Connections, HttpAnswer, HttpRequest
from agentcube_kernel.client.retry import RetryPolicy

if TYPE_CHECKING:
    import asyncio
    import contextlib
    from collections.abc import AsyncIterator, Callable

    from agentcube_kernel.client.auth import AuthProvider

logger = logging.getLogger("agentcube_kernel.http")

T = TypeVar("T")

JSON = ("content-type", "application/json")
# identity: with gzip the Router hides a body that was cut short, and ranges of files come out wrong.
_ALWAYS = (("accept-encoding", "identity"), ("user-agent", "agentcube-kernel"))


class Link:
    """Requests to one server with one credential. `headers` go with every request."""

    def __init__(
        self,
        connections: Connections,
        auth: AuthProvider | None,
        *,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.connections = connections
        self._authorizer = Authorizer(auth)
        self._headers = _ALWAYS + headers

    async def send(
        self,
        method: str,
        url: str,
        *,
        read: Callable[[HttpAnswer], T],
        body: bytes | tuple[bytes | memoryview, ...] = b"",
        headers: tuple[tuple[str, str], ...] = (),
        timeout: float | None,
        retry: RetryPolicy,
        on_abandon: Callable[[asyncio.Task[HttpAnswer]], None] | None = None,
    ) -> T:
        """Send until `read` makes a result of an answer, as far as `retry` allows.

        `read` gets the answer whatever its status, and raises what is wrong with it. `timeout` is in seconds, for
        each attempt.

        Raises:
            AgentCubeError: what `read` raised for the last answer, or why there was none.
        """

        async def attempt() -> T:
            token = await self._authorizer.token()
            answer = await self.connections.exchange(
                self._request(method, url, token, headers, body, timeout), on_abandon=on_abandon
            )
            if (
                answer.status == 401
                and SESSION_HEADER not in answer.headers
                and self._authorizer.invalidate(token)
            ):
                logger.debug("401 from %s, trying once more with a new token", url)
                token = await self._authorizer.token()
                answer = await self.connections.exchange(
                    self._request(method, url, token, headers, body, timeout), on_abandon=on_abandon
                )
            return read(answer)

        return await retry.call(attempt)

    async def stream(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
        timeout: float | None,
    ) -> contextlib.AbstractAsyncContextManager[tuple[HttpAnswer, AsyncIterator[bytes]]]:
        """One attempt whose body is read as it comes; the head is not judged."""
        token = await self._authorizer.token()
        return self.connections.stream(self._request(method, url, token, headers, body, timeout))

    def refresh(self) -> None:
        """Forget the credential's current token after a 401 in a stream."""
        self._authorizer.invalidate(getattr(self._authorizer.provider, "_token", None))

    async def aclose(self) -> None:
        """Close the connections."""
        await self.connections.aclose()

    def _request(
        self,
        method: str,
        url: str,
        token: str | None,
        headers: tuple[tuple[str, str], ...],
        body: bytes | tuple[bytes | memoryview, ...],
        timeout: float | None,
    ) -> HttpRequest:
        authorization = () if token is None else (("authorization", f"Bearer {token}"),)
        return HttpRequest(method, url, self._headers + authorization + headers, body, timeout)
