"""A running cell as a handle: events, answers, interrupts, results, time limits."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from agentcube_kernel import (
    AgentCubeError,
    AsyncCodeInterpreterClient,
    CellTimeoutError,
    ClientStateError,
    ConfigurationError,
    GuestLostError,
    GuestStartError,
)
from agentcube_kernel.channel.cell_run import CellRun
from agentcube_kernel.channel.protocol import Event
from agentcube_kernel.sandbox import AsyncSandbox, SandboxState
from tests.sandboxes import attached, opened

HOLD = "import threading; gate = threading.Event()\nprint('in', flush=True)\nwhile not gate.wait(0.01): pass"


async def until(run: CellRun, text: str) -> None:
    """Read the cell's events until one contains the text, and leave the rest."""
    async with aclosing(run.events()) as events:
        async for event in events:
            if text in str(event.content):
                return
    raise AssertionError(f"the cell ended without {text!r}")


async def test_a_handle_tells_where_its_cell_is(sandbox: AsyncSandbox) -> None:
    """It has an id and knows when the cell has begun and ended, read or not."""
    holds = await sandbox.start_cell(HOLD)
    waits = await sandbox.start_cell("'after'", cell_id="my-id")
    await holds.begun()
    assert (holds.started, holds.ended, waits.id, waits.started, waits.count) == (
        True,
        False,
        "my-id",
        False,
        None,
    )
    assert "running" in repr(holds)
    assert repr(waits) == "<CellRun my-id, waiting>"
    assert sandbox.state is SandboxState.BUSY
    await holds.interrupt()
    result = await waits.result()
    assert (result.text, waits.ended, waits.count) == ("'after'", True, result.execution_count)
    assert holds.ended
    assert (await holds.result()).ename == "KeyboardInterrupt"
    assert sandbox.state is SandboxState.READY


async def test_events_come_once_and_the_result_has_the_others(sandbox: AsyncSandbox) -> None:
    """Leaving the events leaves the cell running, and what is not read is collected by `result`."""
    run = await sandbox.start_cell("print('a', flush=True)\nimport time; time.sleep(0.2)\nprint('b')\n7")
    await until(run, "a\\n")
    result = await run.result()
    assert (result.stdout, result.text) == ("b\n", "7")
    assert await run.result() == result
    run = await sandbox.start_cell("8")
    assert [event.type async for event in run.events()] == [
        "execute_input",
        "execute_result",
        "execute_reply",
    ]
    result = await run.result()
    assert (result.ok, [event.type for event in result.events]) == (True, ["execute_reply"])


async def test_two_readers_are_refused(sandbox: AsyncSandbox) -> None:
    """The second one is told, and the first one goes on."""
    run = await sandbox.start_cell("1")
    async with aclosing(run.events()) as events:
        await anext(events)
        with pytest.raises(ClientStateError, match="being read"):
            await anext(run.events())
        assert [event.type async for event in events][-1] == "execute_reply"


async def test_an_unread_cell_holds_up_nobody(sandbox: AsyncSandbox) -> None:
    """A flood that nobody reads does not keep the next cell from its end."""
    flood = await sandbox.start_cell("for i in range(300): print('x' * 100_000, flush=True)")
    assert (await sandbox.run_cell("1")).text == "1"
    assert flood.ended
    result = await flood.result()
    assert result.ok
    assert "were dropped here" in result.stderr


async def test_an_interrupt_takes_a_waiting_cell_out_of_the_queue(sandbox: AsyncSandbox) -> None:
    """It ends at once and without having run, and the cell before it does not notice."""
    await sandbox.run_cell("ran = []")
    holds = await sandbox.start_cell(HOLD)
    await holds.begun()
    waits = await sandbox.start_cell("ran.append(1)")
    behind = await sandbox.start_cell("ran.append(2)")
    async with asyncio.timeout(10):
        await waits.interrupt()
        result = await waits.result()
    assert (result.ename, waits.started, holds.ended) == ("KeyboardInterrupt", False, False)
    await sandbox.interrupt()
    assert (await holds.result()).ename == "KeyboardInterrupt"
    await behind.result()
    assert (await sandbox.run_cell("ran")).text == "[2]"
    await waits.interrupt()
    assert (await sandbox.run_cell("1")).ok


async def test_a_sandboxs_interrupt_touches_nothing_that_waits(sandbox: AsyncSandbox) -> None:
    """It meets what runs now and lets the cells behind have their turn."""
    holds = await sandbox.start_cell(HOLD)
    await until(holds, "in\\n")
    waits = await sandbox.start_cell("'ran'")
    await sandbox.interrupt()
    assert (await holds.result()).ename == "KeyboardInterrupt"
    assert (await waits.result()).text == "'ran'"


async def test_answers_and_their_order(sandbox: AsyncSandbox) -> None:
    """Questions are events, and an answer goes to the cell that put one; None is an end of file."""
    run = await sandbox.start_cell("a = input('first? ')\ninput('second? ')", allow_stdin=True)
    prompts = []
    async for event in run.events():
        if event.type == "input_request":
            prompts.append(event.content["prompt"])
            await run.answer("one" if len(prompts) == 1 else None)
    assert prompts == ["first? ", "second? "]
    assert (await run.result()).ename == "EOFError"
    assert (await sandbox.run_cell("a")).text == "'one'"


@pytest.mark.parametrize("cell_id", ["x" * 1000, "a\n\x1b]0;b", "\N{GREEK SMALL LETTER ALPHA} ~", "\udc80"])
async def test_odd_ids(sandbox: AsyncSandbox, cell_id: str) -> None:
    """A front end may call its cells anything."""
    run = await sandbox.start_cell("1", cell_id=cell_id)
    async with asyncio.timeout(20):
        assert (await run.result()).text == "1"
    assert run.id == cell_id.replace("\udc80", "?")


async def test_a_left_cell_speaks_in_the_background(sandbox: AsyncSandbox) -> None:
    """After `leave` the output is the sandbox's background output, and there is no result."""
    said: list[Event] = []
    heard = asyncio.Event()

    def hear(event: Event) -> None:
        said.append(event)
        if event.type == "execute_reply":
            heard.set()

    sandbox.on_background = hear
    try:
        run = await sandbox.start_cell("import time; print('in', flush=True); time.sleep(0.3); print('late')")
        await until(run, "in\\n")
        run.leave()
        run.leave()
        assert repr(run).endswith("left>")
        with pytest.raises(ClientStateError, match="left"):
            await run.result()
        async with asyncio.timeout(20):
            await heard.wait()
    finally:
        sandbox.on_background = None
    assert "late\n" in [event.content.get("text") for event in said]
    assert {event.cell_id for event in said} == {run.id}


async def test_a_silent_cell_says_when_it_begins(sandbox: AsyncSandbox) -> None:
    """Its handle knows, its events do not show it."""
    run = await sandbox.start_cell("import time; time.sleep(0.5)", silent=True)
    async with asyncio.timeout(20):
        await run.begun()
    assert not run.ended
    assert [event.type async for event in run.events()] == ["execute_reply"]


async def test_the_timeout_runs_from_the_cells_beginning(sandbox: AsyncSandbox) -> None:
    """Waiting behind another cell does not count, and the error of a cell that ran says that it had begun."""
    before = await sandbox.start_cell("import time; time.sleep(1.5)")
    assert (await sandbox.run_cell("'in time'", timeout=1.0)).text == "'in time'"
    assert before.ended
    with pytest.raises(CellTimeoutError, match=r"within 0\.5 s and was interrupted") as caught:
        await sandbox.run_cell("print('so far', flush=True)\nwhile True: pass", timeout=0.5)
    assert caught.value.started
    assert "so far" in str(caught.value.events)


async def test_a_cell_that_waited_too_long_never_runs(sandbox: AsyncSandbox) -> None:
    """It is taken out of the queue, and the error says that nothing has changed."""
    await sandbox.run_cell("changed = False")
    holds = await sandbox.start_cell(HOLD)
    await holds.begun()
    with pytest.raises(CellTimeoutError, match="did not run, and nothing has changed") as caught:
        await sandbox.run_cell("changed = True", queue_timeout=0.5, timeout=60)
    assert (caught.value.started, caught.value.timeout, holds.ended) == (False, 0.5, False)
    await holds.interrupt()
    await holds.result()
    assert (await sandbox.run_cell("changed", queue_timeout=30)).text == "False"


async def test_a_cancelled_wait_behind_another_cell(sandbox: AsyncSandbox) -> None:
    """The cell is taken back with the call that sent it."""
    await sandbox.run_cell("changed = False")
    holds = await sandbox.start_cell(HOLD)
    await holds.begun()
    waiting = asyncio.create_task(sandbox.run_cell("changed = True"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    await holds.interrupt()
    await holds.result()
    assert (await sandbox.run_cell("changed")).text == "False"


async def test_a_callback_that_fails_ends_the_call(sandbox: AsyncSandbox) -> None:
    """What `on_event` raises is raised, and the sandbox goes on."""

    def fail(event: Event) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await sandbox.run_cell("1", on_event=fail)
    assert (await sandbox.run_cell("2")).text == "2"


@pytest.mark.parametrize(
    ("code", "arguments", "kind", "name"),
    [
        (None, {}, TypeError, "code"),
        (b"1", {}, TypeError, "code"),
        ("1", {"timeout": "3s"}, TypeError, "timeout"),
        ("1", {"timeout": True}, TypeError, "timeout"),
        ("1", {"timeout": 0}, ValueError, "timeout"),
        ("1", {"timeout": -1}, ValueError, "timeout"),
        ("1", {"timeout": float("nan")}, ValueError, "timeout"),
        ("1", {"queue_timeout": "1"}, TypeError, "queue_timeout"),
        ("1", {"queue_timeout": 0}, ValueError, "queue_timeout"),
        ("1", {"on_cancel": "stop"}, ValueError, "on_cancel"),
        ("1", {"on_cancel": None}, ValueError, "on_cancel"),
    ],
)
async def test_bad_arguments(
    sandbox: AsyncSandbox, code: Any, arguments: dict[str, Any], kind: type[Exception], name: str
) -> None:
    """The clients' errors name the argument, and nothing is run."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        await sandbox.run_cell(code, **arguments)
    assert isinstance(caught.value, kind)
    assert caught.value.name == name


async def test_no_limit_is_a_limit_too(sandbox: AsyncSandbox) -> None:
    """Infinity means that the cell may take for ever."""
    assert (await sandbox.run_cell("1", timeout=float("inf"), queue_timeout=float("inf"))).text == "1"


FORGED = "get_ipython().display_pub.outgoing.frame(b'E', 'forged', b'%s')"


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(
    ("forged", "outcome"),
    [
        ('{"t":"comm_reply","c":{}}', "GuestLostError"),
        ('{"t":"execute_reply","c":{}}', "MalformedReply"),
        ('{"t":"execute_reply","c":{"status":"ok","execution_count":-5}}', "None"),
        ('{"t":"nonsense","c":{}}', "None"),
        ('{"t":"stream","c":{"name":"stdout"}}', "None"),
    ],
)
async def test_a_cell_that_forges_its_end_ends(forged: str, outcome: str) -> None:
    """Whatever a cell says in its own name, its caller gets a result or an error, and the next cell runs."""
    async with opened() as sandbox:
        run = await sandbox.start_cell(FORGED % forged, cell_id="forged")
        async with asyncio.timeout(20):
            try:
                ended = str((await run.result()).ename)
            except GuestLostError as error:
                ended = type(error).__name__
        assert ended == outcome
        assert (await sandbox.run_cell("1")).text == "1"


@pytest.mark.usefixtures("configured")
async def test_a_restart_ends_the_handles() -> None:
    """Running or waiting, read or not: each says what was lost, as often as it is asked."""
    async with opened() as sandbox:
        holds, waits = await sandbox.start_cell(HOLD), await sandbox.start_cell("1")
        await holds.begun()
        await sandbox.restart()
        for run in (holds, waits, holds):
            with pytest.raises(GuestLostError):
                await run.result()
        assert repr(waits).endswith("lost>")
        assert (await sandbox.run_cell("1")).text == "1"
        last = await sandbox.start_cell(HOLD)
        await last.begun()
    with pytest.raises(AgentCubeError):
        await last.result()


@pytest.mark.usefixtures("needs_sessions", "configured")
async def test_comms_and_questions_while_another_sandboxs_cell_runs() -> None:
    """Completion answers at once for whoever shares the session, and a waiting cell knows that it waits."""
    async with opened() as first:
        second = attached(first)
        holds = await first.start_cell(HOLD)
        await holds.begun()
        async with asyncio.timeout(20):
            assert "print" in (await second.complete("pri", 3))["matches"]
        with pytest.raises(CellTimeoutError, match="something else runs"):
            await second.run_cell("1", queue_timeout=0.3)
        await holds.interrupt()
        assert (await second.run_cell("1")).text == "1"
        await second.close()


@pytest.mark.usefixtures("needs_sessions", "configured")
async def test_shell_cells_where_no_interpreter_can_start() -> None:
    """They are handles too: output, exit code, interrupt; a Python cell says why it did not run."""
    async with AsyncCodeInterpreterClient() as client:
        await client.write_file("in the way", ".agentcube-kernel")
        sandbox = AsyncSandbox(client)
        with pytest.raises(GuestStartError):
            await sandbox.start_cell("1")
        run = await sandbox.start_cell("%%bash\necho out; echo err >&2; exit 3")
        types = [event.type async for event in run.events()]
        assert types == ["stream", "stream", "error", "execute_reply"]
        result = await run.result()
        assert (result.ename, run.started, run.ended) == ("CalledProcessError", True, True)
        assert (await sandbox.run_cell("!echo hi", timeout=60)).stdout == "hi\n"
        run = await sandbox.start_cell("!sleep 66")
        await run.interrupt()
        assert (await run.result()).ename == "KeyboardInterrupt"
        with pytest.raises(CellTimeoutError, match="within"):
            await sandbox.run_cell("!sleep 67", timeout=0.5)
        left = await sandbox.start_cell("!sleep 68")
        assert sandbox.execution_count == 0
        await sandbox.close()
        assert left.left
