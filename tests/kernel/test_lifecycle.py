"""The kernel's start and its several ends, and what becomes of the sandbox."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.errors import SessionNotFoundError
from agentcube_kernel.sessions.ledger import Ledger
from tests.kernel.conftest import StartKernel
from tests.kernel.frontend import FrontEnd

# How long deleting may take after the kernel has gone: the reaper, where there was no time for more.
DELETED_WITHIN = 5.0


async def session_of(user: FrontEnd) -> str:
    """The id of the session that this kernel uses."""
    record = await asyncio.to_thread(Ledger().get_kernel, user.manager.connection_file)
    assert record is not None
    return record.session_id


async def noted_as_running(user: FrontEnd) -> None:
    """Wait until the kernel has written down that it waits for a cell."""
    async with asyncio.timeout(10):
        while True:
            record = await asyncio.to_thread(Ledger().get_kernel, user.manager.connection_file)
            if record is not None and record.guest is not None and "running_cell" in record.guest:
                return
            await asyncio.sleep(0.05)


async def is_there(session_id: str) -> bool:
    client = AsyncCodeInterpreterClient(session_id=session_id)
    await client.open()
    try:
        await client.data_plane.execute(["true"], timeout=10)
    except SessionNotFoundError:
        return False
    finally:
        await client.close()
    return True


async def is_deleted(session_id: str) -> bool:
    deadline = time.monotonic() + DELETED_WITHIN
    while await is_there(session_id):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def test_the_sandbox_is_started_before_the_first_cell(start_kernel: StartKernel) -> None:
    """Right after the kernel has started, completion soon knows IPython's names without any cell having run."""
    user = await start_kernel()
    async with asyncio.timeout(15):
        while "get_ipython" not in (  # noqa: ASYNC110 - only asking tells
            await user.ask("complete_request", {"code": "get_ipyth", "cursor_pos": 9})
        ).get("matches", ()):
            await asyncio.sleep(0.1)


async def test_a_lazy_kernel_waits_for_its_first_cell(start_kernel: StartKernel) -> None:
    """With AGENTCUBE_EAGER_START=0, or the trait, no session is made until a cell runs."""
    by_variable = await start_kernel(env={"AGENTCUBE_EAGER_START": "0"})
    by_option = await start_kernel(arguments=["--AgentCubeKernel.eager_start=False"])
    for user in (by_variable, by_option):
        await user.run("")
        await asyncio.sleep(1.0)
        assert await asyncio.to_thread(Ledger().get_kernel, user.manager.connection_file) is None
        assert (await user.run("1 + 1")).result == "2"


@pytest.mark.usefixtures("configured", "needs_sessions")
async def test_shutdown_deletes_the_session(start_kernel: StartKernel) -> None:
    """A clean shutdown is over within Jupyter's patience, and the session is gone, also in the middle of a cell."""
    for code in ("1", "import time\nprint('on')\ntime.sleep(60)"):
        user = await start_kernel()
        await user.run("1")
        cell = user.begin(code)
        if "on" in code:
            await user.printed(cell, "on")
        session_id = await session_of(user)
        await user.disconnect()
        began = time.monotonic()
        await user.manager.shutdown_kernel()
        assert time.monotonic() - began < 2.5
        assert not await is_there(session_id)


@pytest.mark.usefixtures("configured", "needs_sessions")
async def test_sigterm_deletes_the_session(start_kernel: StartKernel) -> None:
    """A kernel that is told to end by signal ends in order."""
    user = await start_kernel()
    await user.run("1")
    session_id = await session_of(user)
    os.kill(user.pid, signal.SIGTERM)
    await user.manager.provisioner.wait()  # type: ignore[union-attr]
    assert not await is_there(session_id)


@pytest.mark.usefixtures("configured", "needs_sessions")
async def test_a_kernel_that_is_killed_and_not_replaced_leaves_no_session(start_kernel: StartKernel) -> None:
    """`now=True` gives the kernel no time at all; its session is deleted soon after."""
    user = await start_kernel()
    await user.run("1")
    session_id = await session_of(user)
    await user.disconnect()
    await user.manager.shutdown_kernel(now=True)
    assert await is_deleted(session_id)


@pytest.mark.usefixtures("configured", "needs_sessions")
async def test_restart_gives_a_fresh_interpreter_with_the_same_files(start_kernel: StartKernel) -> None:
    """After the restart button variables are gone, files and the session are there, and counting begins again."""
    user = await start_kernel()
    await user.run("x = 1\nopen('kept.txt', 'w').write('kept')")
    session_id = await session_of(user)
    await user.restart()
    done = await user.run("'x' in globals(), open('kept.txt').read()")
    assert (done.result, done.count) == ("(False, 'kept')", 1)
    assert done.types == ["execute_input", "execute_result"]
    assert await session_of(user) == session_id


async def test_restart_in_the_middle_of_a_cell(start_kernel: StartKernel) -> None:
    """A cell that would never end does not outlive a restart."""
    user = await start_kernel()
    cell = user.begin("print('on')\nwhile True: pass")
    await user.printed(cell, "on")
    await user.restart()
    done = await user.run("1 + 1", timeout=15)
    assert (done.result, done.count) == ("2", 1)


@pytest.mark.usefixtures("needs_sessions", "configured")
async def test_a_crashed_kernel_goes_on_where_it_was(start_kernel: StartKernel) -> None:
    """Killed in the middle of a cell and started again: the variables and the rest of the output are there."""
    user = await start_kernel()
    await user.run("x = 41")
    cell = user.begin(
        "import os, time\nprint('before')\nwhile not os.path.exists('go'):\n    time.sleep(0.02)\n"
        "print('after')\nx += 1\nprint('end')"
    )
    await user.printed(cell, "before")
    session_id = await session_of(user)
    await noted_as_running(user)
    await user.kill_and_start_again()
    next_cell = user.begin("x")
    async with AsyncCodeInterpreterClient(session_id=session_id) as client:
        await client.write_file("", "go")
    done = await user.end(next_cell)
    assert done.result == "42"
    assert "goes on in the same sandbox" in done.text("stderr")
    assert done.text() == "after\nend\n"
    assert await session_of(user) == session_id
    again = await user.run("x")
    assert again.types == ["execute_input", "execute_result"]
    assert again.count == (done.count or 0) + 1 == 4


@pytest.mark.usefixtures("needs_sessions")
async def test_a_kernel_that_crashes_idle_goes_on_where_it_was(start_kernel: StartKernel) -> None:
    """Killed between two cells, twice: the variables are there and one line says what happened."""
    user = await start_kernel()
    await user.run("x = 1")
    for n in (1, 2):
        await user.kill_and_start_again()
        done = await user.run("x = x + 1; x")
        assert done.result == str(n + 1)
        assert done.text("stderr").count("\n") == 1


@pytest.mark.usefixtures("needs_sessions")
async def test_a_recovered_cell_can_be_interrupted(start_kernel: StartKernel) -> None:
    """A cell that outlived its kernel and never ends is stopped by the stop button, and the next cell runs."""
    user = await start_kernel()
    endless = user.begin("import time\nn = 0\nwhile True:\n    print('tick', n); n += 1; time.sleep(0.2)")
    await user.printed(endless, "tick 1")
    await user.kill_and_start_again()
    cell = user.begin("'next'")
    await user.printed(cell, "tick")
    await user.interrupt()
    done = await user.end(cell, timeout=15)
    assert done.content["ename"] == "KeyboardInterrupt"
    assert (await user.run("n > 1")).result == "True"


async def test_the_first_cell_tells_why_there_is_no_sandbox(start_kernel: StartKernel) -> None:
    """What kept the sandbox from starting is the cell's error: one readable line, in place of a traceback."""
    user = await start_kernel(env={"AGENTCUBE_TOKEN": "", "AGENTCUBE_TOKEN_FILE": "/no/such/file"})
    done = await user.run("1 + 1")
    assert done.status == "error"
    assert done.types == ["execute_input", "error"]
    (error,) = done.of_type("error")
    assert "/no/such/file" in error["evalue"]
    assert len(error["traceback"]) == 1
    assert "site-packages" not in error["traceback"][0]
    assert await user.is_alive()


async def test_bad_settings_are_told_and_the_kernel_lives(start_kernel: StartKernel) -> None:
    """A setting with a bad value is named in the cell."""
    user = await start_kernel(env={"ROUTER_URL": "not a url"})
    for _ in range(2):
        done = await user.run("1 + 1")
        assert done.content["ename"] == "ConfigurationError"
        assert "ROUTER_URL" in done.content["evalue"]
    assert (await user.ask("kernel_info_request", {}))["status"] == "ok"


@pytest.mark.usefixtures("configured", "needs_sessions")
async def test_a_session_that_is_gone_is_told_once(start_kernel: StartKernel) -> None:
    """When the session was deleted behind our back, a cell says what is lost and the next one has a new sandbox."""
    user = await start_kernel()
    await user.run("x = 1")
    async with AsyncCodeInterpreterClient(session_id=await session_of(user)) as client:
        await client.stop(force=True)
    lost = await user.run("x")
    assert lost.content["ename"] == "SessionNotFoundError"
    fresh = await user.run("'x' in globals()")
    assert (fresh.result, fresh.count) == ("False", 1)


async def test_an_interpreter_that_dies_is_told_and_replaced(start_kernel: StartKernel) -> None:
    """os._exit in a cell ends that cell with an error; the kernel lives and the next cell has a new interpreter."""
    user = await start_kernel()
    await user.run("x = 1\nopen('kept.txt', 'w').close()")
    lost = await user.run("import os; os._exit(3)")
    assert lost.content["ename"] == "GuestLostError"
    fresh = await user.run("import os; 'x' in globals(), os.path.exists('kept.txt')")
    assert fresh.result == "(False, True)"
    assert await user.is_alive()


async def test_nothing_of_the_kernel_s_own_shows_in_cells(start_kernel: StartKernel) -> None:
    """Between start and shutdown the only outputs are those of the cells."""
    # A start that takes seconds is told of, and on a busy machine it does take them.
    user = await start_kernel(env={"AGENTCUBE_PROGRESS": "0"})
    for n in range(3):
        assert (await user.run(str(n))).types == ["execute_input", "execute_result"]
    orphans = [
        m for m in user.messages if m["channel"] == "iopub" and m["msg_type"] in ("stream", "display_data")
    ]
    assert orphans == []
