"""A proxy that stands between a client and a server and does what bad networks and busy routers do.

Real sockets on 127.0.0.1, HTTP/1.1, one request at a time per connection. Each request may meet one `Fault`,
drawn from a `FaultPlan` (a rate, a seed and the kinds to draw from, or a script). `FaultProxy` runs on the
loop that enters it; `running_fault_proxy` runs one in a thread of its own, for tests that block or that drive
other processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import random
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

CHUNK = 64 * 1024
LAST_CHUNK = b"0\r\n\r\n"


class Fault(enum.Enum):
    """What happens to one request. "Before": the server never sees it; "after": it has answered it."""

    REFUSE = "answers, then refuses every new connection for a while"
    RESET_BEFORE = "resets the connection before the server sees the request"
    RESET_DURING = "hands the request to the server and resets the connection while the server works on it"
    RESET_AFTER = "resets the connection after the server has answered"
    TRUNCATE = "ends the body in the middle, as a complete chunked body"
    DELAY = "holds the answer back"
    STATUS_429 = "429 before the server sees the request"
    STATUS_502 = "502 before the server sees the request"
    STATUS_503_BEFORE = "503 before the server sees the request"
    STATUS_503_AFTER = "503 in place of the server's answer"
    STATUS_504_BEFORE = "504 before the server sees the request"
    STATUS_504_AFTER = "504 in place of the server's answer"


ALL_FAULTS = tuple(Fault)

# The Router's own words; its own errors never carry x-agentcube-session-id.
_STATUS: dict[Fault, tuple[str, dict[str, str]]] = {
    Fault.STATUS_429: (
        "429 Too Many Requests",
        {"error": "server overloaded, please try again later", "code": "SERVER_OVERLOADED"},
    ),
    Fault.STATUS_502: ("502 Bad Gateway", {"error": "sandbox unreachable"}),
    Fault.STATUS_503_BEFORE: ("503 Service Unavailable", {"error": "sandbox unreachable"}),
    Fault.STATUS_503_AFTER: ("503 Service Unavailable", {"error": "sandbox unreachable"}),
    Fault.STATUS_504_BEFORE: ("504 Gateway Timeout", {"error": "sandbox timeout"}),
    Fault.STATUS_504_AFTER: ("504 Gateway Timeout", {"error": "sandbox timeout"}),
}
_NEVER_FORWARDED = {
    Fault.RESET_BEFORE,
    Fault.STATUS_429,
    Fault.STATUS_502,
    Fault.STATUS_503_BEFORE,
    Fault.STATUS_504_BEFORE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as the proxy saw it, and what it did to it."""

    method: str
    target: str
    fault: Fault | None


@dataclass(slots=True, kw_only=True)
class FaultPlan:
    """Which requests meet which fault.

    `script` is used up first, one entry per matching request (None lets one pass). Then a share of `rate` of
    the matching requests meets a fault of `kinds`, by a generator seeded with `seed`. `only` is asked with
    method and target, and requests for which it says no always pass.
    """

    rate: float = 0.0
    seed: int = 0
    kinds: Collection[Fault] = ALL_FAULTS
    script: Iterable[Fault | None] = ()
    only: Callable[[str, str], bool] = lambda method, target: True
    _random: random.Random = field(init=False)
    _script: deque[Fault | None] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._script = deque(self.script)
        self.kinds = tuple(self.kinds)

    def next_fault(self, method: str, target: str) -> Fault | None:
        """Draw for one request."""
        if not self.only(method, target):
            return None
        if self._script:
            return self._script.popleft()
        if self.rate and self._random.random() < self.rate:
            return self._random.choice(tuple(self.kinds))
        return None


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line and the headers of a message, names in lower case."""

    first_line: str
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def replaced(self, *drop: str, add: Iterable[tuple[str, str]] = ()) -> _Head:
        kept = tuple(item for item in self.headers if item[0] not in drop)
        return _Head(self.first_line, (*kept, *add))

    def encode(self) -> bytes:
        lines = [self.first_line, *(f"{name}: {value}" for name, value in self.headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _read_head(reader: asyncio.StreamReader) -> _Head | None:
    """Read a message's head; None at a clean end of the stream."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first_line, *lines = raw[:-4].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return _Head(first_line, tuple((name.strip().lower(), value.strip()) for name, _, value in pairs))


async def _read_body(
    reader: asyncio.StreamReader, head: _Head, *, until_close: bool
) -> AsyncIterator[tuple[bytes, bytes]]:
    """Yield a body in pieces, each as (bytes on the wire, bytes of content)."""
    if "chunked" in (head.get("transfer-encoding") or ""):
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            data = await reader.readexactly(size + 2)
            yield line + data, data[:-2]
            if size == 0:
                return
    length = head.get("content-length")
    if length is None:
        while until_close and (data := await reader.read(CHUNK)):
            yield data, data
        return
    left = int(length)
    while left:
        data = await reader.read(min(CHUNK, left))
        if not data:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(data)
        yield data, data


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _Cut(Exception):
    """This connection has carried as many bytes as it may."""


class FaultProxy:
    """An asynchronous context manager: a proxy to `upstream` at `url`, until it is left.

    `delay` is how long DELAY holds an answer, `refuse_for` how long REFUSE lasts, both in seconds. With
    `cut_every`, each connection is reset when so many bytes went through it, either way. `plan` may be
    replaced at any time. Leaving it closes every connection; a server that still works on a request is left
    alone.
    """

    def __init__(
        self,
        upstream: str,
        plan: FaultPlan | None = None,
        *,
        delay: float = 0.3,
        refuse_for: float = 0.2,
        cut_every: int | None = None,
    ) -> None:
        parts = urlsplit(upstream)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"the upstream of a fault proxy is an http URL, not {upstream!r}")
        self._upstream = (parts.hostname, parts.port or 80)
        self._path = parts.path.rstrip("/")
        self.plan = plan or FaultPlan()
        self.delay = delay
        self.refuse_for = refuse_for
        self.cut_every = cut_every
        self.requests: list[Request] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """What to give to a client in place of the upstream's URL."""
        return f"http://127.0.0.1:{self._port}{self._path}"

    @property
    def faults(self) -> Counter[Fault]:
        """How often each fault has happened so far."""
        return Counter(request.fault for request in self.requests if request.fault is not None)

    async def __aenter__(self) -> Self:
        # Below the range from which the system takes the ports of outgoing connections, so that the port is
        # still there when REFUSE is over.
        for port in random.sample(range(20_000, 32_000), 50):
            with contextlib.suppress(OSError):
                self._port = port
                await self._listen()
                return self
        raise OSError("no free port for the fault proxy")

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A transport closes its socket one turn of the loop after it was told to.
        await asyncio.sleep(0)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=1 << 20)

    def _spawn(self, coro: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._spawn(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            left = self.cut_every
            while True:
                self._idle.add(writer)
                try:
                    head = await _read_head(reader)
                finally:
                    self._idle.discard(writer)
                if head is None:
                    break
                left = await self._serve_one(head, reader, writer, left)
        except (OSError, asyncio.IncompleteReadError, _Cut):
            _reset(writer)
        finally:
            writer.close()

    async def _serve_one(
        self, head: _Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None
    ) -> int | None:
        method, target, _ = head.first_line.split(" ", 2)
        fault = self.plan.next_fault(method, target)
        self.requests.append(Request(method=method, target=target, fault=fault))
        if (head.get("expect") or "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault in _NEVER_FORWARDED:
            async for _ in _read_body(reader, head, until_close=False):
                pass
            await self._answer_instead(fault, writer)
            return left
        up_reader, up_writer = await asyncio.open_connection(*self._upstream, limit=1 << 20)
        try:
            forwarded = head.replaced("connection", "expect", add=[("connection", "close")])
            up_writer.write(forwarded.encode())
            async for raw, _ in _read_body(reader, head, until_close=False):
                up_writer.write(raw)
                await up_writer.drain()
                left = self._spend(left, len(raw))
            if fault is Fault.RESET_DURING:
                self._spawn(self._drop_answer(up_reader, up_writer))
                raise ConnectionResetError
            return await self._answer(fault, method, up_reader, writer, left)
        finally:
            if fault is not Fault.RESET_DURING:
                up_writer.close()

    async def _drop_answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(CHUNK):
                pass
        writer.close()

    async def _answer(
        self,
        fault: Fault | None,
        method: str,
        upstream: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        left: int | None,
    ) -> int | None:
        head = await _read_head(upstream)
        if head is None:
            raise ConnectionResetError
        status = int(head.first_line.split(" ")[1])
        has_body = method != "HEAD" and status not in (204, 304)
        head = head.replaced("connection")
        if has_body and head.get("content-length") is None and head.get("transfer-encoding") is None:
            head = head.replaced(add=[("connection", "close")])
        if fault is None or fault is Fault.REFUSE:
            if fault is Fault.REFUSE:
                self._spawn(self._refuse())
            return await self._pass_on(head, has_body, upstream, writer, left)
        pieces = [piece async for piece in _read_body(upstream, head, until_close=True)] if has_body else []
        if fault is Fault.TRUNCATE:
            content = b"".join(data for _, data in pieces)
            half = content[: len(content) // 2]
            chunked = ("transfer-encoding", "chunked")
            head = head.replaced("content-length", "transfer-encoding", add=[chunked])
            framed = f"{len(half):x}\r\n".encode() + half + b"\r\n" if half else b""
            writer.write(head.encode() + framed + LAST_CHUNK)
        elif fault is Fault.DELAY:
            await asyncio.sleep(self.delay)
            writer.write(head.encode() + b"".join(raw for raw, _ in pieces))
        else:
            await self._answer_instead(fault, writer)
        await writer.drain()
        return left

    async def _pass_on(
        self,
        head: _Head,
        has_body: bool,
        upstream: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        left: int | None,
    ) -> int | None:
        writer.write(head.encode())
        await writer.drain()
        if has_body:
            async for raw, _ in _read_body(upstream, head, until_close=True):
                writer.write(raw)
                await writer.drain()
                left = self._spend(left, len(raw))
        if head.get("connection") == "close":
            writer.close()
            await writer.wait_closed()
        return left

    def _spend(self, left: int | None, size: int) -> int | None:
        if left is None:
            return None
        if size >= left:
            raise _Cut
        return left - size

    async def _answer_instead(self, fault: Fault, writer: asyncio.StreamWriter) -> None:
        if fault not in _STATUS:
            raise ConnectionResetError
        status, body = _STATUS[fault]
        content = json.dumps(body).encode()
        headers = (("content-type", "application/json"), ("content-length", str(len(content))))
        writer.write(_Head(f"HTTP/1.1 {status}", headers).encode() + content)
        await writer.drain()

    async def _refuse(self) -> None:
        server = self._server
        if server is None or not server.is_serving():
            return
        server.close()
        for writer in tuple(self._idle):
            writer.close()
        await asyncio.sleep(self.refuse_for)
        await self._listen()


@contextlib.contextmanager
def running_fault_proxy(
    upstream: str, plan: FaultPlan | None = None, **options: float
) -> Iterator[FaultProxy]:
    """Run a `FaultProxy` in a thread with a loop of its own, for the length of a `with` block."""
    proxy = FaultProxy(upstream, plan, **options)  # type: ignore[arg-type]
    started = threading.Event()
    problem: list[BaseException] = []
    stop: list[Callable[[], None]] = []

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        async with proxy:
            started.set()
            await ended.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            problem.append(exc)
            started.set()

    thread = threading.Thread(target=run, name="fault-proxy", daemon=True)
    thread.start()
    started.wait(10)
    if problem:
        raise problem[0]
    try:
        yield proxy
    finally:
        stop[0]()
        thread.join(10)
        if problem:
            raise problem[0]
