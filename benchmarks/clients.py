"""`python -m benchmarks.clients`: many clients at once, ours in one event loop, the stock SDK's in threads.

Both do the same work on the same server in the same run, each in a process of its own: every client has a session of
its own (a bare PicoD has but one) and runs the same number of commands, one after the other, all clients at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from agentcube_kernel import AsyncCodeInterpreterClient, Settings
from benchmarks.result import percentile
from tests.endpoints import Endpoint, endpoint_from, start_embedded

WORK = {
    "command": "execute_command(['/bin/true'])",
    "code": "run_code('bash', …)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one side did: commands per second, latencies in seconds, memory in MiB that the work added."""

    throughput: float
    p50: float
    p95: float
    p99: float
    memory: float
    processor: float
    """Of this side's own process, in milliseconds for each command."""
    wrong: int
    """Answers that were another client's: the stock SDK's script names collide."""


def measure(side: str, work: str, clients: int, rounds: int, endpoint: Endpoint) -> Load:
    """Run one side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.clients", "--worker", side, work, str(clients), str(rounds)]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        command, env={**os.environ, **endpoint.env}, cwd=root, stdout=subprocess.PIPE, check=True, text=True
    )
    return Load(**json.loads(done.stdout))


def _load(latencies: list[float], wall: float, before: float, processor: float, wrong: int) -> Load:
    return Load(
        throughput=len(latencies) / wall,
        p50=percentile(latencies, 50),
        p95=percentile(latencies, 95),
        p99=percentile(latencies, 99),
        memory=_peak() - before,
        wrong=wrong,
        processor=1000 * (time.process_time() - processor) / len(latencies),
    )


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


async def _ours(work: str, clients: int, rounds: int) -> Load:
    before = _peak()
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(AsyncCodeInterpreterClient()) for _ in range(clients)]
        latencies: list[float] = []

        wrong = 0

        async def use(number: int, client: AsyncCodeInterpreterClient, rounds: int) -> None:
            nonlocal wrong
            for _ in range(rounds):
                started = time.perf_counter()
                if work == "code":
                    wrong += await client.run_code("bash", f"echo {number}-$((6 * 7))") != f"{number}-42\n"
                else:
                    await client.execute_command(["/bin/true"])
                latencies.append(time.perf_counter() - started)

        await asyncio.gather(*(use(number, client, 2) for number, client in enumerate(opened)))
        latencies.clear()
        processor, started = time.process_time(), time.perf_counter()
        await asyncio.gather(*(use(number, client, rounds) for number, client in enumerate(opened)))
        return _load(latencies, time.perf_counter() - started, before, processor, wrong)


def _stock(work: str, clients: int, rounds: int) -> Load:
    from agentcube.clients.code_interpreter_data_plane import CodeInterpreterDataPlaneClient

    before = _peak()
    settings = Settings.load()
    sessions = asyncio.run(_sessions(clients))
    base = f"{settings.picod_url}/"
    if settings.picod_url is None:
        names = f"namespaces/{settings.namespace}/code-interpreters/{settings.interpreter}"
        base = f"{settings.router_url}/v1/{names}/invocations/"
    opened = []
    for session in sessions:
        client = CodeInterpreterDataPlaneClient(session or "-", base_url=base)
        client.session.headers["Authorization"] = f"Bearer {settings.credentials.token}"
        opened.append(client)
    latencies: list[float] = []
    begin = threading.Barrier(clients + 1)

    wrong: list[int] = []

    def use(number: int, client: CodeInterpreterDataPlaneClient) -> None:
        def once() -> float:
            started = time.perf_counter()
            if work == "code":
                if client.run_code("bash", f"echo {number}-$((6 * 7))") != f"{number}-42\n":
                    wrong.append(number)
            else:
                client.execute_command(["/bin/true"])
            return time.perf_counter() - started

        once(), once()
        begin.wait()
        latencies.extend([once() for _ in range(rounds)])

    try:
        with concurrent.futures.ThreadPoolExecutor(clients) as threads:
            running = [threads.submit(use, number, client) for number, client in enumerate(opened)]
            begin.wait()
            processor, started = time.process_time(), time.perf_counter()
            for job in running:
                job.result()
            return _load(latencies, time.perf_counter() - started, before, processor, len(wrong))
    finally:
        for client in opened:
            client.session.close()
        asyncio.run(_delete(sessions))


async def _sessions(count: int) -> list[str | None]:
    if Settings.load().picod_url is not None:
        return [None] * count
    found: list[str | None] = []
    for _ in range(count):
        client = await AsyncCodeInterpreterClient.create()
        found.append(client.detach())
        await client.close()
    return found


async def _delete(sessions: list[str | None]) -> None:
    for session in sessions:
        if session is not None:
            await AsyncCodeInterpreterClient(session_id=session).stop(force=True)


SIDES: dict[str, Callable[[str, int, int], Load]] = {
    "ours": lambda work, clients, rounds: asyncio.run(_ours(work, clients, rounds)),
    "stock": _stock,
}


def table(rows: list[tuple[str, str, Load]], clients: int) -> Table:
    """The loads as people read them."""
    shown = Table(title=f"{clients} clients at once")
    for heading in (
        "work",
        "client",
        "per second",
        "p50",
        "p95",
        "p99",
        "memory",
        "processor per call",
        "wrong answers",
    ):
        shown.add_column(heading, justify="left" if heading in ("work", "client") else "right")
    for work, side, load in rows:
        times = (f"{1000 * seconds:.0f} ms" for seconds in (load.p50, load.p95, load.p99))
        shown.add_row(
            work,
            side,
            f"{load.throughput:.0f}",
            *times,
            f"+{load.memory:.1f} MiB",
            f"{load.processor:.2f} ms",
            str(load.wrong),
        )
    return shown


@click.command()
@click.option("--clients", default=64, show_default=True)
@click.option("--rounds", default=30, show_default=True, help="Commands of each client.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--worker", nargs=4, hidden=True)
def main(clients: int, rounds: int, as_json: bool, worker: tuple[str, str, str, str] | None) -> None:
    """Compare many of our clients in one process with as many of the stock SDK's in threads.

    On the embedded gateway, or on the AgentCube that ROUTER_URL and WORKLOAD_MANAGER_URL, or AGENTCUBE_PICOD_URL,
    name.
    """
    if worker is not None:
        side, work, count, each = worker
        click.echo(json.dumps(asdict(SIDES[side](work, int(count), int(each)))))
        return
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        endpoint = endpoint_from(os.environ) or stack.enter_context(start_embedded(Path(home)))
        rows = [
            (WORK[work], side, measure(side, work, clients, rounds, endpoint))
            for work in WORK
            for side in SIDES
        ]
    if as_json:
        click.echo(json.dumps([{"work": work, "client": side, **asdict(load)} for work, side, load in rows]))
    else:
        console = Console()
        console.width = max(console.width, 120)
        console.print(table(rows, clients))
        for (work, _, ours), (_, _, stock) in zip(rows[::2], rows[1::2], strict=True):
            console.print(f"{work}: {ours.throughput / stock.throughput:.2f} × the throughput")


if __name__ == "__main__":
    main()
