"""Creations that outlive their process: whatever becomes of it meanwhile, no session is left that nobody knows of."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.errors import AuthenticationError, InterpreterNotFoundError
from agentcube_kernel.sessions.keeper import Keeper
from agentcube_kernel.sessions.ledger import Ledger
from tests.sessions.slow_manager import SlowManager, slow_manager

pytestmark = pytest.mark.usefixtures("configured", "needs_sessions")

MAKE_ONE = """
import asyncio, json, sys
from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.sessions.keeper import Keeper

async def main():
    client = AsyncCodeInterpreterClient(keeper=Keeper())
    await client.open()
    print(json.dumps(client.session_id), flush=True)
    {then}

asyncio.run(main())
"""


@pytest.fixture
async def manager(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowManager]:
    """A WorkloadManager whose creations are answered when the test says so."""
    async with slow_manager(os.environ["WORKLOAD_MANAGER_URL"]) as manager:
        monkeypatch.setenv("WORKLOAD_MANAGER_URL", manager.url)
        yield manager


def start(then: str = "") -> subprocess.Popen[str]:
    """A process that creates a session."""
    return subprocess.Popen(
        [sys.executable, "-c", MAKE_ONE.replace("{then}", then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


async def forgotten(session_id: str) -> None:
    """Wait until a session that was deleted has left the ledger: another process writes it."""
    async with asyncio.timeout(10):
        while Ledger().session(session_id) is not None:  # noqa: ASYNC110 - nothing here tells of it
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
async def test_an_owner_that_ends_while_it_creates(manager: SlowManager, how: signal.Signals) -> None:
    """The session is deleted as soon as its id is known, though nobody is left who asked for it."""
    process = start()
    await manager.asked()
    assert [creation.namespace for creation in Ledger().creations()] == ["default"]
    os.killpg(process.pid, how)
    await asyncio.to_thread(process.communicate)
    manager.go_on()
    session_id = await manager.deleted()
    await forgotten(session_id)
    assert Ledger().creations() == []


async def test_a_creation_that_is_cancelled(manager: SlowManager) -> None:
    """A cancelled call leaves the creation to the reaper, which deletes its session."""
    keeper = Keeper()
    client = AsyncCodeInterpreterClient(keeper=keeper)
    opening = asyncio.create_task(client.open())
    await manager.asked()
    await client.close()
    with pytest.raises(BaseException):  # noqa: B017, PT011 - closed while it was being opened, or cancelled
        await opening
    manager.go_on()
    await manager.deleted()
    keeper.close()


async def test_the_normal_way(manager: SlowManager) -> None:
    """A session that its owner has heard of stays until the owner ends, in the ledger from the first moment."""
    process = start("await asyncio.sleep(3600)")
    await manager.asked()
    manager.go_on()
    assert process.stdout is not None
    session_id = json.loads(await asyncio.to_thread(process.stdout.readline))
    record = Ledger().session(session_id)
    assert record is not None
    assert record.owner.pid == process.pid
    process.kill()
    await asyncio.to_thread(process.communicate)
    assert await manager.deleted() == session_id


async def test_a_client_that_deletes_its_session_leaves_no_record(manager: SlowManager) -> None:
    """What is deleted in order is in no ledger any more."""
    manager.go_on()
    keeper = Keeper()
    async with AsyncCodeInterpreterClient(keeper=keeper) as client:
        session_id = client.session_id
        assert session_id is not None
        assert Ledger().session(session_id) is not None
    assert Ledger().session(session_id) is None
    keeper.close()


async def test_errors_arrive_as_they_are(manager: SlowManager) -> None:
    """What the WorkloadManager says to the reaper is raised where the session was wanted."""
    manager.refuse(404, {"message": "code interpreter not found"})
    keeper = Keeper()
    with pytest.raises(InterpreterNotFoundError, match="my-interpreter") as caught:
        await AsyncCodeInterpreterClient(keeper=keeper).open()
    assert (caught.value.status, caught.value.name) == (404, "my-interpreter")
    manager.refuse(401, {"message": "Invalid or expired token"})
    with pytest.raises(AuthenticationError):
        await AsyncCodeInterpreterClient(keeper=keeper).open()
    keeper.close()


async def test_without_a_reaper_sessions_work_and_the_user_is_told(
    manager: SlowManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where no reaper can be started, sessions are created from here, and `trouble` says what does not work."""
    manager.go_on()
    (tmp_path / "file").touch()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "file" / "below"))
    keeper = Keeper()
    begun = time.monotonic()
    async with AsyncCodeInterpreterClient(keeper=keeper) as client:
        assert (await client.health()).status == "ok"
    assert keeper.trouble is not None
    assert "cannot be reached" in keeper.trouble
    assert time.monotonic() - begun < 10
    keeper.close()
