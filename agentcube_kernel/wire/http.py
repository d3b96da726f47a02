"""HTTP exchanges with one server. The only module that imports the HTTP library.

Cancelling a request inside httpcore 1.0 under contention loses pool connections for good
(encode/httpcore#1093), so an exchange runs in a task of its own here and a cancelled caller only stops waiting
for it: the exchange goes on to its end, and gives its place in the limiter back only then.

The library is imported by the first exchange: it takes as long to import as everything else of this package together.
httpx2, a fork with the same interface, is used instead of httpx where `AGENTCUBE_HTTP_LIBRARY=httpx2` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import math
import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import (
    ClientStateError,
    ConfigurationError,
    ConnectionFailedError,
    Delivery,
    ExchangeError,
    ResponseError,
)
from ..timings import Timings
from .endpoints import proxy_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import ModuleType

    import httpx

    from ..secret import Secret

    AsyncTransport = httpx.AsyncBaseTransport

logger = logging.getLogger("agentcube_kernel.http")

# Load balancers commonly close idle connections after 60 s and AgentCube's Router after 90 s; leaving first keeps
# a request from being sent into a connection that is just being closed.
KEEPALIVE_SECONDS = 45.0
DEFAULT_CONNECT_TIMEOUT = Timings().connect
DEFAULT_LIMIT = 100
MAX_ANSWER_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. `url` is complete and quoted; `headers` are lower-case names with their values."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | tuple[bytes | memoryview, ...] = field(default=b"", repr=False)
    timeout: float | None = 120.0
    """Seconds without a byte from the server, and for the whole exchange; None for no limit."""
    credential: Secret | None = None
    """The bearer token to send."""
    largest: int = MAX_ANSWER_BYTES
    """The most bytes that a whole answer may have; a stream has no limit here."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One complete answer. Header names are lower-case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    url: str
    credential: Secret | None = None
    """The bearer token that was sent, never to be quoted from the answer."""


class Connections:
    """The connections of one client to one server, kept alive between requests.

    At most `limit` exchanges are in flight; more wait their turn. It belongs to the event loop it is first used
    on. `transport` takes the place of the network, for tests and special networks, and is not closed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        limit: int = DEFAULT_LIMIT,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        transport: AsyncTransport | None = None,
    ) -> None:
        self._base_url = base_url
        self._connect_timeout = connect_timeout
        self._limit = limit
        self._injected = transport
        self._transport: AsyncTransport | None = None
        self._slots = asyncio.Semaphore(limit)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exchanges: set[asyncio.Task[HttpAnswer]] = set()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._transport else "new"
        return f"<Connections {self._base_url} {state}, {self.in_flight} of {self._limit} in flight>"

    @property
    def in_flight(self) -> int:
        """Exchanges that have not ended, abandoned ones included."""
        return len(self._exchanges)

    async def exchange(
        self, request: HttpRequest, *, on_abandon: Callable[[asyncio.Task[HttpAnswer]], None] | None = None
    ) -> HttpAnswer:
        """Send a request and return the whole answer, whatever its status.

        When the caller is cancelled or `request.timeout` passes, the exchange goes on behind it; `on_abandon`
        is then called with its task.

        Raises:
            ConnectionFailedError: no answer; `delivery` tells whether the request may have been received.
            ResponseError: the answer was cut short or is too large.
            ClientStateError: closed, or used on another event loop.
        """
        self._check_usable()
        await self._slots.acquire()
        if self._closed:
            self._slots.release()
            self._check_usable()
        task = asyncio.get_running_loop().create_task(self._exchange(request))
        self._exchanges.add(task)
        task.add_done_callback(self._ended)
        try:
            if request.timeout is None:
                return await asyncio.shield(task)
            async with asyncio.timeout(request.timeout):
                return await asyncio.shield(task)
        except (TimeoutError, asyncio.CancelledError) as error:
            if task.done() and not task.cancelled() and not isinstance(error, asyncio.CancelledError):
                return task.result()
            if self._closed and task.cancelled():
                raise ClientStateError("The client was closed while the request was in flight.") from None
            if on_abandon is not None and not task.done():
                on_abandon(task)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise _no_answer(request) from None
        finally:
            # A failed task, its error, the error's traceback and this frame would keep each other, and the request's
            # body, alive until the garbage collector comes by.
            del task

    @contextlib.asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[tuple[HttpAnswer, AsyncIterator[bytes]]]:
        """Send a request and hand out the answer's head (with an empty body) and its body in pieces.

        The stream has a connection of its own, which ends with the context however it is left, so cancelling it
        cannot harm other requests. Reading the body raises what `exchange` raises.
        """
        self._check_usable()
        async with self._slots:
            self._check_usable()
            transport = self._injected or self._new_transport(keepalive=False)
            try:
                response = await self._send(transport, request)
                try:
                    head = HttpAnswer(
                        response.status_code, _headers(response), b"", request.url, request.credential
                    )
                    yield head, _pieces(response, request, bounded=False)
                finally:
                    await response.aclose()
            finally:
                if transport is not self._injected:
                    await transport.aclose()

    async def aclose(self) -> None:
        """Close every connection; exchanges still in flight end with an error. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for task in self._exchanges:
            task.cancel()
        if self._exchanges:
            await asyncio.wait(set(self._exchanges))
        if self._transport is not None and self._transport is not self._injected:
            await self._transport.aclose()

    async def _exchange(self, request: HttpRequest) -> HttpAnswer:
        if self._transport is None:
            self._transport = self._injected or self._new_transport()
        response = await self._send(self._transport, request)
        try:
            parts = [piece async for piece in _pieces(response, request)]
        finally:
            await response.aclose()
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return HttpAnswer(response.status_code, _headers(response), body, request.url, request.credential)

    async def _send(self, transport: AsyncTransport, request: HttpRequest) -> httpx.Response:
        library = http_library()
        try:
            return await transport.handle_async_request(_outgoing(request, self._connect_timeout))
        except (library.TransportError, OSError) as error:
            raise _connection_failed(error, request) from _without_frames(error)

    def _new_transport(self, *, keepalive: bool = True) -> AsyncTransport:
        library = http_library()
        try:
            transport: AsyncTransport = library.AsyncHTTPTransport(
                verify=_tls_context() if self._base_url.startswith("https") else _no_tls_context(),
                trust_env=False,
                proxy=proxy_for(self._base_url),
                # The limiter is ours: a request must never wait for a connection without our knowing why.
                limits=library.Limits(
                    max_connections=None,
                    max_keepalive_connections=self._limit if keepalive else 0,
                    keepalive_expiry=KEEPALIVE_SECONDS,
                ),
            )
            return transport
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"The proxy from the environment cannot be used for {self._base_url}: {error} "
                "Correct HTTP_PROXY/HTTPS_PROXY/ALL_PROXY, or add the host to NO_PROXY.",
                name="ALL_PROXY",
            ) from None

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientStateError("The client is closed. Create a new one.")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ClientStateError(
                "The client belongs to another event loop. Use one client per event loop, or the synchronous client."
            )

    def _ended(self, task: asyncio.Task[HttpAnswer]) -> None:
        self._exchanges.discard(task)
        self._slots.release()
        if not task.cancelled():
            task.exception()  # an abandoned exchange's failure is of no interest to anyone


async def _pieces(
    response: httpx.Response, request: HttpRequest, *, bounded: bool = True
) -> AsyncIterator[bytes]:
    """The body as it arrives, bounded in size and time unless it is a stream.

    Raises:
        ResponseError: it ended early, or is too large.
    """
    library = http_library()
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        # Only identity is ever asked for. A few kilobytes of gzip can unpack to gigabytes.
        raise ResponseError(
            f"The answer from {request.url} has the encoding {encoding[:40]!r}, which was not asked for.",
            status=response.status_code,
            delivery=Delivery.DELIVERED,
            url=request.url,
        )
    deadline = math.inf
    if bounded and request.timeout is not None:
        # A caller has stopped waiting by then; a body that drips on must not hold its connection for ever.
        deadline = asyncio.get_running_loop().time() + request.timeout + 1
    received = 0
    try:
        async for piece in response.stream:  # type: ignore[union-attr]  # always asynchronous here
            received += len(piece)
            if bounded and received > request.largest:
                raise ResponseError(
                    f"The answer from {request.url} is larger than {request.largest >> 20} MiB.",
                    status=response.status_code,
                    delivery=Delivery.DELIVERED,
                    url=request.url,
                )
            if asyncio.get_running_loop().time() > deadline:
                raise _no_answer(request)
            yield piece
    except (library.TransportError, library.DecodingError, library.StreamError, OSError) as error:
        raise ResponseError(
            f"The answer from {request.url} was cut short after {received} bytes ({_name(error)}).",
            status=response.status_code,
            delivery=Delivery.DELIVERED,
            url=request.url,
            transient=True,
        ) from _without_frames(error)


def _headers(response: httpx.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}


def _connection_failed(error: Exception, request: HttpRequest) -> ExchangeError:
    server = "{0.scheme}://{0.netloc}".format(urlsplit(request.url))
    library = http_library()
    never_sent = (
        library.ConnectError,
        library.ConnectTimeout,
        library.PoolTimeout,
        library.ProxyError,
        library.UnsupportedProtocol,
    )
    if isinstance(error, never_sent):
        return ConnectionFailedError(
            f"Cannot connect to {server}: {_name(error)}. Check the URL, and that the server runs and can be "
            "reached from here.",
            delivery=Delivery.NEVER,
            url=request.url,
            transient=True,
        )
    if isinstance(error, library.TimeoutException):
        return _no_answer(request)
    return ConnectionFailedError(
        f"The connection to {server} was lost before the answer came: {_name(error)}.",
        delivery=Delivery.UNKNOWN,
        url=request.url,
        transient=True,
    )


def _no_answer(request: HttpRequest) -> ConnectionFailedError:
    return ConnectionFailedError(
        f"No answer to {request.method} {request.url} within {request.timeout:g} s.",
        delivery=Delivery.UNKNOWN,
        url=request.url,
        transient=True,
    )


def _name(error: Exception) -> str:
    """A description that is never empty: httpx's read errors have no text of their own."""
    return str(error) or type(error).__name__


def _outgoing(request: HttpRequest, connect_timeout: float) -> httpx.Request:
    """The library's request. The credential is revealed here alone, in a frame that no error's traceback shows."""
    timeout = request.timeout
    headers = list(request.headers)
    if request.credential is not None:
        headers.append(("authorization", f"Bearer {request.credential.reveal()}"))
    content: bytes | AsyncIterator[bytes]
    if isinstance(request.body, tuple):
        content = _parts(request.body)
        headers.append(("content-length", str(sum(len(part) for part in request.body))))
    else:
        content = request.body
    extensions = {"timeout": {"connect": connect_timeout, "read": timeout, "write": timeout, "pool": None}}
    outgoing: httpx.Request = http_library().Request(
        request.method, _url(request.url), headers=headers, content=content, extensions=extensions
    )
    return outgoing


async def _parts(parts: tuple[bytes | memoryview, ...]) -> AsyncIterator[bytes]:
    """A body of several parts, so that a file's bytes need not be copied into one string."""
    for part in parts:
        yield part  # type: ignore[misc]  # h11 takes every bytes-like object


def _without_frames(error: Exception) -> Exception:
    """The error without its tracebacks: the library's frames hold the headers of the request."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


@functools.cache
def http_library() -> ModuleType:
    """The HTTP library, imported when first asked for."""
    if os.environ.get("AGENTCUBE_HTTP_LIBRARY") == "httpx2":
        return importlib.import_module("httpx2")
    try:
        return importlib.import_module("httpx")
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        return importlib.import_module("httpx2")


@functools.lru_cache(maxsize=256)
def _url(url: str) -> httpx.URL:
    parsed: httpx.URL = http_library().URL(url)
    return parsed


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """One context for the whole process: loading the certificates takes 20 ms each time."""
    context: ssl.SSLContext = http_library().create_ssl_context()
    return context


@functools.cache
def _no_tls_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
