"""A proxy that cuts every connection after so many bytes, and a program that transfers through it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from agentcube_kernel import AsyncCodeInterpreterClient
from tests.client.memory import peak


@dataclass(slots=True)
class Cutter:
    """A running proxy: where it is, and how often it has cut."""

    url: str = ""
    cuts: int = 0


@contextlib.contextmanager
def cutting_proxy(target: str, *, every: int) -> Iterator[Cutter]:
    """Forward connections to `target` in a thread, and reset each when it has carried `every` bytes."""
    cutter = Cutter()
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()
    parts = urlsplit(target)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(parts.hostname, parts.port)
        left = every

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal left
            while data := await source.read(65536):
                left -= len(data)
                if left < 0:
                    cutter.cuts += 1
                    return
                sink.write(data)
                await sink.drain()

        pumps = {asyncio.create_task(pump(reader, downstream)), asyncio.create_task(pump(upstream, writer))}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, downstream):
                end.transport.abort()

    async def main() -> None:
        server = await asyncio.start_server(connection, "127.0.0.1", 0)
        async with server:
            cutter.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{parts.path}"
            ready.set()
            await stop.wait()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield cutter
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def transfer(local: str, back: str) -> None:
    """Upload and download one file with the client that the environment asks for, and print what it took."""
    async with AsyncCodeInterpreterClient() as client:
        await client.write_file("x" * 100_000, "warm-up")
        await client.download_file("warm-up", back)
        before = peak()
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        up = await client.upload_file(local, "big")
        times.append(loop.time())
        down = await client.download_file("big", back)
        times.append(loop.time())
        await client.execute_command("rm big warm-up")
    with open(back, "rb") as file:  # noqa: ASYNC230 - the event loop has nothing else to do
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    report = {
        "grown": peak() - before,
        "checksums": [up.sha256, down.sha256, digest],
        "seconds": [round(times[1] - times[0], 2), round(times[2] - times[1], 2)],
    }
    print(json.dumps(report))  # noqa: T201 - this is what the test reads


if __name__ == "__main__":
    asyncio.run(transfer(*sys.argv[1:]))
