"""Three hundred cells under faults in one request out of ten: each runs once, and its output arrives once, in order.

The faults are those of `tests.faultproxy`: connections refused, reset before, during and after a request, answers that
end in the middle as if they were complete, delays, and the Router's 429, 502, 503 and 504.
"""

from __future__ import annotations

import os
import queue
import re
import signal
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.config import Settings
from agentcube_kernel.sandbox import AsyncSandbox
from tests.endpoints import Endpoint
from tests.faultproxy import FaultPlan, FaultProxy, running_fault_proxy

CELLS = 300
RATE = 0.1
# What a cell of `code_of` puts out, after neighbouring pieces of one stream are joined.
Shown = list[tuple[str, str]]


def code_of(number: int) -> str:
    """A cell with six events, a few of them while it still runs."""
    wait = "time.sleep(0.05)" if number % 10 == 0 else "pass"
    return "\n".join(
        [
            f"ran.append({number})",
            f"print('{number} one')",
            f"print('{number} two', file=sys.stderr)",
            f"display('{number} three')",
            wait,
            f"print('{number} four')",
            f"'{number} five'" if number % 7 else f"raise ValueError('{number} five')",
        ]
    )


def shown_by(number: int) -> Shown:
    """What the cell of `code_of` is to show."""
    last = "execute_result" if number % 7 else "error"
    return [
        ("stdout", f"{number} one\n"),
        ("stderr", f"{number} two\n"),
        ("display_data", f"{number} three"),
        ("stdout", f"{number} four\n"),
        (last, f"{number} five"),
    ]


def piece(message_type: str, content: Mapping[str, Any]) -> tuple[str, str] | None:
    """What one event shows, or None when it shows nothing."""
    if message_type == "stream":
        return content["name"], content["text"]
    if message_type in ("display_data", "execute_result"):
        return message_type, content["data"]["text/plain"].strip("'")
    if message_type == "error":
        return message_type, content["evalue"]
    return None


def joined(pieces: list[tuple[str, str]]) -> Shown:
    """The pieces, with neighbouring ones of one stream joined."""
    return [
        (kind, "".join(text for _, text in run)) for kind, run in groupby(pieces, key=lambda item: item[0])
    ]


def through(proxy: FaultProxy, endpoint: Endpoint) -> dict[str, str]:
    """The endpoint's environment, with the proxy between client and data plane."""
    name = "AGENTCUBE_PICOD_URL" if endpoint.kind == "picod" else "ROUTER_URL"
    return {**endpoint.env, name: proxy.url}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_sandbox_under_faults(endpoint: Endpoint, seed: int) -> None:
    """Through `AsyncSandbox`: also when every tenth request is lost, doubled, cut short, late or refused."""
    async with FaultProxy(endpoint.data_url, FaultPlan(rate=RATE, seed=seed)) as proxy:
        client = AsyncCodeInterpreterClient(settings=Settings.load(through(proxy, endpoint)))
        async with AsyncSandbox(client) as sandbox:
            first = await sandbox.run_cell("import sys, time; ran = []")
            assert first.ok
            for number in range(CELLS):
                result = await sandbox.run_cell(code_of(number))
                pieces = [shown for event in result.events if (shown := piece(event.type, event.content))]
                assert joined(pieces) == shown_by(number)
                assert result.execution_count == first.execution_count + 1 + number
                assert [event.type for event in result.events].count("execute_reply") == 1
            ran = await sandbox.run_cell("ran")
            proxy.plan = FaultPlan()
        assert ran.text is not None
        assert [int(number) for number in re.findall(r"\d+", ran.text)] == list(range(CELLS))
        assert len(proxy.faults) >= 10, f"too few kinds of faults happened: {proxy.faults}"


@pytest.fixture
def kernel_manager(tmp_path: Path) -> Iterator[KernelManager]:
    """A manager of this kernel, which is not started; it is shut down in the end."""
    manager = KernelManager(kernel_name="agentcube", connection_file=str(tmp_path / "kernel.json"))
    yield manager
    if manager.has_kernel:
        manager.shutdown_kernel()
    manager.cleanup_resources()


def connect(manager: KernelManager) -> BlockingKernelClient:
    """A client whose kernel answers."""
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=30)
    return client


def run(client: BlockingKernelClient, code: str, timeout: float = 60) -> tuple[Shown, dict[str, Any]]:
    """Run a cell; return what it showed and its reply."""
    message_id = client.execute(code, stop_on_error=False)
    pieces = list(shown_until_idle(client, message_id, timeout))
    while True:
        reply = client.get_shell_msg(timeout=timeout)
        if reply["parent_header"].get("msg_id") == message_id:
            return joined(pieces), reply["content"]


def shown_until_idle(
    client: BlockingKernelClient, message_id: str, timeout: float
) -> Iterator[tuple[str, str]]:
    """What the cell of a message shows until the kernel is idle again."""
    while True:
        message = client.get_iopub_msg(timeout=timeout)
        if message["parent_header"].get("msg_id") != message_id:
            continue
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return
        if shown := piece(message["msg_type"], message["content"]):
            yield shown


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kernel_under_faults(endpoint: Endpoint, kernel_manager: KernelManager) -> None:
    """Through the kernel: every message arrives once and in order, and reply and outputs agree."""
    with running_fault_proxy(endpoint.data_url, FaultPlan(rate=RATE, seed=3)) as proxy:
        kernel_manager.start_kernel(env={**os.environ, **through(proxy, endpoint)})
        client = connect(kernel_manager)
        try:
            first = run(client, "import sys, time; ran = []")[1]
            assert first["status"] == "ok"
            for number in range(CELLS):
                shown, reply = run(client, code_of(number))
                assert shown == shown_by(number)
                assert reply["status"] == ("ok" if number % 7 else "error")
                assert reply["execution_count"] == first["execution_count"] + 1 + number
            (_, ran), *_ = run(client, "ran")[0]
        finally:
            proxy.plan = FaultPlan()
            client.stop_channels()
            kernel_manager.shutdown_kernel()
        assert [int(number) for number in re.findall(r"\d+", ran)] == list(range(CELLS))
        assert len(proxy.faults) >= 8, f"too few kinds of faults happened: {proxy.faults}"


@pytest.mark.timeout(120)
def test_a_kernel_that_is_killed_in_a_cell(
    endpoint_env: dict[str, str], kernel_manager: KernelManager
) -> None:
    """The next kernel on the connection file has the same variables and the rest of the cell's output."""
    kernel_manager.start_kernel(env={**os.environ, **endpoint_env})
    client = connect(kernel_manager)
    run(client, "import time; kept = 'still here'")
    message_id = client.execute(
        "for n in range(8):\n    print(f'line {n}.', flush=True)\n    time.sleep(0.4)\ndone = True"
    )
    before = ""
    for kind, text in shown_until_idle(client, message_id, 30):
        before += text if kind == "stdout" else ""
        if "line 1." in before:
            break
    client.stop_channels()
    assert kernel_manager.provisioner is not None
    os.kill(kernel_manager.provisioner.pid, signal.SIGKILL)  # type: ignore[attr-defined]

    kernel_manager.restart_kernel(now=True)
    client = connect(kernel_manager)
    after = everything_from(client, client.execute("kept, done"))
    client.stop_channels()
    assert "('still here', True)" in after
    for line in range(2, 8):
        assert after.count(f"line {line}.") == 1
    assert not [line for line in range(8) if f"line {line}." not in before + after]


def everything_from(client: BlockingKernelClient, message_id: str) -> str:
    """All that the kernel shows, whichever message it belongs to, until this cell has ended and a second is quiet."""
    text = ""
    ended = False
    while True:
        try:
            message = client.get_iopub_msg(timeout=1 if ended else 30)
        except queue.Empty:
            return text
        if shown := piece(message["msg_type"], message["content"]):
            text += shown[1]
        own = message["parent_header"].get("msg_id") == message_id
        ended = ended or (own and message["content"].get("execution_state") == "idle")
