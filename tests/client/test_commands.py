"""Commands and code snippets."""

from __future__ import annotations

import asyncio
import time

import pytest

from agentcube_kernel import (
    NO_TIMEOUT,
    AsyncCodeInterpreterClient,
    CommandExecutionError,
    CommandTimeoutError,
    ConfigurationError,
    DataPlaneError,
    OutsideWorkspaceError,
)

pytestmark = pytest.mark.anyio


async def test_output_of_a_command(client: AsyncCodeInterpreterClient) -> None:
    """Strings are split as a shell would, without a shell."""
    assert await client.execute_command("echo 'a  b' $HOME") == "a  b $HOME\n"
    assert await client.execute_command(["printf", "%s|", "x y", ""]) == "x y||"


async def test_failure_keeps_both_outputs(client: AsyncCodeInterpreterClient) -> None:
    """The error has exit code, standard output and standard error."""
    with pytest.raises(CommandExecutionError, match=r"exit 3.*: bad") as caught:
        await client.execute_command(["sh", "-c", "echo some; echo bad >&2; exit 3"])
    assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (3, "some\n", "bad\n")
    assert caught.value.session_id == client.session_id


async def test_result_reads_like_the_stock_dictionary(client: AsyncCodeInterpreterClient) -> None:
    """A failing command is a result here, with attributes and with the stock SDK's keys."""
    result = await client.execute_command_result(["sh", "-c", "echo out; exit 4"])
    assert (result.exit_code, result["exit_code"], result["stdout"], result.get("stderr")) == (
        4,
        4,
        "out\n",
        "",
    )
    assert {"stdout", "stderr", "exit_code"} <= set(result)
    with pytest.raises(KeyError):
        result["nonesuch"]


async def test_missing_program(client: AsyncCodeInterpreterClient) -> None:
    """A program that is not there is named."""
    with pytest.raises(CommandExecutionError, match="no-such-program"):
        await client.execute_command("no-such-program")


async def test_environment_and_folder(client: AsyncCodeInterpreterClient) -> None:
    """`env` adds variables, `working_dir` counts from the workspace and is created."""
    shown = await client.execute_command(
        ["sh", "-c", 'echo "$GREETING"; basename "$PWD"'],
        env={"GREETING": "häl lo"},
        working_dir="new folder",
    )
    assert shown == "häl lo\nnew folder\n"
    assert (await client.list_files("."))[0].is_dir


async def test_working_dir_outside(client: AsyncCodeInterpreterClient) -> None:
    """A working folder outside the workspace is refused before anything is sent."""
    with pytest.raises(OutsideWorkspaceError, match="working_dir"):
        await client.execute_command("true", working_dir="../..")


@pytest.mark.parametrize("language", ["python", "py", "python3", "PYTHON"])
async def test_python(client: AsyncCodeInterpreterClient, language: str) -> None:
    """All the stock names of Python work."""
    assert await client.run_code(language, "import sys\nprint(sys.version_info[0])") == "3\n"


@pytest.mark.parametrize("language", ["bash", "sh"])
async def test_bash(client: AsyncCodeInterpreterClient, language: str) -> None:
    """Both names of the shell mean bash, as in the stock SDK."""
    assert await client.run_code(language, "a=(1 2 3)\necho ${#a[@]}") == "3\n"


async def test_code_sees_the_workspace_and_leaves_nothing(client: AsyncCodeInterpreterClient) -> None:
    """Modules beside the code can be imported, and the code's own file is gone afterwards."""
    await client.write_file("answer = 42", "helper.py")
    assert await client.run_code("python", "import helper; print(helper.answer)") == "42\n"
    with pytest.raises(CommandExecutionError):
        await client.run_code("python", "raise SystemExit(7)")
    with pytest.raises(CommandTimeoutError):
        await client.run_code("python", "import time; time.sleep(60)", timeout=0.3)
    names = {entry.name for entry in await client.list_files()}
    assert {name for name in names if name.startswith(".agentcube-")} == set()


async def test_traceback_and_output_of_failing_code(client: AsyncCodeInterpreterClient) -> None:
    """What was printed before an exception is kept beside the traceback."""
    with pytest.raises(CommandExecutionError, match="ZeroDivisionError") as caught:
        await client.run_code("python", "print('before')\n1/0")
    assert caught.value.stdout == "before\n"


async def test_large_code(client: AsyncCodeInterpreterClient) -> None:
    """Code that is larger than an argument may be runs all the same."""
    text = "x" * 300_000
    assert await client.run_code("python", f"print(len('{text}'))") == "300000\n"


async def test_doubly_escaped_newlines(client: AsyncCodeInterpreterClient) -> None:
    """Newlines escaped twice are mended, where the code is no Python otherwise, and only there."""
    assert await client.run_code("python", "x = 1\\nprint(x)") == "1\n"
    assert await client.run_code("python", r"print('a\nb')") == "a\nb\n"


async def test_other_language(client: AsyncCodeInterpreterClient) -> None:
    """A language that there is not is refused with the parameter's name."""
    with pytest.raises(ConfigurationError, match="language must be one of") as caught:
        await client.run_code("cobol", "")
    assert caught.value.name == "language"
    with pytest.raises(ValueError, match="cobol"):
        await client.run_code("cobol", "")


async def test_fifty_at_once(client: AsyncCodeInterpreterClient) -> None:
    """Concurrent snippets never get into each other's way."""
    answers = await asyncio.gather(*(client.run_code("bash", f"echo {n}") for n in range(50)))
    assert answers == [f"{n}\n" for n in range(50)]


async def test_timeout_stops_the_command_and_its_children(client: AsyncCodeInterpreterClient) -> None:
    """After a timeout nothing of the command runs on, children that hold its output included."""
    started = time.monotonic()
    with pytest.raises(CommandTimeoutError, match=r"within 0\.5 s") as caught:
        await client.execute_command(["sh", "-c", "echo first; sleep 61 & sleep 61"], timeout=0.5)
    assert time.monotonic() - started < 5
    assert caught.value.timeout == 0.5
    assert isinstance(caught.value, TimeoutError)
    await assert_not_running(client, "sleep 61")


async def test_timed_out_result(client: AsyncCodeInterpreterClient) -> None:
    """The variant that does not raise reports exit code 124."""
    result = await client.execute_command_result("sleep 60", timeout=0.2)
    assert result.timed_out
    assert result.exit_code == 124


async def test_cancelling_stops_the_command(client: AsyncCodeInterpreterClient) -> None:
    """A call that is cancelled ends at once, and the command soon after."""
    task = asyncio.create_task(client.execute_command(["sh", "-c", "sleep 62; echo late"]))
    await wait_until_running(client, "sleep 62")
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 0.5
    await assert_not_running(client, "sleep 62")


async def test_no_timeout(client: AsyncCodeInterpreterClient) -> None:
    """`NO_TIMEOUT` is accepted where a default would otherwise apply."""
    assert await client.execute_command("echo x", timeout=NO_TIMEOUT) == "x\n"


@pytest.mark.parametrize(
    ("timeout", "error"),
    [("30s", TypeError), ("None", TypeError), (True, TypeError), (0, ValueError), (-1, ValueError)],
)
async def test_bad_timeouts(
    client: AsyncCodeInterpreterClient, timeout: object, error: type[Exception]
) -> None:
    """Strings, zero and negative numbers are refused by name and never turned into something else."""
    with pytest.raises(error, match="timeout") as caught:
        await client.execute_command("true", timeout=timeout)  # type: ignore[arg-type]
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize("command", ["", [], "'open", b"ls", [1], ["a\0b"], None, {"a": 1}])
async def test_bad_commands(client: AsyncCodeInterpreterClient, command: object) -> None:
    """Whatever is no command is refused before anything is sent."""
    with pytest.raises(ConfigurationError, match="command"):
        await client.execute_command(command)  # type: ignore[arg-type]


@pytest.mark.parametrize("env", [{"A": 1}, {"": "x"}, {"A=B": "x"}, {"A": "\0"}, ["A=1"]])
async def test_bad_environments(client: AsyncCodeInterpreterClient, env: object) -> None:
    """Whatever no environment can hold is refused before anything is sent."""
    with pytest.raises(ConfigurationError, match="env"):
        await client.execute_command("true", env=env)  # type: ignore[arg-type]


async def test_output_that_is_not_utf8(client: AsyncCodeInterpreterClient) -> None:
    """Bytes that are no UTF-8 arrive as replacement characters."""
    assert await client.execute_command(["printf", r"a\377b"]) == "a\ufffdb"


async def test_stream(client: AsyncCodeInterpreterClient) -> None:
    """Output arrives while the command runs, whole characters only, and the exit code at the end."""
    script = "echo one; sleep 0.5; printf '\\303'; sleep 0.2; printf '\\251'; echo oops >&2; exit 5"
    arrivals = []
    async with client.stream_command(["sh", "-c", script]) as stream:
        started = time.monotonic()
        async for output in stream:
            arrivals.append((output.stream, output.text, time.monotonic() - started))
    assert "".join(text for name, text, _ in arrivals if name == "stdout") == "one\né"
    assert "".join(text for name, text, _ in arrivals if name == "stderr") == "oops\n"
    assert arrivals[0][1] == "one\n"
    assert arrivals[0][2] < 0.45
    assert stream.exit_code == 5
    with pytest.raises(CommandExecutionError):
        stream.raise_for_exit()


async def test_stream_of_much_output(client: AsyncCodeInterpreterClient) -> None:
    """Nothing is lost or doubled in ten megabytes."""
    total = 0
    async for output in client.stream_command(["sh", "-c", "seq 1 1400000"]):
        total += len(output.text)
    assert total == sum(len(str(n)) + 1 for n in range(1, 1_400_001))


async def test_stream_left_early(client: AsyncCodeInterpreterClient) -> None:
    """Leaving the block stops the command and its children."""
    async with client.stream_command(["sh", "-c", "echo x; sleep 63; echo y"]) as stream:
        async for output in stream:
            assert output.text == "x\n"
            break
    await assert_not_running(client, "sleep 63")


async def test_stream_times_out(client: AsyncCodeInterpreterClient) -> None:
    """The time is for the whole command."""
    with pytest.raises(CommandTimeoutError):
        async for _ in client.stream_command("sleep 64", timeout=0.3):
            pass
    await assert_not_running(client, "sleep 64")


async def test_stream_of_missing_program(client: AsyncCodeInterpreterClient) -> None:
    """A program that is not there ends with the shell's code for it."""
    stream = client.stream_command("no-such-program")
    said = "".join([output.text async for output in stream])
    assert stream.exit_code == 127
    assert "not found" in said


async def test_stream_in_a_folder_that_cannot_be(client: AsyncCodeInterpreterClient) -> None:
    """A working folder that is a file is an error at the start."""
    await client.write_file("x", "file")
    with pytest.raises(DataPlaneError, match="could not be started"):
        async with client.stream_command("true", working_dir="file"):
            pass


async def running(client: AsyncCodeInterpreterClient, command: str) -> bool:
    """Whether a process of the sandbox has exactly this command line."""
    script = (
        "import glob, sys\n"
        f"line = {command!r}.split()\n"
        "for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try:\n"
        "        if open(path).read().rstrip('\\0').split('\\0') == line: sys.exit(9)\n"
        "    except OSError: pass\n"
    )
    return (await client.execute_command_result(["python3", "-c", script])).exit_code == 9


async def wait_until_running(client: AsyncCodeInterpreterClient, command: str) -> None:
    """Wait for a process to appear."""
    async with asyncio.timeout(10):
        while not await running(client, command):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)


async def assert_not_running(client: AsyncCodeInterpreterClient, command: str) -> None:
    """Fail unless a process is gone within a few seconds."""
    async with asyncio.timeout(5):
        while await running(client, command):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)
