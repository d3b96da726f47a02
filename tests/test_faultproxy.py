"""The fault-injecting proxy does to real clients what its faults say."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.faultproxy import Fault, FaultPlan, FaultProxy, running_fault_proxy

BODY = b'{"stdout": "0123456789", "exit_code": 0}'


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    seen: list[str]
    changed: threading.Condition

    def note(self, path: str) -> None:
        """Remember a path that was asked for."""
        with self.changed:
            self.seen.append(path)
            self.changed.notify_all()

    def has_seen(self, paths: set[str]) -> bool:
        """Wait until exactly these paths have been asked for; False when that takes too long."""
        with self.changed:
            return self.changed.wait_for(lambda: set(self.seen) == paths, timeout=10)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.note(self.path)
        self._answer()

    def do_GET(self) -> None:
        self.server.note(self.path)
        if self.path == "/chunked":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in (b"ab", b"cd"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/big":
            self._answer(b"x" * 300_000)
        else:
            self._answer()

    def _answer(self, body: bytes = BODY) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-agentcube-session-id", "s-1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[_Server]:
    """An HTTP server that remembers the paths it was asked for."""
    with _Server(("127.0.0.1", 0), _Handler) as httpd:
        httpd.seen = []
        httpd.changed = threading.Condition()
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


def url_of(server: _Server) -> str:
    """The server's own address."""
    return f"http://127.0.0.1:{server.server_address[1]}"


def scripted(server: _Server, *faults: Fault | None, **options: float) -> FaultProxy:
    """A proxy to the server whose first requests meet these faults."""
    return FaultProxy(url_of(server), FaultPlan(script=faults), **options)  # type: ignore[arg-type]


def client_of(proxy: FaultProxy) -> httpx.AsyncClient:
    """A client that talks to the proxy and to nothing else."""
    return httpx.AsyncClient(base_url=proxy.url, trust_env=False)


async def test_passes_everything_on_without_a_fault(server: _Server) -> None:
    """Bodies of both framings, headers and the connection survive the proxy."""
    async with scripted(server) as proxy, client_of(proxy) as client:
        answer = await client.post("/run?a=b", content=b"x" * 100_000)
        assert (answer.status_code, answer.content) == (200, BODY)
        assert answer.headers["x-agentcube-session-id"] == "s-1"
        assert (await client.get("/chunked")).content == b"abcd"
        assert len((await client.get("/big")).content) == 300_000
        assert proxy.connections == 1
    assert server.seen == ["/run?a=b", "/chunked", "/big"]


@pytest.mark.parametrize(
    ("fault", "reached"),
    [(Fault.RESET_BEFORE, False), (Fault.RESET_DURING, True), (Fault.RESET_AFTER, True)],
)
async def test_resets_the_connection(server: _Server, fault: Fault, reached: bool) -> None:
    """A reset is a reset, and the server has seen the request or not, as the fault says."""
    async with scripted(server, fault) as proxy, client_of(proxy) as client:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await client.post("/run", content=b"x")
        assert (await client.post("/next", content=b"x")).status_code == 200
    # The server works on a request that was cut off while it already answers the next one.
    expected = {"/run", "/next"} if reached else {"/next"}
    assert await asyncio.to_thread(server.has_seen, expected)
    assert len(server.seen) == len(expected)


@pytest.mark.parametrize(
    ("fault", "status", "reached"),
    [
        (Fault.STATUS_429, 429, False),
        (Fault.STATUS_502, 502, False),
        (Fault.STATUS_503_BEFORE, 503, False),
        (Fault.STATUS_503_AFTER, 503, True),
        (Fault.STATUS_504_BEFORE, 504, False),
        (Fault.STATUS_504_AFTER, 504, True),
    ],
)
async def test_answers_in_the_servers_place(
    server: _Server, fault: Fault, status: int, reached: bool
) -> None:
    """An error of the proxy's own looks like the Router's: JSON, and no session header."""
    async with scripted(server, fault) as proxy, client_of(proxy) as client:
        answer = await client.post("/run", content=b"x")
        assert answer.status_code == status
        assert "error" in answer.json()
        assert "x-agentcube-session-id" not in answer.headers
    assert server.seen == (["/run"] if reached else [])


async def test_truncates_with_a_clean_end(server: _Server) -> None:
    """Half of the body arrives as a complete answer, so that only its content can tell."""
    async with scripted(server, Fault.TRUNCATE) as proxy, client_of(proxy) as client:
        answer = await client.post("/run", content=b"x")
        assert (answer.status_code, answer.content) == (200, BODY[: len(BODY) // 2])
        assert "content-length" not in answer.headers


async def test_holds_an_answer_back(server: _Server) -> None:
    """A delayed answer comes late and whole."""
    async with scripted(server, Fault.DELAY, delay=0.2) as proxy, client_of(proxy) as client:
        begun = asyncio.get_running_loop().time()
        assert (await client.post("/run", content=b"x")).content == BODY
        assert asyncio.get_running_loop().time() - begun >= 0.2


async def test_refuses_connections_for_a_while(server: _Server) -> None:
    """After a refusal new connections are refused, and later they are accepted at the same address."""
    async with scripted(server, Fault.REFUSE, refuse_for=0.2) as proxy:
        async with client_of(proxy) as client:
            assert (await client.post("/run", content=b"x")).status_code == 200
        async with client_of(proxy) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("/refused")
        deadline = asyncio.get_running_loop().time() + 5
        while asyncio.get_running_loop().time() < deadline:
            try:
                async with client_of(proxy) as client:
                    assert (await client.get("/again")).status_code == 200
                break
            except httpx.ConnectError:
                continue
    assert server.seen == ["/run", "/again"]


async def test_cuts_a_connection_by_the_bytes_it_carried(server: _Server) -> None:
    """A connection that has carried its share is reset in the middle of a body."""
    async with scripted(server, cut_every=100_000) as proxy, client_of(proxy) as client:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await client.get("/big")
        assert (await client.get("/small")).status_code == 200


def test_the_same_seed_draws_the_same_faults() -> None:
    """A plan is a pure function of its seed, and its rate is kept."""
    plans = [FaultPlan(rate=0.1, seed=7) for _ in range(2)]
    first, second = ([plan.next_fault("GET", "/") for _ in range(2000)] for plan in plans)
    assert first == second
    assert 150 < sum(fault is not None for fault in first) < 250
    assert set(first) == {None, *Fault}


def test_spares_what_the_plan_leaves_out() -> None:
    """Requests outside of `only` pass and do not use up the script."""
    plan = FaultPlan(script=[Fault.TRUNCATE], only=lambda method, target: target.startswith("/data"))
    assert plan.next_fault("GET", "/health") is None
    assert plan.next_fault("GET", "/data/1") is Fault.TRUNCATE


def test_runs_in_a_thread(server: _Server) -> None:
    """The threaded form serves a blocking client and ends with its block."""
    with running_fault_proxy(url_of(server), FaultPlan(script=[Fault.STATUS_502])) as proxy:
        with httpx.Client(base_url=proxy.url, trust_env=False) as client:
            assert client.get("/a").status_code == 502
            assert client.get("/a").status_code == 200
        assert proxy.faults == {Fault.STATUS_502: 1}
        address = proxy.url
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, trust_env=False)
