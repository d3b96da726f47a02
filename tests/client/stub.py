"""A server that answers what a test tells it to, well-formed or not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived. Header names are lower-case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Handler = Callable[[Request], "bytes | Awaitable[bytes | None] | None"]


@dataclass(slots=True)
class Stub:
    """A running stub: where it is, what it got, and how many connections it had."""

    url: str
    requests: list[Request] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    open_connections: int = 0


def reply(
    status: int, content: object = b"", *, headers: dict[str, str] | None = None, cut: int = 0
) -> bytes:
    """A raw answer; an object becomes JSON. `cut` bytes are announced and left out."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = {"content-length": str(len(body)), **(headers or {})}
    if not isinstance(content, bytes):
        lines.setdefault("content-type", "application/json")
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body[: len(body) - cut]


def from_sandbox(status: int, content: object = b"", *, session: str = "s-1", **options: Any) -> bytes:
    """A raw answer with the header that the Router puts on what comes from a sandbox."""
    headers = {"x-agentcube-session-id": session, **options.pop("headers", {})}
    return reply(status, content, headers=headers, **options)


def ran(stdout: str = "", *, exit_code: int = 0, stderr: str = "") -> bytes:
    """The answer to a command."""
    return from_sandbox(200, {"stdout": stdout, "stderr": stderr, "exit_code": exit_code, "duration": 0.1})


@contextlib.asynccontextmanager
async def stub(handler: Handler) -> AsyncIterator[Stub]:
    """Serve `handler` on a port of its own. None as an answer closes the connection without a word."""
    connected: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connected.add(task)
        running.connections += 1
        running.open_connections += 1
        try:
            while (request := await _read(reader)) is not None:
                running.requests.append(request)
                running.asked.set()
                answer = handler(request)
                raw = answer if isinstance(answer, bytes) or answer is None else await answer
                if raw is None:
                    return
                writer.write(raw)
                await writer.drain()
                if b"content-length" not in raw.partition(b"\r\n\r\n")[0].lower() or _is_cut(raw):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            running.open_connections -= 1
            connected.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    running = Stub(f"http://127.0.0.1:{port}")
    try:
        yield running
    finally:
        server.close()
        for task in tuple(connected):
            task.cancel()
        if connected:
            await asyncio.wait(tuple(connected))
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method=method, target=target, headers=headers, body=body)


def _is_cut(raw: bytes) -> bool:
    head, _, body = raw.partition(b"\r\n\r\n")
    announced = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return len(body) < announced
