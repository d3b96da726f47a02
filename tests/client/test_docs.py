"""The examples of the documentation."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import textwrap
from pathlib import Path

import pytest

import agentcube_kernel
from agentcube_kernel import AsyncAgentRuntimeClient, AsyncCodeInterpreterClient, CodeInterpreterClient
from tests.client.stub import Request, from_sandbox, reply, stub

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[object]:
    """The Python examples of the page, each with the line it begins at."""
    text = (ROOT / "docs" / "clients.md").read_text()
    return [
        pytest.param(match.group(1), id=f"line {text[: match.start()].count(chr(10)) + 1}")
        for match in FENCE.finditer(text)
    ]


async def run(source: str) -> None:
    """Run an example, with `await` at the top level."""
    code = compile(source, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, {"__name__": "example"})
    if inspect.iscoroutine(result):
        await result


@pytest.mark.parametrize("source", examples())
def test_examples(
    source: str, configured: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example runs by itself, from a folder of its own."""
    monkeypatch.chdir(tmp_path)
    if "AgentRuntimeClient" in source:
        asyncio.run(_with_an_agent(source, monkeypatch))
        return
    if "detach()" in source and "AGENTCUBE_PICOD_URL" in configured:
        pytest.skip("a bare PicoD has no sessions")
    asyncio.run(run(source))


async def _with_an_agent(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def agent(request: Request) -> bytes:
        if request.method == "DELETE":
            return reply(200, {"message": "ok"})
        return from_sandbox(200, {"answer": request.body.decode()})

    async with stub(agent) as server:
        monkeypatch.delenv("AGENTCUBE_PICOD_URL", raising=False)
        monkeypatch.setenv("ROUTER_URL", server.url)
        monkeypatch.setenv("WORKLOAD_MANAGER_URL", server.url)
        if "async with" in source:
            await run(source)
        else:
            await asyncio.to_thread(lambda: asyncio.run(run(source)))


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (AsyncCodeInterpreterClient, "async with AsyncCodeInterpreterClient()"),
        (CodeInterpreterClient, "with CodeInterpreterClient()"),
        (agentcube_kernel.Sandbox, "with Sandbox()"),
    ],
)
def test_docstring_examples(kind: type[object], start: str, configured: dict[str, str]) -> None:
    """The example in a client's docstring runs as it stands."""
    documentation = inspect.getdoc(kind) or ""
    block = documentation.partition("::\n\n")[2]
    source = textwrap.dedent("\n".join(line for line in block.split("\n\n")[0].splitlines()))
    assert source.startswith(start)
    asyncio.run(run(f"from agentcube_kernel import *\n{source}"))


def test_agent_docstring_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """So does the one of the agents' client."""
    block = (inspect.getdoc(AsyncAgentRuntimeClient) or "").partition("::\n\n")[2].split("\n\n")[0]
    source = "from agentcube_kernel import *\n" + textwrap.dedent(block)
    asyncio.run(_with_an_agent(source, monkeypatch))


def test_error_tree_is_drawn_as_it_is() -> None:
    """The tree in the docstring of errors.py names every error class, with its parent above it."""
    from agentcube_kernel import errors

    drawn: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([ │├└─]*)([A-Z]\w+Error)\b", line)
        if match is None:
            continue
        depth, name = len(match.group(1)), match.group(2)
        stack = [(d, n) for d, n in stack if d < depth]
        drawn[name] = stack[-1][1] if stack else ""
        stack.append((depth, name))
    real = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.AgentCubeError)
    }
    real["AgentCubeError"] = ""
    assert drawn == real
