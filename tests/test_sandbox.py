"""Sandboxes as objects: whose session it is, who shares it, what happens when it is gone."""

from __future__ import annotations

import asyncio

import pytest

from agentcube_kernel.channel.relay import GuestRef
from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.config import Settings
from agentcube_kernel.errors import (
    AgentCubeError,
    ClientStateError,
    GuestLostError,
    SandboxUnreachableError,
    SessionNotFoundError,
)
from agentcube_kernel.sandbox import AsyncSandbox, SandboxState
from agentcube_kernel.timings import Timings
from tests.endpoints import Endpoint
from tests.faultproxy import Fault, FaultPlan, FaultProxy
from tests.sandboxes import Running, attached, opened
from tests.test_faults import through

WAIT_FOR_FILE = """
import os, time
def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)
"""

pytestmark = pytest.mark.usefixtures("configured")


async def test_life_of_a_sandbox() -> None:
    """New, ready, busy, closed; and closed is final."""
    sandbox = AsyncSandbox()
    assert sandbox.state is SandboxState.NEW
    await sandbox.open()
    await sandbox.open()
    assert sandbox.state is SandboxState.READY
    cell = Running(sandbox, "print('in')\nimport time; time.sleep(600)")
    await cell.until("stream")
    assert sandbox.state is SandboxState.BUSY
    await sandbox.interrupt()
    await cell.end()
    await sandbox.stop()
    assert sandbox.state is SandboxState.CLOSED
    await sandbox.stop()
    with pytest.raises(ClientStateError):
        await sandbox.run_cell("1")


async def test_concurrent_opens_share_one_session() -> None:
    """Ten callers at once make one session and one guest."""
    sandbox = AsyncSandbox()
    try:
        results = await asyncio.gather(*(sandbox.run_cell(f"{i} + 1") for i in range(10)))
        assert [result.text for result in results] == [str(i + 1) for i in range(10)]
        assert sorted(result.execution_count for result in results) == list(range(1, 11))
    finally:
        await sandbox.stop()


@pytest.mark.usefixtures("needs_sessions")
async def test_two_sandboxes_on_one_session() -> None:
    """They share variables; each gets its own cells' output only; closing one leaves the other."""
    async with opened() as first:
        second = attached(first)
        await first.run_cell("shared = 1")
        one = Running(first, "for i in range(50): print('first')\nshared += 1")
        two = Running(second, "for i in range(50): print('second')\nshared += 1")
        await asyncio.gather(one.end(), two.end())
        for cell, word in ((one, "first"), (two, "second")):
            text = "".join(event.content["text"] for event in cell.events if event.type == "stream")
            assert text == f"{word}\n" * 50
        assert (await second.run_cell("shared")).text == "3"
        await second.stop()
        assert (await first.run_cell("shared")).text == "3"


@pytest.mark.usefixtures("needs_sessions")
async def test_an_interrupt_meets_its_own_cell_only() -> None:
    """A cell that waits behind another's is taken out of the queue at once; the other cell goes on."""
    async with opened() as first:
        second = attached(first)
        await second.open()
        await first.run_cell(WAIT_FOR_FILE)
        long = Running(first, "print('in')\nwait_for('go')\n'done'")
        await long.until("stream")
        waiting = await second.start_cell("print('never')")
        await waiting.interrupt()
        async with asyncio.timeout(10):
            result = await waiting.result()
        assert (result.ename, waiting.started) == ("KeyboardInterrupt", False)
        assert [event.type for event in result.events] == ["execute_reply"]
        await first.client.data_plane.upload_bytes("go", b"1")
        assert (await long.end())["status"] == "ok"
        await second.close()


@pytest.mark.usefixtures("needs_sessions")
async def test_detach_gives_the_session_up() -> None:
    """A detached session is there for whoever has its id, with its variables."""
    first = AsyncSandbox()
    await first.run_cell("x = 'left'")
    session = first.detach()
    await first.stop()
    second = AsyncSandbox(AsyncCodeInterpreterClient(session_id=session))
    assert (await second.run_cell("x")).text == "'left'"
    await second.stop(force=True)
    third = AsyncSandbox(AsyncCodeInterpreterClient(session_id=session))
    with pytest.raises(SessionNotFoundError):
        await third.run_cell("x")
    await third.close()


async def test_restart_gives_a_fresh_interpreter_and_keeps_files() -> None:
    """Variables are gone, counts start again, files stay; a running cell ends with an error that says so."""
    async with opened() as sandbox:
        await sandbox.run_cell("x = 1; _ = open('kept.txt', 'w').write('kept')")
        cell = Running(sandbox, "print('in')\nwhile True: pass")
        await cell.until("stream")
        await sandbox.restart()
        with pytest.raises(GuestLostError, match="restarted"):
            await cell.end()
        result = await sandbox.run_cell("'x' in globals(), open('kept.txt').read()")
        assert result.text == "(False, 'kept')"
        assert result.execution_count == 1


async def test_restart_runs_exit_functions() -> None:
    """An interpreter that is replaced ends as interpreters do."""
    async with opened() as sandbox:
        await sandbox.run_cell(
            "import atexit; atexit.register(lambda: open('bye.txt', 'w').write('bye')); None"
        )
        await sandbox.restart()
        assert (await sandbox.run_cell("open('bye.txt').read()")).text == "'bye'"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; print('last words', flush=True); os._exit(3)", "exited with status 3"),
        ("import os; os.system('echo last words'); os.kill(os.getpid(), 9)", "was killed"),
        ("import ctypes; print('last words'); ctypes.string_at(0)", "crashed (signal 11)"),
    ],
)
async def test_a_cell_that_ends_its_interpreter(code: str, words: str) -> None:
    """What it had printed is delivered, the error says what is lost, and the next cell has a fresh interpreter."""
    async with opened() as sandbox:
        await sandbox.run_cell("x = 1; _ = open('kept.txt', 'w').write('kept')")
        cell = Running(sandbox, code)
        with pytest.raises(GuestLostError) as caught:
            await cell.end()
        assert words in str(caught.value)
        assert "variables are lost" in str(caught.value)
        assert "last words" in "".join(event.content.get("text", "") for event in cell.events)
        assert sandbox.state is SandboxState.LOST
        assert (await sandbox.run_cell("'x' in globals(), open('kept.txt').read()")).text == "(False, 'kept')"


async def test_an_interpreter_that_ends_between_cells() -> None:
    """The next cell does not run; it says what was lost."""
    async with opened() as sandbox:
        await sandbox.run_cell("import os, threading; threading.Timer(0.2, os._exit, [7]).start()")
        with pytest.raises(GuestLostError, match="status 7"):  # noqa: PT012  # whichever cell comes after it
            for _ in range(200):
                await sandbox.run_cell("import time; time.sleep(0.05)")
        assert (await sandbox.run_cell("1")).ok


async def test_a_loss_that_nobody_waited_for_is_told() -> None:
    """An interpreter that ends while only its threads are listened to is told by the next call."""
    async with opened() as sandbox:
        await sandbox.run_cell("import os, threading; threading.Timer(0.3, os._exit, [7]).start()")
        async with asyncio.timeout(20):
            while sandbox.state is not SandboxState.LOST:  # noqa: ASYNC110 - the next call is what tells of it
                await asyncio.sleep(0.02)
        with pytest.raises(GuestLostError, match="status 7"):
            await sandbox.run_cell("1")
        assert (await sandbox.run_cell("2")).text == "2"


async def test_a_supervisor_that_is_killed_is_noticed() -> None:
    """Even the death of everything at once is told, at once, and the next cell starts anew."""
    async with opened() as sandbox:
        guest = sandbox.guest
        assert guest is not None
        cell = Running(
            sandbox, f"print('in', flush=True)\nimport os, time; os.kill({guest.pid}, 9); time.sleep(600)"
        )
        async with asyncio.timeout(10):
            with pytest.raises(GuestLostError):
                await cell.end()
        assert (await sandbox.run_cell("1 + 1")).text == "2"


@pytest.mark.usefixtures("needs_sessions")
async def test_a_session_that_is_gone_between_cells() -> None:
    """The cell says so and does not run; the one after it has a new session if a client for it can be made."""
    sandbox = AsyncSandbox()
    await sandbox.run_cell("x = 1")
    old = sandbox.session_id
    async with AsyncCodeInterpreterClient(session_id=old) as other:
        await other.stop(force=True)
    with pytest.raises(SessionNotFoundError) as caught:
        await sandbox.run_cell("x")
    assert caught.value.session_id == old
    assert sandbox.state is SandboxState.LOST
    assert (await sandbox.run_cell("'x' in globals()")).text == "False"
    assert sandbox.session_id != old
    await sandbox.stop()


@pytest.mark.usefixtures("needs_sessions")
async def test_a_session_that_goes_in_the_middle_of_a_cell() -> None:
    """The running cell ends with SessionNotFoundError."""
    sandbox = AsyncSandbox()
    await sandbox.open()
    cell = Running(sandbox, "print('in', flush=True)\nimport time; time.sleep(600)")
    await cell.until("stream")
    async with AsyncCodeInterpreterClient(session_id=sandbox.session_id) as other:
        await other.stop(force=True)
    async with asyncio.timeout(30):
        with pytest.raises((SessionNotFoundError, GuestLostError)):
            await cell.end()
    await sandbox.stop()


async def test_another_process_takes_a_guest_over() -> None:
    """Variables, the running cell and the rest of its output, each event once."""
    async with opened() as sandbox:
        await sandbox.run_cell(f"x = 42\n{WAIT_FOR_FILE}")
        cell = Running(sandbox, "print('before')\nwait_for('go')\nprint('after')\nx", cell_id="long")
        await cell.until("stream", "before")
        guest = sandbox.guest
        assert guest is not None
        cell.task.cancel()
        client = AsyncCodeInterpreterClient(session_id=sandbox.session_id)
        successor = AsyncSandbox(client, guest=GuestRef.from_dict(guest.to_dict()))
        await successor.open()
        assert [recovered.id for recovered in successor.recovered] == ["long"]
        await client.data_plane.upload_bytes("go", b"1")
        events = [event async for event in successor.stream_recovered()]
        assert "".join(e.content["text"] for e in events if e.type == "stream").endswith("after\n")
        assert [e.type for e in events[-2:]] == ["execute_result", "execute_reply"]
        assert (await successor.run_cell("x")).text == "42"
        await successor.close()


async def test_a_guest_that_is_no_more_cannot_be_taken_over() -> None:
    """Taking over after a restart or a death is an error; the call after it starts anew."""
    async with opened() as sandbox:
        guest = sandbox.guest
        assert guest is not None
        await sandbox.restart()
        late = AsyncSandbox(AsyncCodeInterpreterClient(session_id=sandbox.session_id), guest=guest)
        with pytest.raises(GuestLostError):
            await late.open()
        assert (await late.run_cell("1")).ok
        await late.close()


@pytest.mark.parametrize("fields", [{}, {"pid": "1"}, {"pid": 1, "fd": 2, "generation": 3, "client_id": "x"}])
def test_a_wrong_guest_reference_is_refused(fields: dict[str, object]) -> None:
    """What comes from a file is checked."""
    with pytest.raises(ValueError, match="guest"):
        GuestRef.from_dict(fields)


async def test_code_that_is_too_large_says_so() -> None:
    """Nothing is sent, and the sandbox goes on."""
    async with opened() as sandbox:
        with pytest.raises(AgentCubeError, match="MB"):
            await sandbox.run_cell(f"x = '{'x' * 17_000_000}'")
        assert (await sandbox.run_cell("1")).ok


async def test_environment_of_the_interpreter() -> None:
    """Variables given to the sandbox are in the interpreter; no credential is."""
    async with opened(env={"GREETING": "hello"}) as sandbox:
        result = await sandbox.run_cell(
            "import os; os.environ['GREETING'], [k for k in os.environ if 'TOKEN' in k]"
        )
        assert result.text == "('hello', [])"


async def test_waiting_times_of_its_own(endpoint: Endpoint) -> None:
    """A sandbox waits as long as its timings say: a short hold asks more often, a short patience gives up sooner."""
    async with FaultProxy(endpoint.data_url) as proxy:
        client = AsyncCodeInterpreterClient(settings=Settings.load(through(proxy, endpoint)))
        async with AsyncSandbox(client, timings=Timings(hold=0.2, patience=1)) as sandbox:
            before = len(proxy.requests)
            await sandbox.run_cell("import time; time.sleep(1.5)")
            assert len(proxy.requests) - before >= 5
            proxy.plan = FaultPlan(rate=1.0, kinds=[Fault.STATUS_504_BEFORE])
            with pytest.raises(SandboxUnreachableError, match="for 1 s"):
                await sandbox.run_cell("1")
            proxy.plan = FaultPlan()


async def test_waiting_times_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without timings of its own a sandbox takes those of the settings, its client's connections too."""
    monkeypatch.setenv("AGENTCUBE_HOLD", "7")
    monkeypatch.setenv("AGENTCUBE_CONNECT", "2.5")
    monkeypatch.delenv("AGENTCUBE_TAKEOVER", raising=False)
    assert AsyncSandbox().timings == Timings(hold=7, connect=2.5)
    assert AsyncSandbox().client.connect_timeout == 2.5
    assert AsyncSandbox(timings=Timings(hold=3)).client.settings.timings == Timings(hold=3)
