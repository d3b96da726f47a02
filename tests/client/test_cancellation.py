"""Many tasks on one client, cancelled at random: nothing is lost and nothing runs on."""

from __future__ import annotations

import asyncio
import random
import time

import psutil
import pytest

from agentcube_kernel import AsyncCodeInterpreterClient, ClientStateError, ConnectionFailedError
from agentcube_kernel.wire.heartbeat import Heartbeat
from tests.client.stub import Request, ran, stub

pytestmark = pytest.mark.anyio


async def test_pool_survives_random_cancellation(client: AsyncCodeInterpreterClient) -> None:
    """4 s of cancelling with 30 workers on 10 connections; then every request succeeds and nothing is left."""
    settings = client.settings
    narrow = AsyncCodeInterpreterClient(settings=settings, session_id=client.session_id, max_connections=10)
    rng = random.Random(7)
    cancelled = 0

    async def worker() -> None:
        nonlocal cancelled
        while time.monotonic() < end:
            task = asyncio.create_task(narrow.execute_command(["sleep", f"0.0{rng.randrange(1, 9)}71"]))
            await asyncio.sleep(rng.random() * 0.08)
            if task.cancel():
                cancelled += 1
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

    async with narrow:
        end = time.monotonic() + 4
        await asyncio.gather(*(worker() for _ in range(30)))
        async with asyncio.timeout(20):
            assert await asyncio.gather(*(narrow.execute_command(f"echo {n}") for n in range(50))) == [
                f"{n}\n" for n in range(50)
            ]
        assert cancelled > 50
    async with asyncio.timeout(5):
        while _sleeping():  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.05)


def _sleeping() -> list[psutil.Process]:
    """Our sleeps, where the sandbox runs on this machine."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (line := process.info["cmdline"] or [])[:1] == ["sleep"] and line[-1].endswith("71")
    ]


@pytest.mark.timeout(120)
async def test_two_hundred_tasks(client: AsyncCodeInterpreterClient) -> None:
    """200 tasks share one client; half of them are cancelled; then its whole limit is there again."""
    rng = random.Random(11)
    tasks = [asyncio.create_task(client.run_code("bash", f"sleep 0.05; echo {n}")) for n in range(200)]
    await asyncio.sleep(0.1)
    doomed = rng.sample(range(200), 100)
    for number in doomed:
        tasks[number].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for number, result in enumerate(results):
        assert result == f"{number}\n" or (number in doomed and isinstance(result, asyncio.CancelledError))
    # Stopping a hundred commands keeps a small machine busy for a while.
    async with asyncio.timeout(50):
        runs = [client.data_plane.execute(["true"], timeout=45) for _ in range(200)]
        assert len(await asyncio.gather(*runs)) == 200


async def test_limit_is_kept() -> None:
    """No more requests are in flight than `max_connections`, abandoned ones included."""
    in_flight = most = 0

    async def handler(request: Request) -> bytes:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.05)
        in_flight -= 1
        return ran()

    async with stub(handler) as router:
        client = AsyncCodeInterpreterClient(router_url=router.url, session_id="s", max_connections=5)
        async with client:
            tasks = [asyncio.create_task(client.data_plane.execute(["true"])) for _ in range(40)]
            await asyncio.sleep(0.02)
            for task in tasks[:3]:
                task.cancel()
            await asyncio.wait(tasks)
    assert most == 5


async def test_connections_are_reused() -> None:
    """A hundred calls one after the other use one connection."""
    async with stub(lambda request: ran()) as router:
        async with AsyncCodeInterpreterClient(router_url=router.url, session_id="s") as client:
            for _ in range(100):
                await client.data_plane.execute(["true"])
        assert router.connections == 1


async def test_closing_ends_calls_in_flight() -> None:
    """Closing a client ends the calls that are under way with an error that says so."""
    async with stub(lambda request: asyncio.sleep(60, b"")) as router:
        client = await AsyncCodeInterpreterClient.create(router_url=router.url, session_id="s")
        task = asyncio.create_task(client.data_plane.execute(["true"]))
        await router.asked.wait()
        await client.close()
        with pytest.raises(ClientStateError, match="closed while"):
            await task


async def test_loopback_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies in the environment, unusable ones too, are no matter for a server on this machine."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    async with (
        stub(lambda request: ran("direct")) as router,
        AsyncCodeInterpreterClient(router_url=router.url, session_id="s") as client,
    ):
        assert await client.execute_command("true") == "direct"


async def test_other_hosts_are_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Router elsewhere is asked through the proxy that the environment names, unless NO_PROXY exempts it."""
    async with stub(lambda request: ran("proxied")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with AsyncCodeInterpreterClient(router_url="http://router.invalid", session_id="s") as client:
            assert await client.execute_command("true") == "proxied"
        assert proxy.requests[0].target.startswith("http://router.invalid/")


async def test_server_that_closes_idle_connections() -> None:
    """A kept connection that the server has closed meanwhile is replaced, and the call does not notice."""
    close = b"HTTP/1.1 200 OK\r\nx-agentcube-session-id: s\r\ncontent-length: 56\r\n\r\n"
    body = b'{"stdout": "", "stderr": "", "exit_code": 0}'.ljust(56)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(close + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, AsyncCodeInterpreterClient(router_url=url, session_id="s") as client:
        for _ in range(5):
            assert (await client.data_plane.execute(["true"])).exit_code == 0
            await asyncio.sleep(0.02)


async def test_session_is_kept_awake_while_a_call_waits() -> None:
    """A long call is accompanied by beats, which end with it; a beat that fails is no harm."""
    beats: list[int] = []
    enough = asyncio.Event()

    async def beat() -> None:
        beats.append(1)
        if len(beats) >= 3:
            enough.set()
        raise ConnectionFailedError("no answer")

    async with asyncio.timeout(5), Heartbeat(beat, interval=0.01):
        await enough.wait()
    count = len(beats)
    await asyncio.sleep(0.05)
    assert len(beats) == count
