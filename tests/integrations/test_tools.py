"""The tools of a sandbox, as an agent framework calls them."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from agentcube_kernel import ArgumentTypeError, AsyncSandbox, ConfigurationError, Sandbox
from agentcube_kernel.integrations.tools import asandbox_tools, sandbox_tools
from tests.sandboxes import opened

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def sandbox(configured: dict[str, str]) -> Iterator[Sandbox]:
    """A sandbox for tools that wait for their results."""
    with Sandbox() as sandbox:
        yield sandbox


def by_name(tools: list[Any]) -> dict[str, Any]:
    """Tools as a framework keeps them."""
    return {tool.__name__: tool for tool in tools}


def test_functions_describe_themselves() -> None:
    """Each tool has concrete annotations, a description and its arguments, as schemas are made of."""
    for tools in (sandbox_tools(Sandbox()), asandbox_tools(AsyncSandbox())):
        assert list(by_name(tools)) == ["run_python", "run_shell", "read_file", "write_file"]
        for tool in tools:
            signature = inspect.signature(tool)
            assert "Args:" in tool.__doc__
            for name, parameter in signature.parameters.items():
                assert parameter.annotation is str
                assert f"        {name}: " in tool.__doc__


def test_variables_and_files_stay(sandbox: Sandbox) -> None:
    """What one call has left is there for the next one, whichever tool it uses."""
    tools = by_name(sandbox_tools(sandbox))
    assert tools["run_python"]("x = 20; print('set')")["stdout"] == "set\n"
    assert tools["run_python"]("x + 1") == {
        "ok": True,
        "stdout": "",
        "stderr": "",
        "result": "21",
        "displays": [],
        "error": None,
    }
    assert tools["write_file"]("data/a.txt", "grün")["ok"]
    assert tools["run_shell"]("cat data/a.txt | tr g G; echo e >&2") == {
        "ok": True,
        "stdout": "Grün",
        "stderr": "e\n",
        "exit_code": 0,
        "error": None,
    }
    assert tools["read_file"]("data/a.txt") == {
        "ok": True,
        "content": "grün",
        "truncated": False,
        "error": None,
    }


def test_failures_are_answers(sandbox: Sandbox) -> None:
    """Whatever an agent does wrong is an answer that says so, and nothing is raised."""
    tools = by_name(sandbox_tools(sandbox))
    failed = tools["run_python"]("print('before'); 1 / 0")
    assert not failed["ok"]
    assert failed["stdout"] == "before\n"
    assert "ZeroDivisionError" in failed["error"]
    assert "\x1b" not in failed["error"]
    assert tools["run_shell"]("exit 3")["exit_code"] == 3
    assert not tools["run_shell"]("a\0b")["ok"]
    assert not tools["run_python"](None)["ok"]
    assert "has no file" in tools["read_file"]("missing")["error"]
    assert "is a directory" in tools["read_file"](".")["error"]
    assert "is a directory" in tools["write_file"](".", "x")["error"]
    assert not tools["write_file"]("x", None)["ok"]
    assert not tools["read_file"]("")["ok"]
    assert tools["run_shell"]("mkfifo pipe")["ok"]
    assert "is a pipe" in tools["read_file"]("pipe")["error"]
    assert tools["run_python"]("open('b', 'wb').write(bytes(range(256)))")["ok"]
    assert "not text" in tools["read_file"]("b")["error"]


def test_time_limit(sandbox: Sandbox) -> None:
    """A cell and a command that take too long are ended, what they had put out is there, and variables are kept."""
    tools = by_name(sandbox_tools(sandbox, timeout=0.5))
    late = tools["run_python"]("x = 1; print('begun'); import time; time.sleep(60)")
    assert not late["ok"]
    assert late["stdout"] == "begun\n"
    assert "was interrupted" in late["error"]
    assert tools["run_python"]("x")["result"] == "1"
    late = tools["run_shell"]("echo begun; sleep 60")
    assert late["exit_code"] == 124
    assert "was stopped" in late["error"]


def test_answers_are_bounded(sandbox: Sandbox) -> None:
    """Long output is cut in the middle, a long file at its end, and an image is named instead of sent."""
    tools = by_name(sandbox_tools(sandbox))
    for answer in (
        tools["run_python"]("print('a' * 10**6 + 'z'); 'b' * 10**6"),
        tools["run_shell"]("head -c 1000000 /dev/zero | tr '\\0' x"),
        tools["run_python"]("raise ValueError('c' * 10**6)"),
    ):
        assert len(json.dumps(answer)) < 70_000
        assert "characters left out" in json.dumps(answer, ensure_ascii=False)
    code = "from IPython.display import Image, display; import base64"
    answer = tools["run_python"](f"{code}; display(Image(base64.b64decode('{PNG}')))")
    assert "[image/png, 96 B]" in answer["displays"][0]
    tools["run_shell"]("head -c 3000000 /dev/zero | tr '\\0' x > long")
    long = tools["read_file"]("long")
    assert long["truncated"]
    assert len(long["content"]) == 100_000


def test_large_and_absolute_paths(sandbox: Sandbox) -> None:
    """Files of any size go anywhere in the sandbox, and leave no temporary file."""
    tools = by_name(sandbox_tools(sandbox))
    folder = tools["run_shell"]("mktemp -d")["stdout"].strip()
    try:
        content = "0123456789" * 30_000
        assert tools["write_file"](f"{folder}/deep/er/file", content)["ok"]
        assert tools["run_shell"](f"wc -c < {folder}/deep/er/file")["stdout"].strip() == "300000"
        assert tools["read_file"](f"{folder}/deep/er/file")["content"] == content[:100_000]
        assert tools["write_file"]("-n", "odd")["ok"]
        assert tools["read_file"]("-n")["content"] == "odd"
        assert tools["run_shell"]("ls -A | grep -E 'agentcube-[0-9a-f]{32}'")["stdout"] == ""
    finally:
        tools["run_shell"](f"rm -rf {folder}")


async def test_cancelled_call_interrupts(configured: dict[str, str]) -> None:
    """A cancelled call does not keep the sandbox from the next one."""
    async with opened() as sandbox:
        tools = by_name(asandbox_tools(sandbox))
        call = asyncio.create_task(
            tools["run_python"]("open('begun', 'w').close(); import time; time.sleep(60)")
        )
        while not (await tools["run_shell"]("test -e begun"))["ok"]:
            assert not call.done()
        call.cancel()
        await asyncio.wait({call})
        async with asyncio.timeout(10):
            assert (await tools["run_python"]("1 + 1"))["result"] == "2"


async def test_calls_at_once_wait_for_each_other(configured: dict[str, str]) -> None:
    """The time limit of a call begins when its cell does, not while it waits behind others."""
    async with opened() as sandbox:
        tools = by_name(asandbox_tools(sandbox, timeout=1.5))
        code = "import time; time.sleep(0.8); 'done'"
        answers = await asyncio.gather(*(tools["run_python"](code) for _ in range(3)))
        assert [answer["result"] for answer in answers] == ["'done'"] * 3


async def test_lost_session(configured: dict[str, str], needs_sessions: None) -> None:
    """A session that is gone is an answer that says what was lost."""
    from agentcube_kernel import AsyncCodeInterpreterClient

    async with opened() as owner:
        sandbox = AsyncSandbox(AsyncCodeInterpreterClient(session_id=owner.session_id))
        tools = by_name(asandbox_tools(sandbox))
        assert (await tools["run_python"]("1"))["ok"]
        await owner.stop()
        for answer in (await tools["run_python"]("1"), await tools["run_shell"]("true")):
            assert not answer["ok"]
            assert str(sandbox.session_id) in answer["error"]
        await sandbox.close()


def test_two_sandboxes_need_a_prefix() -> None:
    """Tools of one name are refused when they come together, and with a prefix they do not."""
    first, second = Sandbox(), Sandbox()
    with pytest.raises(ConfigurationError, match="two tools named 'run_python'"):
        sandbox_tools(first) + sandbox_tools(second)
    tools = sandbox_tools(first)
    with pytest.raises(ConfigurationError, match="prefix"):
        tools.extend(sandbox_tools(second))
    assert len(tools) == 4
    tools += sandbox_tools(second, prefix="second_")
    assert "second_run_shell" in by_name(tools)


def test_wrong_arguments() -> None:
    """What cannot work is refused before an agent runs."""
    with pytest.raises(ArgumentTypeError, match="asandbox_tools"):
        sandbox_tools(AsyncSandbox())  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="sandbox_tools"):
        asandbox_tools(Sandbox())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="timeout"):
        sandbox_tools(Sandbox(), timeout=0)
    with pytest.raises(ConfigurationError, match="letters"):
        sandbox_tools(Sandbox(), prefix="a-b ")
