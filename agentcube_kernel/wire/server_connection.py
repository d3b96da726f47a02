"""One authorised way to one server: send, judge the answer, renew the credential, try again."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, TypeVar

from .auth import Authorizer
from .endpoints import SESSION_HEADER
from .http import MAX_ANSWER_BYTES, Connections, HttpAnswer, HttpRequest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

    from .auth import AuthProvider
    from .retry import RetryPolicy

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
        largest: int = MAX_ANSWER_BYTES,
    ) -> T:
        """Send until `read` makes a result of an answer, as far as `retry` allows.

        `read` gets the answer whatever its status, and raises what is wrong with it. `timeout` is in seconds, for
        each attempt. An answer of more than `largest` bytes is a ResponseError.

        Raises:
            AgentCubeError: what `read` raised for the last answer, or why there was none.
        """

        async def attempt() -> T:
            token = await self._authorizer.token()
            answer = await self.connections.exchange(
                self._request(method, url, token, headers, body, timeout, largest), on_abandon=on_abandon
            )
            if (
                answer.status == 401
                and SESSION_HEADER not in answer.headers
                and self._authorizer.invalidate(token)
            ):
                logger.debug("401 from %s, trying once more with a new token", url)
                token = await self._authorizer.token()
                answer = await self.connections.exchange(
                    self._request(method, url, token, headers, body, timeout, largest), on_abandon=on_abandon
                )
            return read(answer)

        return await retry.call(attempt)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
        timeout: float | None,
    ) -> AsyncIterator[tuple[HttpAnswer, AsyncIterator[bytes]]]:
        """An answer's head, not judged, and its body in pieces. Not tried again but once after a 401."""
        token = await self._authorizer.token()
        async with contextlib.AsyncExitStack() as stack:
            request = self._request(method, url, token, headers, body, timeout)
            head, pieces = await stack.enter_async_context(self.connections.stream(request))
            if (
                head.status == 401
                and SESSION_HEADER not in head.headers
                and self._authorizer.invalidate(token)
            ):
                await stack.aclose()
                request = self._request(method, url, await self._authorizer.token(), headers, body, timeout)
                head, pieces = await stack.enter_async_context(self.connections.stream(request))
            yield head, pieces

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
        largest: int = MAX_ANSWER_BYTES,
    ) -> HttpRequest:
        authorization = () if token is None else (("authorization", f"Bearer {token}"),)
        return HttpRequest(method, url, self._headers + authorization + headers, body, timeout, largest)
