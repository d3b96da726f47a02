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
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

import agentcube_kernel
from benchmarks.result import percentile
from tests.client.memory import peak
from tests.endpoints import endpoint_from, start_embedded

WORK = {
    "command": "execute_command",
    "code": "run_code",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one side did: commands per second, latencies in seconds, the most memory in MiB that its process held."""

    throughput: float
    p50: float
    p95: float
    p99: float
    memory: float
    processor: float
    """Of this side's own process, in milliseconds for each command."""
    wrong: int
    """Answers that were another client's: the stock SDK's script names collide."""


def measure(side: str, work: str, rounds: int, sessions: list[str | None], env: Mapping[str, str]) -> Load:
    """Run one side in a process of its own, which loads that side's library and not the other's."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.clients", "--worker", side, work, str(rounds)],
        input=json.dumps(sessions),
        env={**os.environ, **env},
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return Load(**json.loads(done.stdout))


def _load(latencies: list[float], wall: float, processor: float, wrong: int) -> Load:
    return Load(
        throughput=len(latencies) / wall,
        p50=percentile(latencies, 50),
        p95=percentile(latencies, 95),
        p99=percentile(latencies, 99),
        memory=peak() / 2**20,
        wrong=wrong,
        processor=1000 * (time.process_time() - processor) / len(latencies),
    )


async def _ours(work: str, rounds: int, sessions: list[str | None]) -> Load:
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(agentcube_kernel.AsyncCodeInterpreterClient(session_id=session))
            for session in sessions
        ]
        latencies: list[float] = []
        wrong = 0

        async def use(number: int, client: agentcube_kernel.AsyncCodeInterpreterClient, rounds: int) -> None:
            nonlocal wrong
            for _ in range(rounds):
                started = time.perf_counter()
                if work == "code":
                    shown = await client.run_code("bash", f"echo {number}-$((6 * 7))")
                    wrong += shown != f"{number}-42\n"
                else:
                    await client.execute_command(["/bin/true"])
                latencies.append(time.perf_counter() - started)

        await asyncio.gather(*(use(number, client, 2) for number, client in enumerate(opened)))
        latencies.clear()
        wrong = 0
        processor, started = time.process_time(), time.perf_counter()
        await asyncio.gather(*(use(number, client, rounds) for number, client in enumerate(opened)))
        return _load(latencies, time.perf_counter() - started, processor, wrong)


def _stock(work: str, rounds: int, sessions: list[str | None]) -> Load:
    from agentcube.clients.code_interpreter_data_plane import CodeInterpreterDataPlaneClient
    from agentcube.exceptions import CommandExecutionError

    base = f"{os.environ.get('AGENTCUBE_PICOD_URL')}/"
    if router := os.environ.get("ROUTER_URL"):
        base = f"{router}/v1/namespaces/default/code-interpreters/my-interpreter/invocations/"
    opened = []
    for session in sessions:
        client = CodeInterpreterDataPlaneClient(session or "-", base_url=base)
        client.session.headers["Authorization"] = f"Bearer {os.environ['AGENTCUBE_TOKEN']}"
        client.logger.disabled = True
        opened.append(client)
    latencies: list[float] = []
    wrong: list[int] = []
    begin = threading.Barrier(len(sessions) + 1)

    def use(number: int, client: CodeInterpreterDataPlaneClient) -> None:
        def once() -> float:
            started = time.perf_counter()
            if work == "code":
                try:
                    right = client.run_code("bash", f"echo {number}-$((6 * 7))") == f"{number}-42\n"
                except CommandExecutionError:
                    right = False
                if not right:
                    wrong.append(number)
            else:
                client.execute_command(["/bin/true"])
            return time.perf_counter() - started

        once(), once()
        begin.wait()
        latencies.extend([once() for _ in range(rounds)])

    try:
        with concurrent.futures.ThreadPoolExecutor(len(sessions)) as threads:
            running = [threads.submit(use, number, client) for number, client in enumerate(opened)]
            begin.wait()
            wrong.clear()
            processor, started = time.process_time(), time.perf_counter()
            for job in running:
                job.result()
            return _load(latencies, time.perf_counter() - started, processor, len(wrong))
    finally:
        for client in opened:
            client.session.close()


SIDES: dict[str, Callable[[str, int, list[str | None]], Load]] = {
    "ours": lambda work, rounds, sessions: asyncio.run(_ours(work, rounds, sessions)),
    "stock": _stock,
}


@contextlib.contextmanager
def sessions_on(settings: agentcube_kernel.Settings, count: int) -> Iterator[list[str | None]]:
    """So many sessions, deleted afterwards; a bare PicoD has none."""
    if settings.picod_url is not None:
        yield [None] * count
        return
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(agentcube_kernel.CodeInterpreterClient(settings=settings))
            for _ in range(count)
        ]
        yield [client.session_id for client in clients]


@contextlib.contextmanager
def instant_answers() -> Iterator[Mapping[str, str]]:
    """A server in a process of its own that answers every command at once: the client alone is measured."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.instant"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        text=True,
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        try:
            yield {"AGENTCUBE_PICOD_URL": f"http://127.0.0.1:{port}", "AGENTCUBE_TOKEN": "none"}
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One side's load on one server."""

    where: str
    work: str
    side: str
    load: Load


def table(rows: list[Row], clients: int) -> Table:
    """The loads as people read them."""
    shown = Table(title=f"{clients} clients at once")
    headings = ("server", "work", "client", "per second", "p50", "p95", "p99", "memory", "processor", "wrong")
    for heading in headings:
        shown.add_column(heading, justify="left" if heading in headings[:3] else "right", no_wrap=True)
    for row in rows:
        load = row.load
        times = (f"{1000 * seconds:.0f} ms" for seconds in (load.p50, load.p95, load.p99))
        memory, processor = f"{load.memory:.1f} MiB", f"{load.processor:.2f} ms"
        shown.add_row(
            row.where,
            row.work,
            row.side,
            f"{load.throughput:.0f}",
            *times,
            memory,
            processor,
            str(load.wrong),
        )
    return shown


def compare(env: Mapping[str, str], where: str, clients: int, rounds: int, turns: int) -> list[Row]:
    """Both sides on one server, taking turns, each represented by its median turn."""
    rows = []
    with sessions_on(agentcube_kernel.Settings.load(env), clients) as sessions:
        for work in WORK:
            loads: dict[str, list[Load]] = {side: [] for side in SIDES}
            for _ in range(turns):
                for side in SIDES:
                    loads[side].append(measure(side, work, rounds, sessions, env))
            for side, found in loads.items():
                found.sort(key=lambda load: load.throughput)
                rows.append(Row(where=where, work=WORK[work], side=side, load=found[len(found) // 2]))
    return rows


@click.command()
@click.option("--clients", default=64, show_default=True)
@click.option("--rounds", default=30, show_default=True, help="Commands of each client in each turn.")
@click.option("--turns", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--worker", nargs=3, hidden=True)
def main(clients: int, rounds: int, turns: int, as_json: bool, worker: tuple[str, str, str] | None) -> None:
    """Compare many of our clients in one process with as many of the stock SDK's in threads.

    On the embedded gateway, or on the AgentCube that ROUTER_URL and WORKLOAD_MANAGER_URL, or AGENTCUBE_PICOD_URL,
    name; and on a server that answers at once, which leaves the clients as the only thing that is measured.
    """
    if worker is not None:
        side, work, each = worker
        click.echo(json.dumps(asdict(SIDES[side](work, int(each), json.load(sys.stdin)))))
        return
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        endpoint = endpoint_from(os.environ) or stack.enter_context(start_embedded(Path(home)))
        rows = compare(endpoint.env, endpoint.kind, clients, rounds, turns)
    with instant_answers() as env:
        rows += compare(env, "instant", clients, rounds, turns)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    console = Console()
    console.width = max(console.width, 130)
    console.print(table(rows, clients))
    for ours, stock in zip(rows[::2], rows[1::2], strict=True):
        ratio = ours.load.throughput / stock.load.throughput
        console.print(f"{ours.where}, {ours.work}: {ratio:.2f} times the throughput")


if __name__ == "__main__":
    main()
