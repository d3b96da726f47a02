"""A WorkloadManager that takes its time: it stands before a real one and answers creations when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 20.0


@dataclass
class SlowManager:
    """What the WorkloadManager has seen. It goes on with a creation also when the client hangs up."""

    target: str
    url: str = ""
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _going: asyncio.Event = field(default_factory=asyncio.Event)
    _deleted: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _refusal: tuple[int, dict[str, Any]] | None = None

    async def asked(self) -> None:
        """Wait until a creation has arrived."""
        async with asyncio.timeout(PATIENCE):
            await self._asked.wait()

    def go_on(self) -> None:
        """Answer creations from now on."""
        self._going.set()

    def hold(self) -> None:
        """Hold creations back from now on."""
        self._going.clear()
        self._asked.clear()

    def refuse(self, status: int, content: dict[str, Any]) -> None:
        """Answer creations with this error from now on."""
        self._refusal = (status, content)
        self._going.set()

    async def deleted(self) -> str:
        """Wait until a session has been deleted; its id."""
        async with asyncio.timeout(PATIENCE):
            return await self._deleted.get()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next(
                (
                    int(line.split(":")[1])
                    for line in head.split("\r\n")
                    if line.lower().startswith("content-length:")
                ),
                0,
            )
            body = await reader.readexactly(length)
            method, path, _ = head.split(" ", 2)
            if method == "POST":
                self._asked.set()
                await self._going.wait()
                if self._refusal is not None:
                    writer.write(_response(*self._refusal))
                    return
            answer = await self._pass_on(head, body)
            if method == "DELETE" and b" 200 " in answer.split(b"\r\n", 1)[0]:
                self._deleted.put_nowait(path.rsplit("/", 1)[1])
            with contextlib.suppress(OSError):
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            writer.close()

    async def _pass_on(self, head: str, body: bytes) -> bytes:
        address = urlsplit(self.target)
        lines = [
            line
            for line in head.split("\r\n")[1:]
            if line and not line.lower().startswith(("host:", "connection:"))
        ]
        first = head.split("\r\n", 1)[0]
        lines = [first, f"host: {address.netloc}", "connection: close", *lines]
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
            return await reader.read()
        finally:
            writer.close()


def _response(status: int, content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body


@asynccontextmanager
async def slow_manager(target: str) -> AsyncIterator[SlowManager]:
    """A slow WorkloadManager before the one at `target`."""
    manager = SlowManager(target)
    server = await asyncio.start_server(manager.serve, "127.0.0.1", 0)
    manager.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield manager
        manager.go_on()
