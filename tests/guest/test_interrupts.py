"""Interrupts: whatever a cell does, it ends with KeyboardInterrupt and the interpreter goes on."""

from __future__ import annotations

import asyncio

import pytest

from agentcube_kernel.errors import CellTimeoutError
from agentcube_kernel.sandbox import AsyncSandbox
from tests.sandboxes import Running

BUSY = {
    "a busy loop": "while True: pass",
    "a sleep": "import time; time.sleep(600)",
    "a shell command": "!sleep 600",
    "a bash cell": "import subprocess; subprocess.run(['bash', '-c', 'sleep 600; echo no'])",
    "an await": "import asyncio; await asyncio.sleep(600)",
    "a loop of awaits": "import asyncio\nwhile True: await asyncio.sleep(0)",
    "a lock": "import threading; threading.Event().wait()",
    "a generator": "sum(i for i in iter(int, 1))",
    "a loop inside the loop": "import asyncio, threading\nl = asyncio.new_event_loop()\n"
    "def go():\n    l.run_until_complete(asyncio.sleep(600))\nt = threading.Thread(target=go, daemon=True); t.start()\n"
    "while t.is_alive(): t.join(1)",
    "a callback that hogs the loop": "import asyncio\nasync def hog():\n    while True: pass\n"
    "t = asyncio.create_task(hog()); await asyncio.sleep(600)",
    "many prints": "while True: print('x' * 1000)",
    "output of a child": "!yes",
}


@pytest.mark.parametrize("kind", BUSY)
async def test_an_interrupt_ends_the_cell(sandbox: AsyncSandbox, kind: str) -> None:
    """The cell ends with KeyboardInterrupt; the variables are still there."""
    await sandbox.run_cell("kept = 'kept'")
    cell = Running(sandbox, f"print('started', flush=True)\n{BUSY[kind]}")
    await cell.until("stream", "started")
    await sandbox.interrupt()
    async with asyncio.timeout(20):
        reply = await cell.end()
    assert reply["ename"] == "KeyboardInterrupt"
    assert "_on_sigint" not in str(reply["traceback"])
    assert (await sandbox.run_cell("kept")).text == "'kept'"


@pytest.mark.slow
async def test_interrupts_at_any_moment_leave_the_loop_alive(sandbox: AsyncSandbox) -> None:
    """A loop that turns as fast as it can is interrupted over and over; every cell ends and the next one runs."""
    await sandbox.run_cell("import asyncio")
    for _ in range(60):
        cell = Running(sandbox, "print('in', flush=True)\nwhile True: await asyncio.sleep(0)")
        await cell.until("stream", "in")
        await sandbox.interrupt()
        async with asyncio.timeout(20):
            assert (await cell.end())["ename"] == "KeyboardInterrupt"


async def test_an_interrupt_ends_a_question(sandbox: AsyncSandbox) -> None:
    """A cell that waits for input ends too, and the next question gets its own answer."""
    cell = Running(sandbox, "input('never')", cell_id="i1", allow_stdin=True)
    await cell.until("input_request")
    await sandbox.interrupt()
    assert (await cell.end())["ename"] == "KeyboardInterrupt"
    cell = Running(sandbox, "input('again')", cell_id="i2", allow_stdin=True)
    await cell.until("input_request", "again")
    await cell.answer("yes")
    await cell.end()
    assert (await cell.until("execute_result")).content["data"]["text/plain"] == "'yes'"


async def test_an_interrupt_ends_the_debugger(sandbox: AsyncSandbox) -> None:
    """At the prompt of pdb an interrupt ends the cell, instead of bringing the next prompt."""
    cell = Running(sandbox, "import pdb; pdb.set_trace()\nx = 1", allow_stdin=True)
    await cell.until("input_request")
    await sandbox.interrupt()
    async with asyncio.timeout(20):
        await cell.end()
    assert (await sandbox.run_cell("1 + 1")).text == "2"


async def test_an_interrupt_without_a_cell_does_nothing(sandbox: AsyncSandbox) -> None:
    """An idle interpreter, also one with a waiting background task, survives interrupts."""
    await sandbox.run_cell("import asyncio; bg = asyncio.create_task(asyncio.sleep(600))")
    for _ in range(3):
        await sandbox.interrupt()
    assert (await sandbox.run_cell("bg.cancel()")).ok


async def test_the_interrupt_is_not_sticky(sandbox: AsyncSandbox) -> None:
    """A cell that catches KeyboardInterrupt goes on and ends well."""
    code = "import time\ntry:\n    print('in'); time.sleep(600)\nexcept KeyboardInterrupt:\n    print('caught')\n5"
    cell = Running(sandbox, code)
    await cell.until("stream", "in")
    await sandbox.interrupt()
    assert (await cell.end())["status"] == "ok"
    assert (await cell.until("stream", "caught")).type == "stream"


async def test_a_timeout_interrupts(sandbox: AsyncSandbox) -> None:
    """run_cell's timeout ends the cell in the sandbox, keeps what it had put out, and the variables."""
    with pytest.raises(CellTimeoutError) as caught:
        await sandbox.run_cell("x = 1; print('so far', flush=True)\nwhile True: pass", timeout=1.0)
    assert any(event.type == "stream" for event in caught.value.events)
    assert (await sandbox.run_cell("x", timeout=30)).text == "1"


@pytest.mark.parametrize(("on_cancel", "outcome"), [("interrupt", "False"), ("leave", "True")])
async def test_a_cancelled_caller(sandbox: AsyncSandbox, on_cancel: str, outcome: str) -> None:
    """Cancelling run_cell interrupts the cell, or leaves it running where that is asked for; it never blocks."""
    await sandbox.run_cell("import threading; finished, gate = False, threading.Event()")
    began = asyncio.Event()
    code = "print('in', flush=True)\ngate.wait(2.0)\nfinished = True"
    running = asyncio.create_task(
        sandbox.run_cell(code, on_event=lambda event: began.set(), on_cancel=on_cancel)
    )
    async with asyncio.timeout(20):
        await began.wait()
        running.cancel()
        await asyncio.wait({running})
    assert running.cancelled()
    assert (await sandbox.run_cell("finished")).text == outcome
