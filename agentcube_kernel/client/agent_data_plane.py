"""Invocations of one AgentRuntime, through the Router."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..arguments import check_segment, check_text, check_timeout
from ..errors import (
    ConfigurationError,
    Delivery,
    InvocationError,
    ResponseError,
)
from ..timings import Timings
from ..wire import answers
from ..wire.auth import explicit_auth
from ..wire.data_plane import DEFAULT_TIMEOUT
from ..wire.endpoints import SESSION_HEADER, InvocationEndpoint
from ..wire.heartbeat import Heartbeat
from ..wire.http import DEFAULT_CONNECT_TIMEOUT, DEFAULT_LIMIT, Connections, HttpAnswer
from ..wire.retry import RetryPolicy
from ..wire.router_sessions import create_through_router
from ..wire.server_connection import JSON, ServerConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping
    from types import TracebackType

    from ..wire.auth import AuthProvider
    from ..wire.http import AsyncTransport

_LONGEST_ERROR = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What an agent answered. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The content decoded as UTF-8; invalid bytes are replaced."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The content as JSON.

        Raises:
            ValueError: the content is not JSON.
        """
        return json.loads(self.content)


class InvocationStream:
    """An agent's answer as it arrives: an asynchronous iterator of text.

    `lines()` gives whole lines instead, `chunks()` bytes. It can be read once, by one of the three.
    """

    def __init__(self, head: HttpAnswer, pieces: AsyncIterator[bytes]) -> None:
        self.status = head.status
        self.headers = head.headers
        self._pieces = pieces

    def __repr__(self) -> str:
        return f"<InvocationStream {self.status} {self.headers.get('content-type', '')}>"

    def chunks(self) -> AsyncIterator[bytes]:
        """The content as bytes, piece by piece as it arrives.

        Raises:
            ResponseError: it was cut short.
        """
        return self._pieces

    async def __aiter__(self) -> AsyncIterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        async for piece in self._pieces:
            if text := decoder.decode(piece):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    async def lines(self) -> AsyncIterator[str]:
        """The content line by line, without line ends, as server-sent events need it."""
        left = ""
        async for text in self:
            left += text
            *lines, left = left.split("\n")
            for line in lines:
                yield line.removesuffix("\r")
        if left:
            yield left


class AsyncAgentRuntimeDataPlaneClient:
    """Invokes the sessions of one AgentRuntime. `timeout` (seconds) is the default of every call."""

    SESSION_HEADER = SESSION_HEADER

    def __init__(
        self,
        router_url: str,
        namespace: str,
        agent_name: str,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        *,
        auth: AuthProvider | None = None,
        max_connections: int = DEFAULT_LIMIT,
        timings: Timings | None = None,
        transport: AsyncTransport | None = None,
    ) -> None:
        self._timings = timings or Timings()
        self.endpoint = InvocationEndpoint.through_router(
            router_url, kind="agent-runtime", name=agent_name, namespace=namespace
        )
        self.timeout = check_timeout(timeout, default=DEFAULT_TIMEOUT)
        self.connect_timeout = check_timeout(
            connect_timeout, name="connect_timeout", default=DEFAULT_CONNECT_TIMEOUT
        )
        self._auth = explicit_auth(auth, None)
        self._transport = transport
        self._server = ServerConnection(
            Connections(
                self.endpoint.base,
                limit=max_connections,
                connect_timeout=self.connect_timeout,
                transport=transport,
            ),
            self._auth,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.endpoint.namespace}/{self.endpoint.name}>"

    async def __aenter__(self) -> AsyncAgentRuntimeDataPlaneClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def bootstrap_session_id(self) -> str:
        """Have the Router create a session and return its id, whatever the agent answers to the request for it.

        Raises:
            SessionCreateError: no session; with `delivery` UNKNOWN a sandbox may exist until its idle timeout.
            InterpreterNotFoundError: the cluster has no such AgentRuntime.
            AuthenticationError, PermissionDeniedError, ConnectionFailedError: as their names say.
        """
        return await create_through_router(
            self.endpoint,
            "",
            auth=self._auth,
            connect_timeout=self.connect_timeout,
            transport=self._transport,
        )

    async def invoke(
        self, session_id: str, payload: Mapping[str, Any], timeout: float | None = None, path: str = ""
    ) -> Invocation:
        """POST `payload` as JSON to a path of the agent, and return its answer.

        `timeout` is in seconds; None is the client's default and `NO_TIMEOUT` no limit. The session is kept from
        idling out while this waits. A call that is cancelled or times out does not stop the agent.

        Raises:
            InvocationError: the agent answered with an error status.
            SessionNotFoundError: the session is gone.
            ExchangeError: the agent could not be asked; `delivery` tells whether it may have been.
        """
        seconds = check_timeout(timeout, default=self.timeout)
        headers = ((SESSION_HEADER, check_segment(session_id, name="session_id")), JSON)
        url, body = self._url(path), _payload(payload)

        def attempt() -> Awaitable[Invocation]:
            return self._server.send(
                "POST",
                url,
                read=lambda answer: self._read(answer, session_id),
                body=body,
                headers=headers,
                timeout=None if math.isinf(seconds) else seconds,
            )

        if seconds <= self._timings.keep_awake:
            return await RetryPolicy.ONCE_DELIVERED.call(attempt)
        async with self._heartbeat(session_id):
            return await RetryPolicy.ONCE_DELIVERED.call(attempt)

    @contextlib.asynccontextmanager
    async def invoke_stream(
        self, session_id: str, payload: Mapping[str, Any], timeout: float | None = None, path: str = ""
    ) -> AsyncIterator[InvocationStream]:
        """As `invoke`, with the answer as it arrives.

        `timeout` is the longest pause between two pieces, in seconds. Leaving the `async with` hangs up.

        Raises:
            ResponseError: while reading, when the answer is cut short.
            AgentCubeError: as `invoke`.
        """
        seconds = check_timeout(timeout, default=self.timeout)
        headers = ((SESSION_HEADER, check_segment(session_id, name="session_id")), JSON)
        stream = self._server.stream(
            "POST",
            self._url(path),
            body=_payload(payload),
            headers=headers,
            timeout=None if math.isinf(seconds) else seconds,
        )
        async with self._heartbeat(session_id), stream as (head, pieces):
            if head.status >= 300 or not answers.from_sandbox(head, self.endpoint):
                self._read(await answers.with_body(head, pieces, limit=_LONGEST_ERROR), session_id)
            yield InvocationStream(head, pieces)

    async def close(self) -> None:
        """Close the connections; sessions live on. Idempotent."""
        await self._server.aclose()

    aclose = close

    def _heartbeat(self, session_id: str) -> Heartbeat:
        return Heartbeat(lambda: self._touch(session_id), interval=self._timings.keep_awake)

    async def _touch(self, session_id: str) -> None:
        # Any answer will do: what counts is that the Router saw a request for the session.
        await self._server.send(
            "GET",
            self.endpoint.url("health"),
            read=lambda answer: None,
            headers=((SESSION_HEADER, session_id),),
            timeout=10.0,
        )

    def _url(self, path: str) -> str:
        plain, mark, query = check_text(path, name="path").partition("?")
        plain = plain.lstrip("/")
        if ".." in plain.split("/") or "\0" in plain:
            raise ConfigurationError(f"path must not lead out of the agent: {path!r}.", name="path")
        return self.endpoint.url(
            quote(plain, safe="/:@!$&'()*+,;=~") + mark + quote(query, safe="/:@!$&'()*+,;=~?%")
        )

    def _read(self, answer: HttpAnswer, session_id: str) -> Invocation:
        if not answers.from_sandbox(answer, self.endpoint):
            raise answers.router_error(answer, self.endpoint, session_id)
        if 300 <= answer.status < 400:
            raise answers.redirected(
                answer,
                {
                    "session_id": session_id,
                    "status": answer.status,
                    "url": answer.url,
                    "delivery": Delivery.DELIVERED,
                },
            )
        if answer.status >= 400:
            words, _ = answers.error_text(answer)
            raise InvocationError(
                f"The agent {self.endpoint.namespace}/{self.endpoint.name} answered with status {answer.status}"
                f"{f' ({words})' if words else ''}.",
                content=answer.body,
                session_id=session_id,
                status=answer.status,
                delivery=Delivery.DELIVERED,
                url=answer.url,
            )
        return Invocation(status=answer.status, headers=answer.headers, content=answer.body)


def json_or_text(answer: Invocation, session_id: str | None) -> Any:
    """The JSON that an agent answered with, or its text.

    Raises:
        ResponseError: it says that it is JSON and was cut short.
    """
    try:
        return answer.json()
    except ValueError:
        if (
            answer.headers.get("content-type", "").split(";")[0].strip() == "application/json"
            and answer.content
        ):
            raise ResponseError(
                f"The agent's answer claims to be JSON and is not; {len(answer.content)} bytes came, and it was "
                "probably cut short.",
                session_id=session_id,
                status=answer.status,
                delivery=Delivery.DELIVERED,
            ) from None
        return answer.text


def _payload(payload: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"payload cannot be sent as JSON: {error}.", name="payload") from None
