"""One authorised connection to one server: send a request, judge the answer, renew a refused credential once."""

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

logger = logging.getLogger("agentcube_kernel.http")

T = TypeVar("T")

JSON = ("content-type", "application/json")
# identity: with gzip the Router hides a body that was cut short, and ranges of files come out wrong.
_ALWAYS = (("accept-encoding", "identity"), ("user-agent", "agentcube-kernel"))


class ServerConnection:
    """Requests to one server with one credential. `headers` go with every request.

    Nothing is repeated here but a request that was refused with 401, once, with a new token. Repeating a failed
    exchange is the caller's matter: `RetryPolicy.call` does it.
    """

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
        on_abandon: Callable[[asyncio.Task[HttpAnswer]], None] | None = None,
        largest: int = MAX_ANSWER_BYTES,
    ) -> T:
        """Make one exchange and return what `read` makes of its answer.

        `read` gets the answer whatever its status, and raises what is wrong with it. `timeout` is in seconds; None
        is no limit. An answer of more than `largest` bytes is a ResponseError. `on_abandon` is called with the
        exchange's task when the call ends before the exchange does.

        Raises:
            AgentCubeError: what `read` raised, or why there was no answer.
        """
        token = await self._authorizer.token()
        request = HttpRequest(method, url, self._headers + headers, body, timeout, token, largest)
        answer = await self.connections.exchange(request, on_abandon=on_abandon)
        if self._refused(answer) and self._authorizer.invalidate(token):
            logger.debug("401 from %s, trying once more with a new token", url)
            token = await self._authorizer.token()
            request = HttpRequest(method, url, self._headers + headers, body, timeout, token, largest)
            answer = await self.connections.exchange(request, on_abandon=on_abandon)
        return read(answer)

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
        """An answer's head, not judged, and its body in pieces, from one exchange."""
        token = await self._authorizer.token()
        async with contextlib.AsyncExitStack() as stack:
            request = HttpRequest(method, url, self._headers + headers, body, timeout, token)
            head, pieces = await stack.enter_async_context(self.connections.stream(request))
            if self._refused(head) and self._authorizer.invalidate(token):
                await stack.aclose()
                token = await self._authorizer.token()
                request = HttpRequest(method, url, self._headers + headers, body, timeout, token)
                head, pieces = await stack.enter_async_context(self.connections.stream(request))
            yield head, pieces

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self.connections.aclose()

    @staticmethod
    def _refused(answer: HttpAnswer) -> bool:
        """True for a 401 of the server itself; a 401 of a program in the sandbox says nothing about the credential."""
        return answer.status == 401 and SESSION_HEADER not in answer.headers
