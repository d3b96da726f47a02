"""The measurements themselves; each returns rows of the table."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.config import Settings
from agentcube_kernel.sandbox import AsyncSandbox
from benchmarks.kernels import BASELINE, OURS, Kernel, launched, ready
from benchmarks.result import Result, Skipped, compared, interleaved, milliseconds, percentile
from benchmarks.stock import StockCodeInterpreter
from tests.endpoints import Endpoint
from tests.faultproxy import running_fault_proxy

Rows = list[Result | Skipped]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where to measure and how long: `effort` is 1 for the full measurement and less for a quick look."""

    endpoint: Endpoint
    effort: float = 1.0

    def samples(self, count: int) -> int:
        """How many samples to take where the full measurement takes `count`."""
        return max(3, round(count * self.effort))


def kernel_round_trip(bench: Bench) -> Rows:
    """A cell through the kernel, beside the same cell through ipykernel."""
    with ready(OURS, bench.endpoint.env) as ours, ready(BASELINE, {}) as baseline:
        pair = interleaved(
            lambda: ours.round_trip("1+1"), lambda: baseline.round_trip("1+1"), samples=bench.samples(100)
        )
    return [compared("kernel round trip of 1+1", *pair, "ipykernel", at_most=2.5)]


def channel_round_trip(bench: Bench) -> Rows:
    """A cell through the channel, beside /bin/true through the same server."""

    async def measure() -> tuple[float, float]:
        client = AsyncCodeInterpreterClient(settings=Settings.load(bench.endpoint.env))
        async with AsyncSandbox(client) as sandbox:
            cells, commands = [], []
            for _ in range(bench.samples(200)):
                begun = time.perf_counter()
                await sandbox.run_cell("1+1")
                between = time.perf_counter()
                await client.data_plane.execute(["/bin/true"])
                cells.append(between - begun)
                commands.append(time.perf_counter() - between)
        return statistics.median(cells), statistics.median(commands)

    return [compared("channel round trip of 1+1", *asyncio.run(measure()), "/bin/true", at_most=3)]


CELLS = (
    "import pandas as pd",
    "frame = pd.DataFrame({'n': range(1000), 'group': [i % 7 for i in range(1000)]})",
    "frame['square'] = frame['n'] ** 2",
    "means = frame.groupby('group')['square'].mean()",
    "top = means.sort_values(ascending=False).head(3)",
    "frame = frame.merge(means.rename('mean'), on='group')",
    "frame['above'] = frame['square'] > frame['mean']",
    "share = frame.groupby('group')['above'].mean()",
    "table = pd.DataFrame({'mean': means, 'share': share})",
    "print(table.round(2).to_string())",
)


def dependent_cells(bench: Bench) -> Rows:
    """Ten cells that each need the ones before, which the stock SDK has to run again every time."""
    name = "ten dependent pandas cells"

    async def ours(client: AsyncCodeInterpreterClient) -> float:
        begun = time.perf_counter()
        async with AsyncSandbox(client) as sandbox:
            for code in CELLS:
                result = await sandbox.run_cell(code)
                if not result.ok:
                    raise RuntimeError(f"{result.ename}: {result.evalue}")
        return time.perf_counter() - begun

    settings = Settings.load(bench.endpoint.env)
    with StockCodeInterpreter(bench.endpoint) as stock:
        if not stock.has("pandas"):
            return [Skipped(name=name, reason="the sandbox's python3 has no pandas")]

        def baseline() -> float:
            begun = time.perf_counter()
            for number in range(len(CELLS)):
                stock.run_code("python", "\n".join(CELLS[: number + 1]))
            return time.perf_counter() - begun

        pair = interleaved(
            lambda: asyncio.run(ours(AsyncCodeInterpreterClient(settings=settings))),
            baseline,
            samples=bench.samples(3),
            warm_up=1,
        )
    row = compared(name, *pair, "stock run_code")
    speed = pair[1] / pair[0]
    return [
        Result(
            name=name,
            ours=f"{row.ours}, session and all",
            baseline=row.baseline,
            ratio=row.ratio,
            target="≥ 5 times faster",
            met=speed >= 5,
        )
    ]


STAMPS = """
import time
for number in range({count}):
    print(repr(time.time()), flush=True)
    time.sleep((0.01, 0.05, 0.12, 0.3)[number % 4])
"""


def print_latency(bench: Bench) -> Rows:
    """From a print in the sandbox to its arrival at the front end; both clocks must be this machine's."""
    code = STAMPS.format(count=bench.samples(100))

    def delays(kernel: Kernel) -> list[float]:
        return [
            arrived - float(line)
            for arrived, message in kernel.events(code)
            if message["msg_type"] == "stream"
            for line in message["content"]["text"].split()
        ]

    with ready(OURS, bench.endpoint.env) as ours, ready(BASELINE, {}) as baseline:
        mine, theirs = delays(ours), delays(baseline)
    rows: Rows = []
    for percent, target in ((50, None), (95, 0.05)):
        here, there = percentile(mine, percent), percentile(theirs, percent)
        rows.append(
            Result(
                name=f"print to its arrival, p{percent}",
                ours=milliseconds(here),
                baseline=f"{milliseconds(there)} ipykernel",
                ratio=here / there,
                target="" if target is None else f"≤ {milliseconds(target)}",
                met=None if target is None else here <= target,
            )
        )
    return rows


def startup(bench: Bench) -> Rows:
    """From the launch of the process to kernel_info, and to the first cell's answer."""

    def start(name: str, env: Mapping[str, str]) -> tuple[float, float]:
        with launched(name, env) as kernel:
            kernel.kernel_info()
            informed = time.perf_counter() - kernel.launched
            kernel.answer("1+1")
            return informed, time.perf_counter() - kernel.launched

    pairs = [(start(OURS, bench.endpoint.env), start(BASELINE, {})) for _ in range(bench.samples(7))]
    info, first = (
        tuple(statistics.median(pair[side][which] for pair in pairs) for side in (0, 1)) for which in (0, 1)
    )
    rows: Rows = [
        compared("launch to kernel_info", *info, "ipykernel", at_most=1.5),
        Result(
            name="launch to the first cell's answer",
            ours=milliseconds(first[0]),
            baseline=f"{milliseconds(first[1])} ipykernel",
            ratio=first[0] / first[1],
            target="≤ 2 s",
            met=first[0] <= 2,
        ),
    ]
    if bench.endpoint.kind == "embedded":
        rows.append(_cold_start(first[1]))
    return rows


def _cold_start(baseline: float) -> Result:
    """The same for a user who has configured nothing and has no gateway running yet."""
    with tempfile.TemporaryDirectory() as home:
        runtime = Path(home) / "runtime"
        runtime.mkdir(mode=0o700)
        env = {
            **dict.fromkeys(
                ("ROUTER_URL", "WORKLOAD_MANAGER_URL", "AGENTCUBE_PICOD_URL", "AGENTCUBE_TOKEN"), ""
            ),
            **{"HOME": home, "XDG_RUNTIME_DIR": str(runtime), "JUPYTER_RUNTIME_DIR": str(runtime)},
            **{
                "JUPYTER_DATA_DIR": str(Path(home) / "data"),
                "JUPYTER_PATH": str(Path(sys.prefix) / "share/jupyter"),
            },
        }
        with launched(OURS, env) as kernel:
            kernel.answer("1+1")
            took = time.perf_counter() - kernel.launched
        look = "from agentcube_kernel.gateway.launcher import ensure_gateway; print(ensure_gateway().pid)"
        pid = int(subprocess.check_output([sys.executable, "-c", look], env={**os.environ, **env}))
        gateway = psutil.Process(pid)
        gateway.send_signal(signal.SIGTERM)
        psutil.wait_procs([gateway], timeout=10)
    return Result(
        name="the same, with the embedded gateway still to be started",
        ours=milliseconds(took),
        baseline=f"{milliseconds(baseline)} ipykernel",
        ratio=took / baseline,
        target="≤ 2 s",
        met=took <= 2,
    )


MEGABYTE = 1_000_000
MUCH = """
line = 'x' * 99 + '\\n'
block = line * 1000
for _ in range({count}):
    print(block, end='')
"""
# The interpreter that runs the cells and the process that watches over it.
MEMORY = """
import os
def _peak(pid):
    with open(f'/proc/{pid}/status') as status:
        fields = dict(line.split(':', 1) for line in status)
    return int(fields['%s'].split()[0]) * 1024
print(_peak(os.getpid()) + _peak(os.getppid()))
"""


def much_output(bench: Bench) -> Rows:
    """A hundred megabytes of text: how fast they come, and what they cost in memory."""
    megabytes = max(10, round(100 * bench.effort))
    code = MUCH.format(count=megabytes * MEGABYTE // 100_000)

    def measure(kernel: Kernel) -> tuple[float, int]:
        begun = time.perf_counter()
        arrived = sum(
            len(message["content"]["text"])
            for _, message in kernel.events(code)
            if message["msg_type"] == "stream"
        )
        return arrived / MEGABYTE / (time.perf_counter() - begun), arrived

    with ready(OURS, bench.endpoint.env) as ours, ready(BASELINE, {}) as baseline:
        guest_before = int(ours.run(MEMORY.replace("%s", "VmRSS")))
        with MemoryWatch(ours.pid) as watch:
            speed, arrived = measure(ours)
        guest_growth = int(ours.run(MEMORY.replace("%s", "VmHWM"))) - guest_before
        there, _ = measure(baseline)
    complete = arrived == megabytes * MEGABYTE
    rows: Rows = [
        Result(
            name=f"{megabytes} MB of output",
            ours=f"{speed:.0f} MB/s, {'complete' if complete else f'{arrived / MEGABYTE:.0f} MB of it'}",
            baseline=f"{there:.0f} MB/s ipykernel",
            ratio=there / speed,
            target="complete",
            met=complete,
        )
    ]
    for name, growth in (("the kernel's", watch.growth), ("the guest's", guest_growth)):
        rows.append(
            Result(
                name=f"{name} memory meanwhile",
                ours=f"{growth / MEGABYTE:+.0f} MB",
                target="≤ 64 MB",
                met=growth <= 64 * MEGABYTE,
            )
        )
    return rows


class MemoryWatch:
    """Watches a process's memory while its context lasts; `growth` is the most that it grew by, in bytes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self._peak = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def growth(self) -> int:
        return self._peak - self._before

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._peak = max(self._peak, self._process.memory_info().rss)


def idle(bench: Bench) -> Rows:
    """Requests that the kernel sends: none while nothing runs, beside those of a silent cell that runs."""
    seconds = max(3.0, 15.0 * bench.effort)
    with running_fault_proxy(bench.endpoint.data_url) as proxy:
        name = "AGENTCUBE_PICOD_URL" if bench.endpoint.kind == "picod" else "ROUTER_URL"
        with ready(OURS, {**bench.endpoint.env, name: proxy.url}) as kernel:
            before = len(proxy.requests)
            kernel.run(f"import time; time.sleep({seconds})")
            between = len(proxy.requests)
            time.sleep(seconds)
            after = len(proxy.requests)
    return [
        Result(
            name=f"requests in {seconds:g} s of idleness",
            ours=str(after - between),
            baseline=f"{between - before} while a cell sleeps",
            target="0",
            met=after == between,
        )
    ]


MEASURES: dict[str, Callable[[Bench], Rows]] = {
    "kernel": kernel_round_trip,
    "channel": channel_round_trip,
    "cells": dependent_cells,
    "latency": print_latency,
    "startup": startup,
    "output": much_output,
    "idle": idle,
}
