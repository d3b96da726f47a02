"""What is left of kernels that end in every way: nothing but what was kept and what belongs to others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from tests.endpoints import TAKEOVER_SECONDS, start_embedded
from tests.magics.notebooks import Notebook, notebook
from tests.sessions.slow_manager import slow_manager

WITHIN_SECONDS = 12.0


@pytest.fixture
def gateway_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A gateway of this test's own; the folder in which each of its sessions has one."""
    with tempfile.TemporaryDirectory(prefix="ac") as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        with start_embedded(Path(temporary) / "home") as endpoint:
            monkeypatch.delenv("TMPDIR")
            for name, value in endpoint.env.items():
                monkeypatch.setenv(name, value)
            (folder,) = (Path(temporary) / f"agentcube-{os.getuid()}").glob("gw-*")
            yield folder


def sessions(folder: Path) -> set[str]:
    """The sessions that the gateway has, by the names of their folders."""
    return {entry.name for entry in folder.iterdir() if entry.is_dir()}


async def only(folder: Path, wanted: set[str]) -> float:
    """Wait until the gateway has these sessions alone; the seconds that took."""
    since = time.monotonic()
    while (there := await asyncio.to_thread(sessions, folder)) != wanted:
        assert time.monotonic() - since < WITHIN_SECONDS, f"left: {there - wanted}, lost: {wanted - there}"
        await asyncio.sleep(0.1)
    return time.monotonic() - since


async def end(user: Notebook, how: str) -> None:
    """End a kernel in one of the ways in which kernels end."""
    await user.disconnect()
    if how == "shutdown":
        await user.manager.shutdown_kernel()
    elif how == "now":
        await user.manager.shutdown_kernel(now=True)
    elif how == "restart":
        await user.manager.restart_kernel()
        await user.manager.shutdown_kernel()
    elif how in ("SIGTERM", "SIGKILL"):
        os.kill(user.pid, getattr(signal, how))
        await asyncio.to_thread(psutil.Process(user.pid).wait, 10)


ENDS = ("shutdown", "now", "restart", "SIGTERM", "SIGKILL")


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_twenty_kernels_leave_nothing(gateway_folder: Path, tmp_path: Path, anyio_backend: str) -> None:
    """Kernels of both kinds, ended in every way, with a cell run, while starting, and with several sandboxes."""
    before = sessions(gateway_folder)
    async with AsyncCodeInterpreterClient() as other:
        others = sessions(gateway_folder) - before
        for number in range(20):
            how = ENDS[number % len(ENDS)]
            async with contextlib.AsyncExitStack() as stack:
                kind = "ipykernel" if number % 4 == 3 else "agentcube"
                user = await stack.enter_async_context(notebook(kind, tmp_path / str(number), {}))
                if number % 3 == 1:
                    await user.cell("%sandbox new extra")
                    await user.cell("%%sandbox\nx = 1")
                elif number % 3 == 2:
                    await user.cell(f"%sandbox attach {other.session_id} --as theirs")
                elif number >= 10:
                    await asyncio.sleep(0.05 * (number - 10))  # while a session is being created
                await end(user, how)
        took = await only(gateway_folder, before | others)
        assert took < WITHIN_SECONDS


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", [*ENDS, "interrupt", "group"])
async def test_a_kernel_that_ends_while_its_session_is_created(
    gateway_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str, how: str
) -> None:
    """A slow WorkloadManager finishes a creation after its kernel is gone; the session is deleted all the same."""
    before = sessions(gateway_folder)
    async with slow_manager(os.environ["WORKLOAD_MANAGER_URL"]) as manager:
        monkeypatch.setenv("WORKLOAD_MANAGER_URL", manager.url)
        async with notebook("agentcube", tmp_path / "one", {}) as user:
            cell = user.begin("1")
            await manager.asked()
            if how == "interrupt":
                await user.interrupt()
                await user.end(cell)
                await end(user, "shutdown")
            elif how == "group":
                await user.disconnect()
                os.killpg(user.pid, signal.SIGKILL)
                await asyncio.to_thread(psutil.Process(user.pid).wait, 10)
            else:
                await end(user, how)
            manager.go_on()
        await only(gateway_folder, before)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["agentcube", "ipykernel"])
async def test_a_dead_server_leaves_what_was_kept(
    gateway_folder: Path, tmp_path: Path, anyio_backend: str, kind: str
) -> None:
    """When everything of Jupyter is killed at once, the kept session stays and the others go."""
    before = sessions(gateway_folder)
    async with notebook(kind, tmp_path / "one", {}) as user:
        await user.cell("%sandbox new kept --keep")
        kept_id = await user.session_id("kept")
        kept = sessions(gateway_folder)
        await user.cell("%sandbox new lost")
        lost = sessions(gateway_folder) - kept
        await user.disconnect()
        # A server that is killed takes the kernel along and leaves the connection file behind.
        os.killpg(user.pid, signal.SIGKILL)
        await asyncio.to_thread(psutil.Process(user.pid).wait, 10)
        deadline = time.monotonic() + WITHIN_SECONDS
        while lost & sessions(gateway_folder):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    client = AsyncCodeInterpreterClient(session_id=kept_id)
    await client.open()
    await client.health()
    await client.stop(force=True)
    await only(gateway_folder, before)


@pytest.mark.timeout(120)
async def test_a_crashed_kernel_finds_its_sandboxes_again(
    gateway_folder: Path, tmp_path: Path, anyio_backend: str
) -> None:
    """The next kernel on the connection file has all named sandboxes of the last one, variables included."""
    async with notebook("agentcube", tmp_path / "one", {}) as user:
        await user.cell("home = 1")
        await user.cell("%sandbox new extra")
        await user.cell("there = 2")
        await user.cell("%sandbox rename extra other")
        ids = [await user.session_id("main"), await user.session_id("other")]
        await user.kill_and_start_again()
        assert (await user.run("there")).result == "2"
        await user.cell("%sandbox use main")
        assert (await user.run("home")).result == "1"
        assert [await user.session_id("main"), await user.session_id("other")] == ids
        await asyncio.sleep(TAKEOVER_SECONDS + 2)  # longer than the reaper of the first kernel waits
        await user.cell("%sandbox info main")
        await user.cell("%sandbox info other")
    await only(gateway_folder, set())
