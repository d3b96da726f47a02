"""The synchronous clients: anywhere, at any time, and nothing left running."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentcube_kernel import (
    AgentRuntimeClient,
    CellResult,
    CellTimeoutError,
    ClientStateError,
    CodeInterpreterClient,
    CommandExecutionError,
    CommandTimeoutError,
    Output,
    Sandbox,
)
from agentcube_kernel.client.sync.portal import portal


@pytest.fixture
def client(configured: dict[str, str]) -> Iterator[CodeInterpreterClient]:
    """An open client."""
    with CodeInterpreterClient() as opened:
        yield opened


def script(source: str, *, expect: int = 0, send: tuple[str, int] | None = None) -> str:
    """Run a program of its own, and send it a signal when it prints a word; its output."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    shown = ""
    with process:
        for line in process.stdout:
            shown += line
            if send is not None and send[0] in line:
                process.send_signal(send[1])
                send = None
    assert process.returncode == expect, shown
    return shown


def test_plain_use(client: CodeInterpreterClient) -> None:
    """Everything works without an event loop, with results and errors as in the asynchronous client."""
    assert client.execute_command("echo hi") == "hi\n"
    assert client.run_code("python", "print(2)") == "2\n"
    client.write_file("text", "a.txt")
    assert client.read_file("a.txt") == b"text"
    assert "a.txt" in [entry["name"] for entry in client.list_files()]
    with pytest.raises(CommandExecutionError):
        client.execute_command("false")
    with pytest.raises(CommandTimeoutError):
        client.execute_command("sleep 60", timeout=0.2)


def test_streams(client: CodeInterpreterClient) -> None:
    """A stream is a plain iterator; leaving it early stops the command."""
    with client.stream_command(["sh", "-c", "echo a; sleep 0.2; echo b; exit 3"]) as stream:
        assert [output.text for output in stream] == ["a\n", "b\n"]
    assert stream.exit_code == 3
    with client.stream_command(["sh", "-c", "echo a; sleep 65"]) as stream:
        assert next(iter(stream)) == Output(stream="stdout", text="a\n")
    assert client.execute_command_result(["pgrep", "-xf", "sleep 65"]).stdout == ""


def test_opens_when_first_used(configured: dict[str, str]) -> None:
    """Like the stock SDK's, a client needs no `with`; asking for its session's id makes one."""
    client = CodeInterpreterClient()
    try:
        assert client.execute_command("echo 1") == "1\n"
        if "AGENTCUBE_PICOD_URL" not in configured:
            assert client.session_id
    finally:
        client.stop()
    with pytest.raises(ClientStateError):
        client.execute_command("true")


def test_many_threads(client: CodeInterpreterClient) -> None:
    """One client serves many threads at once."""
    started = time.monotonic()
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda n: client.run_code("bash", f"sleep 0.3; echo {n}"), range(20)))
    assert answers == [f"{n}\n" for n in range(20)]
    assert time.monotonic() - started < 4


def test_one_thread_for_all_clients(configured: dict[str, str]) -> None:
    """Ten clients share one background loop."""
    before = threading.active_count()
    clients = [CodeInterpreterClient() for _ in range(10)]
    for client in clients:
        client.execute_command("true")
    loops = [thread for thread in threading.enumerate() if thread.name == "agentcube-portal"]
    assert len(loops) == 1
    assert threading.active_count() <= before + 1 + min(32, (os.cpu_count() or 1) + 4)
    for client in clients:
        client.stop()


def test_inside_a_running_loop(client: CodeInterpreterClient) -> None:
    """A call in a coroutine waits, as in a notebook's cell, and works."""

    async def cell() -> str:
        return client.run_code("python", "print('in a loop')")

    assert asyncio.run(cell()) == "in a loop\n"


@pytest.mark.parametrize("name", ["nest_asyncio", "nest_asyncio2"])
def test_with_nest_asyncio(configured: dict[str, str], name: str) -> None:
    """It makes no difference that somebody has patched asyncio, before or after the first call."""
    pytest.importorskip(name)
    shown = script(f"""
        import asyncio, {name}
        from agentcube_kernel import CodeInterpreterClient, Sandbox
        early = CodeInterpreterClient()
        print(early.run_code("bash", "echo before").strip())
        {name}.apply()
        async def cell():
            late = CodeInterpreterClient()
            print(early.run_code("bash", "echo after").strip(), late.run_code("bash", "echo late").strip())
            late.stop()
            with Sandbox() as sandbox:
                print(sandbox.run_cell("6 * 7").text)
            return await asyncio.sleep(0, "end")
        print(asyncio.run(cell()))
        early.stop()
    """)
    assert shown.split() == ["before", "after", "late", "42", "end"]


def test_with_uvloop(configured: dict[str, str]) -> None:
    """A program that runs on uvloop can call the synchronous client in it."""
    pytest.importorskip("uvloop")
    shown = script("""
        import uvloop
        from agentcube_kernel import CodeInterpreterClient
        async def main():
            with CodeInterpreterClient() as client:
                print(client.run_code("bash", "echo uv").strip())
        uvloop.run(main())
    """)
    assert shown.split() == ["uv"]


def test_ctrl_c(configured: dict[str, str]) -> None:
    """Ctrl-C ends the call at once, stops its command, and the client can be used on."""
    shown = script(
        """
        import time
        from agentcube_kernel import CodeInterpreterClient
        with CodeInterpreterClient() as client:
            client.execute_command("true")
            started = time.monotonic()
            try:
                print("ready")
                client.execute_command("sleep 66")
            except KeyboardInterrupt:
                print("interrupted", time.monotonic() - started < 3)
            for _ in range(50):
                if not client.execute_command_result(["pgrep", "-xf", "sleep 66"]).stdout:
                    print("stopped")
                    break
                time.sleep(0.1)
            print(client.run_code("bash", "echo on").strip())
        """,
        send=("ready", signal.SIGINT),
    )
    assert shown.split() == ["ready", "interrupted", "True", "stopped", "on"]


def test_uncaught_ctrl_c_and_unclosed_client(configured: dict[str, str]) -> None:
    """A program that dies of Ctrl-C without closing its client ends at once and leaves no command running."""
    shown = script(
        """
        import sys
        from agentcube_kernel import CodeInterpreterClient
        client = CodeInterpreterClient()
        print("session", client.session_id)
        print("ready")
        client.execute_command("sleep 67")
        """,
        expect=-signal.SIGINT,
        send=("ready", signal.SIGINT),
    )
    assert "KeyboardInterrupt" in shown
    assert "Exception ignored" not in shown
    session_id = shown.split()[1]
    attached = CodeInterpreterClient(session_id=None if session_id == "None" else session_id)
    try:
        assert attached.execute_command_result(["pgrep", "-xf", "sleep 67"]).stdout == ""
    finally:
        attached.stop(force=True)


def test_exit_without_closing(configured: dict[str, str]) -> None:
    """A program that just ends neither hangs nor complains, and its session is kept for another."""
    shown = script("""
        from agentcube_kernel import CodeInterpreterClient
        client = CodeInterpreterClient()
        client.write_file("kept", "kept.txt")
        print(client.session_id)
    """)
    assert len(shown.split()) == 1
    session_id = shown.strip()
    heir = CodeInterpreterClient(session_id=None if session_id == "None" else session_id)
    assert heir.read_file("kept.txt") == b"kept"
    heir.execute_command("rm kept.txt")
    heir.stop(force=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork(configured: dict[str, str]) -> None:
    """A forked child uses the same session on connections of its own, and does not delete it."""
    shown = script("""
        import os, sys
        from agentcube_kernel import CodeInterpreterClient, Sandbox
        with CodeInterpreterClient() as client:
            client.write_file("from parent", "note")
            child = os.fork()
            if child == 0:
                print("child", client.read_file("note").decode(), client.ownership.value)
                client.stop()
                sys.stdout.flush()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print("parent", client.read_file("note").decode())
            client.execute_command("rm note")
    """)
    lines = shown.splitlines()
    assert lines[0].startswith("child from parent")
    assert lines[1] == "parent from parent"


def test_context_variables_reach_the_call(client: CodeInterpreterClient) -> None:
    """A credential provider of the caller's sees the caller's context variables."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    async def look() -> str:
        return name.get()

    name.set("somebody")
    assert portal().run(look) == "somebody"


def test_call_from_a_callback_is_refused(client: CodeInterpreterClient) -> None:
    """Waiting on the background loop for itself would never end; it is an error at once."""

    async def callback() -> None:
        client.execute_command("true")

    with pytest.raises(ClientStateError, match="callback"):
        portal().run(callback)


def test_sandbox(configured: dict[str, str]) -> None:
    """The stateful sandbox keeps variables between calls, and streams a cell's events."""
    with Sandbox() as sandbox:
        sandbox.run_cell("x = 20")
        result = sandbox.run_cell("x + 1")
        assert isinstance(result, CellResult)
        assert result.text == "21"
        types = [event.type for event in sandbox.stream_cell("print('a')")]
        assert types[-1] == "execute_reply"
        assert "stream" in types
        assert "x" in sandbox.complete("x", 1)["matches"]


def test_sandbox_ctrl_c(configured: dict[str, str]) -> None:
    """Ctrl-C interrupts the cell, and variables are kept."""
    shown = script(
        """
        from agentcube_kernel import Sandbox
        with Sandbox() as sandbox:
            sandbox.run_cell("x = 1")
            try:
                print("ready")
                sandbox.run_cell("import time\\ntime.sleep(60)")
            except KeyboardInterrupt:
                print("interrupted")
            print(sandbox.run_cell("x").text)
        """,
        send=("ready", signal.SIGINT),
    )
    assert shown.split() == ["ready", "interrupted", "1"]


def test_a_running_cell_is_a_handle(configured: dict[str, str]) -> None:
    """The synchronous handle has events, answers, an interrupt of exactly its cell, and the result."""
    with Sandbox() as sandbox:
        run = sandbox.start_cell("input('name? ')", allow_stdin=True)
        for event in run.events():
            if event.type == "input_request":
                run.answer("Ann")
        assert (run.ended, run.result().ok) == (True, True)
        holds = sandbox.start_cell("import threading; threading.Event().wait(60)")
        waits = sandbox.start_cell("1")
        holds.begun()
        waits.interrupt()
        assert (waits.result().ename, waits.started, holds.ended) == ("KeyboardInterrupt", False, False)
        assert repr(holds).startswith("<SyncCellRun ")
        holds.interrupt()
        assert holds.result().ename == "KeyboardInterrupt"
        run = sandbox.start_cell("2")
        run.leave()
        assert run.left or run.ended
        assert run.id
        assert sandbox.run_cell("3", timeout=60).ok
        with pytest.raises(CellTimeoutError, match="was interrupted"):
            sandbox.run_cell("while True: pass", timeout=0.5)


def test_agent_runtime(configured: dict[str, str], needs_embedded: None) -> None:
    """The agents' client has a synchronous twin too."""
    with AgentRuntimeClient("my-agent") as agent:
        assert agent.session_id
