"""Pass one HTTP request on to a server on this machine and its answer back, as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import h11

from .wire import Answer, RouterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope

_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization"),
    )
)
# The Router replaces the caller's credential by one of its own; a runtime of the user's needs neither.
_NOT_FORWARDED = _HOP_BY_HOP | {b"host", b"authorization", b"expect"}
_CHUNK = 65536


async def forward(port: int, path: str, scope: Scope, receive: Receive) -> Answer:
    """The answer of the server on `port`, its body still to be streamed.

    Raises RouterError as AgentCube's Router words it: 502 when nothing listens (the request was not
    delivered), 503 when the connection broke before an answer began.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as exc:
        raise RouterError(502, "sandbox unreachable") from exc
    exchange = _Exchange(reader, writer)
    try:
        await exchange.send(_request(port, path, scope), receive)
        response = await exchange.response()
    except (OSError, h11.ProtocolError) as exc:
        await exchange.close()
        raise RouterError(503, "sandbox unreachable") from exc
    except BaseException:
        await exchange.close()
        raise
    headers = [
        (bytes(name), bytes(value)) for name, value in response.headers if bytes(name) not in _HOP_BY_HOP
    ]
    return Answer(status=response.status_code, headers=headers, stream=exchange.body())


def _request(port: int, path: str, scope: Scope) -> h11.Request:
    headers = [(name, value) for name, value in scope["headers"] if name not in _NOT_FORWARDED]
    if not any(name == b"content-length" for name, _ in headers) and scope["method"] == "POST":
        headers.append((b"transfer-encoding", b"chunked"))
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    headers += [
        (b"host", b"127.0.0.1:%d" % port),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", b"http"),
    ]
    if scope.get("client"):
        headers.append((b"x-forwarded-for", scope["client"][0].encode()))
    target = _quote(path) + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    return h11.Request(method=scope["method"], target=target, headers=headers)


def _quote(path: str) -> bytes:
    from urllib.parse import quote

    return quote(path, safe="/:@!$&'()*+,;=~-._").encode()


class _Exchange:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._state = h11.Connection(h11.CLIENT)

    async def send(self, request: h11.Request, receive: Receive) -> None:
        self._write(request)
        more = request.method == b"POST"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionAbortedError("the caller has gone")
            if message.get("body"):
                self._write(h11.Data(data=message["body"]))
                await self._writer.drain()
            more = message.get("more_body", False)
        self._write(h11.EndOfMessage())
        await self._writer.drain()

    async def response(self) -> h11.Response:
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("closed without an answer")

    async def body(self) -> AsyncIterator[bytes]:
        # Errors pass through: the caller's connection is then cut, which it sees, instead of ended cleanly.
        try:
            while not isinstance(event := await self._event(), h11.EndOfMessage):
                if isinstance(event, h11.Data) and event.data:
                    yield bytes(event.data)
        finally:
            await self.close()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _write(self, event: h11.Event) -> None:
        data = self._state.send(event)
        if data:
            self._writer.write(data)

    async def _event(self) -> h11.Event:
        while (event := self._state.next_event()) is h11.NEED_DATA:
            self._state.receive_data(await self._reader.read(_CHUNK))
        if isinstance(event, h11.Event):
            return event
        raise ConnectionResetError("the server switched protocols")
