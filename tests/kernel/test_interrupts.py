"""Interrupts of everything that a cell can be busy with."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from agentcube_kernel import AsyncCodeInterpreterClient, AsyncSandbox
from tests.kernel.conftest import StartKernel
from tests.kernel.frontend import NOT_THERE, FrontEnd

BUSY = {
    "loop": "print('on')\nwhile True: pass",
    "sleep": "import time\nprint('on')\ntime.sleep(60)",
    "child": "import subprocess\nprint('on')\nsubprocess.run(['sleep', '60'])",
    "shell": "print('on')\n!sleep 60",
    "bash": "%%bash\necho on\nsleep 60",
    "await": "import asyncio\nprint('on')\nawait asyncio.sleep(60)",
    "thread": "import threading\nprint('on')\nthreading.Event().wait(60)",
}


@pytest.mark.parametrize("kind", BUSY)
async def test_an_interrupt_ends_the_cell_and_nothing_else(kernel: FrontEnd, kind: str) -> None:
    """The cell ends with KeyboardInterrupt within seconds, and the variables are kept."""
    await kernel.run("kept = 17")
    cell = kernel.begin(BUSY[kind])
    await kernel.printed(cell, "on")
    await kernel.interrupt()
    done = await kernel.end(cell, timeout=10)
    if kind in (
        "shell",
        "bash",
    ):  # the shell reports the child's death by the signal, or IPython the interrupt
        assert done.status in ("ok", "error")
    else:
        assert (done.status, done.content["ename"]) == ("error", "KeyboardInterrupt")
    assert (await kernel.run("kept")).result == "17"


async def test_an_interrupt_ends_a_question(kernel: FrontEnd) -> None:
    """input() that waits for the user ends with KeyboardInterrupt."""
    cell = kernel.begin("input('name? ')")
    await kernel.asked(cell)
    await kernel.interrupt()
    done = await kernel.end(cell, timeout=10)
    assert done.content["ename"] == "KeyboardInterrupt"
    assert (await kernel.run("1 + 1")).result == "2"


async def test_a_cell_may_catch_the_interrupt(kernel: FrontEnd) -> None:
    """What the cell does with KeyboardInterrupt is its own business."""
    cell = kernel.begin(
        "import time\ntry:\n    print('on')\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('caught')"
    )
    await kernel.printed(cell, "on")
    await kernel.interrupt()
    done = await kernel.end(cell, timeout=10)
    assert (done.status, done.text()) == ("ok", "on\ncaught\n")


async def test_an_interrupt_aborts_the_cells_behind(kernel: FrontEnd) -> None:
    """Run all, then interrupt: the rest does not run."""
    running = kernel.begin("import time\nprint('on')\ntime.sleep(60)")
    waiting = kernel.begin("'should not run'")
    await kernel.printed(running, "on")
    await kernel.interrupt()
    assert (await kernel.end(running, timeout=10)).status == "error"
    assert (await kernel.end(waiting, timeout=10)).status == "aborted"


async def test_an_interrupt_of_nothing_does_nothing(kernel: FrontEnd) -> None:
    """With no cell running the kernel answers the interrupt and goes on."""
    assert await kernel.ask("interrupt_request", {}, channel="control") == {"status": "ok"}
    assert (await kernel.run("3 * 3")).result == "9"


async def test_sigint_is_an_interrupt_too(kernel: FrontEnd) -> None:
    """Front ends that send a signal instead of a message interrupt the cell, and the process lives."""
    cell = kernel.begin("import time\nprint('on')\ntime.sleep(60)")
    await kernel.printed(cell, "on")
    os.kill(kernel.pid, signal.SIGINT)
    assert (await kernel.end(cell, timeout=10)).content["ename"] == "KeyboardInterrupt"
    os.kill(kernel.pid, signal.SIGINT)
    assert (await kernel.run("4 * 4")).result == "16"


async def test_many_interrupts_leave_a_working_kernel(kernel: FrontEnd) -> None:
    """A user who hammers the stop button gets one KeyboardInterrupt and a kernel that works."""
    cell = kernel.begin("import time\nprint('on')\ntime.sleep(60)")
    await kernel.printed(cell, "on")
    for _ in range(10):
        await kernel.interrupt()
    assert (await kernel.end(cell, timeout=10)).content["ename"] == "KeyboardInterrupt"
    assert (await kernel.run("5 * 5", timeout=10)).result == "25"


async def test_an_interrupt_while_the_sandbox_starts_cancels_the_start(start_kernel: StartKernel) -> None:
    """A creation that takes long can be given up, and the next cell tries again."""
    user = await start_kernel(env=NOT_THERE)
    cell = user.begin("1")
    await user.until(lambda m: m["msg_type"] == "display_data", timeout=15)
    await user.interrupt()
    done = await user.end(cell, timeout=5)
    assert done.content["ename"] == "KeyboardInterrupt"
    assert "nothing was run" in done.content["evalue"]
    assert done.of_type("update_display_data")[-1]["data"]["text/plain"].startswith(
        "The sandbox did not start"
    )


async def test_an_interrupt_at_any_moment_leaves_something_to_see(kernel: FrontEnd) -> None:
    """A cell that is interrupted as it starts ends at once, with an error that front ends show."""
    await kernel.run("import time")
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05):
        cell = kernel.begin("time.sleep(1)")
        await kernel.until(lambda m, cell=cell: m["parent_header"].get("msg_id") == cell)
        await asyncio.sleep(delay)
        await kernel.interrupt()
        done = await kernel.end(cell, timeout=10)
        if done.status == "error":
            (error,) = done.of_type("error")
            assert error["ename"] == "KeyboardInterrupt"
            assert error["traceback"] == done.content["traceback"] != []
    assert (await kernel.run("1 + 1")).result == "2"


@pytest.mark.usefixtures("needs_sessions", "configured")
async def test_an_interrupt_of_a_waiting_cell_ends_just_that(kernel: FrontEnd) -> None:
    """A cell behind one of another program ends at once without having run; the other cell goes on."""
    await kernel.run("import os; ran = False")
    session = (await kernel.run("%sandbox info")).of_type("display_data")[0]["data"]["text/plain"]
    found = re.search(r"[0-9a-f-]{36}", session)
    assert found is not None
    async with AsyncSandbox(AsyncCodeInterpreterClient(session_id=found[0])) as other:
        holds = await other.start_cell("import threading; gate = threading.Event(); gate.wait(60); 'done'")
        await holds.begun()
        cell = kernel.begin("ran = True")
        await kernel.until(
            lambda m: m["msg_type"] == "stream" and "Waiting: session" in m["content"]["text"], timeout=20
        )
        await kernel.interrupt()
        done = await kernel.end(cell, timeout=10)
        assert done.content["ename"] == "KeyboardInterrupt"
        assert "not run" in done.content["evalue"]
        assert len(done.of_type("error")) == 1
        assert not holds.ended
        await holds.interrupt()
        await holds.result()
        assert (await kernel.run("ran")).result == "False"
