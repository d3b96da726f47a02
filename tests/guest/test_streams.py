"""What reaches the user of everything that a cell prints, in whatever way it prints it."""

from __future__ import annotations

import time

import pytest

from agentcube_kernel.channel.protocol import Event
from agentcube_kernel.sandbox import AsyncSandbox
from tests.sandboxes import Running, attached, opened


async def test_output_arrives_while_the_cell_runs(sandbox: AsyncSandbox) -> None:
    """A partial line and a carriage return are seen before the cell has ended."""
    await sandbox.run_cell("import threading; gate = threading.Event()")
    cell = Running(sandbox, "print('50%', end='\\r'); gate.wait()\nprint('done')")
    assert (await cell.until("stream")).content == {"name": "stdout", "text": "50%\r"}
    await sandbox.interrupt()
    await cell.end()


async def test_python_and_child_processes_keep_their_order(sandbox: AsyncSandbox) -> None:
    """Text written in different ways arrives in the order in which it was written."""
    code = (
        "import os, subprocess, sys\nfor i in range(5):\n    print('p', i, end=' ')\n    os.write(1, b'w ')\n"
        "    os.system('printf \"s \"')\n    subprocess.run(['printf', 'r '])\n    sys.__stdout__.write('o ')\n"
        "    sys.__stdout__.flush()\nprint('end')"
    )
    result = await sandbox.run_cell(code)
    assert result.stdout == "".join(f"p {i} w s r o " for i in range(5)) + "end\n"


async def test_stderr_is_apart(sandbox: AsyncSandbox) -> None:
    """Both ways into stderr are stderr."""
    result = await sandbox.run_cell(
        "import os, sys\nprint('a', file=sys.stderr)\nos.write(2, b'b\\n')\nprint('c')"
    )
    assert (result.stderr, result.stdout) == ("a\nb\n", "c\n")


async def test_a_hundred_thousand_tiny_prints(sandbox: AsyncSandbox) -> None:
    """All arrive, in order, gathered into far fewer events."""
    result = await sandbox.run_cell("for i in range(100_000): print(i)")
    assert result.stdout == "".join(f"{i}\n" for i in range(100_000))
    assert len(result.events) < 3_000


async def test_one_very_long_line(sandbox: AsyncSandbox) -> None:
    """Fifty megabytes without a line break arrive whole."""
    size = 50_000_000
    got = 0

    def count(event: Event) -> None:
        nonlocal got
        if event.type == "stream":
            got += len(event.content["text"])

    await sandbox.run_cell(f"print('x' * {size}, end='')", on_event=count)
    assert got == size


async def test_bytes_that_are_no_text(sandbox: AsyncSandbox) -> None:
    """Invalid UTF-8 becomes replacement characters; a character cut in two by writes stays whole."""
    result = await sandbox.run_cell(
        "import os; _ = os.write(1, b'a\\xff\\xe2'); _ = os.write(1, b'\\x82\\xac b\\n')"
    )
    assert result.stdout == "a\ufffd€ b\n"
    result = await sandbox.run_cell(
        "import sys; _ = sys.stdout.buffer.write('é'.encode()); sys.stdout.flush()"
    )
    assert result.stdout == "é"


@pytest.mark.parametrize(
    "vandalism",
    [
        "import sys; sys.stdout.close()",
        "import os; os.close(1); os.close(2); os.close(0)",
        "import sys; sys.__stdout__.close()",
        "import sys; sys.stdout = None",
        "import sys; sys.stderr = object(); sys.stdout = object()",
        "import builtins; builtins.print = None",
    ],
)
async def test_a_cell_that_breaks_its_streams(sandbox: AsyncSandbox, vandalism: str) -> None:
    """Cells go on running, errors and results are shown, and a restart makes all well."""
    await sandbox.run_cell(vandalism)
    assert (await sandbox.run_cell("6 * 7")).text == "42"
    assert (await sandbox.run_cell("1/0")).ename == "ZeroDivisionError"
    await sandbox.restart()
    assert (await sandbox.run_cell("print('x')")).stdout == "x\n"


async def test_closed_descriptors_are_open_for_the_next_cell(sandbox: AsyncSandbox) -> None:
    """Child processes of later cells can be heard again."""
    await sandbox.run_cell("import os; os.close(1)")
    assert (await sandbox.run_cell("import os; _ = os.system('echo back')")).stdout == "back\n"


async def test_a_process_that_stays_does_not_hold_the_cell(sandbox: AsyncSandbox) -> None:
    """A background process with our output open neither delays the cell's end nor is lost."""
    started = time.monotonic()
    result = await sandbox.run_cell("import subprocess; p = subprocess.Popen(['sleep', '100'])")
    assert result.ok
    assert time.monotonic() - started < 20
    assert (await sandbox.run_cell("p.poll() is None")).text == "True"
    await sandbox.run_cell("p.kill(); _ = p.wait()")


async def test_a_thread_speaks_under_its_own_cell(configured: dict[str, str]) -> None:
    """Output after a cell's end comes as background output, with the id of the cell that started the thread."""
    late: list[Event] = []
    async with opened(on_background=late.append) as sandbox:
        code = "import threading\ngo = threading.Event()\ndef f():\n    go.wait()\n    print('late')\n"
        first = Running(
            sandbox, code + "thread = threading.Thread(target=f); thread.start()", cell_id="first"
        )
        await first.end()
        second = Running(sandbox, "go.set()\nthread.join()")
        await second.end()
        # The next cell's answer carries whatever was there before it.
        await sandbox.run_cell("import time; time.sleep(0.2)")
    assert [(event.cell_id, event.content["text"]) for event in late if event.type == "stream"] == [
        ("first", "late\n")
    ]


@pytest.mark.slow
async def test_output_that_nobody_fetches_is_bounded(configured: dict[str, str]) -> None:
    """When the client is gone, the guest drops the oldest text, says how much, and keeps results and errors."""
    async with opened() as sandbox:
        await sandbox.run_cell("import time")
        if sandbox.session_id is None:
            pytest.skip("a second client needs a session id")
        other = attached(sandbox)
        await other.open()
        code = "time.sleep(0.3)\nfor i in range(60): print('x' * 1_000_000)\n'the result'"
        cell = Running(other, code)
        await cell.until("execute_input")
        guest = other.guest
        assert guest is not None
        cell.task.cancel()
        await other.close()
        # Runs when the flood has ended, which it does once its client has been away for long enough.
        await sandbox.run_cell("1")
        back = attached(sandbox, guest=guest)
        await back.open()
        events = [event async for event in back.stream_recovered()]
        await back.close()
    text = "".join(event.content["text"] for event in events if event.type == "stream")
    assert "characters of output were dropped here" in text
    assert len(text) < 25_000_000
    assert [event.type for event in events[-2:]] == ["execute_result", "execute_reply"]
