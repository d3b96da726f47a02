"""The synchronous clients are the asynchronous ones; both have what the stock SDK has."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from typing import Any

import pytest

import agentcube_kernel
from agentcube_kernel import (
    AgentCubeError,
    AgentRuntimeClient,
    AsyncAgentRuntimeClient,
    AsyncAgentRuntimeDataPlaneClient,
    AsyncCodeInterpreterClient,
    AsyncCodeInterpreterDataPlaneClient,
    AsyncControlPlaneClient,
    AsyncSandbox,
    CellRun,
    CodeInterpreterClient,
    Sandbox,
    SyncCellRun,
)

CONSTRUCTED: list[tuple[type[Any], type[Any]]] = [
    (AsyncCodeInterpreterClient, CodeInterpreterClient),
    (AsyncAgentRuntimeClient, AgentRuntimeClient),
    (AsyncSandbox, Sandbox),
]
PAIRS = [*CONSTRUCTED, (CellRun, SyncCellRun)]
TWIN_TYPES = {"CellRun": "SyncCellRun"}
# What only makes sense with an event loop: the levels below, another way to construct, and another name for close.
ASYNC_ONLY = {"create", "data_plane", "control_plane", "aclose", "interrupt_soon"}


def public(kind: type[Any]) -> dict[str, Any]:
    """The public members of a class, inherited ones included."""
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS)
def test_every_coroutine_has_its_twin(asynchronous: type[Any], synchronous: type[Any]) -> None:
    """Same names, same parameters, same defaults, same annotations."""
    for name, member in public(asynchronous).items():
        if name in ASYNC_ONLY or not inspect.isfunction(member):
            continue
        twin = getattr(synchronous, name)
        assert not inspect.iscoroutinefunction(twin), name
        ours, theirs = inspect.signature(member), inspect.signature(twin)
        assert list(ours.parameters.values()) == list(theirs.parameters.values()), name
        if inspect.iscoroutinefunction(member):
            expected = TWIN_TYPES.get(ours.return_annotation, ours.return_annotation)
            assert theirs.return_annotation == expected, name
    if (asynchronous, synchronous) in CONSTRUCTED:
        assert inspect.signature(asynchronous).parameters == inspect.signature(synchronous).parameters


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS)
def test_the_twins_have_no_more(asynchronous: type[Any], synchronous: type[Any]) -> None:
    """A synchronous client has no method that the asynchronous one lacks."""
    methods = {name for name, member in public(synchronous).items() if inspect.isfunction(member)}
    assert methods - set(public(asynchronous)) == set()


STOCK: list[tuple[str, type[Any]]] = [
    ("agentcube.code_interpreter.CodeInterpreterClient", AsyncCodeInterpreterClient),
    ("agentcube.code_interpreter.CodeInterpreterClient", CodeInterpreterClient),
    ("agentcube.agent_runtime.AgentRuntimeClient", AsyncAgentRuntimeClient),
    ("agentcube.agent_runtime.AgentRuntimeClient", AgentRuntimeClient),
    ("agentcube.clients.ControlPlaneClient", AsyncControlPlaneClient),
    ("agentcube.clients.CodeInterpreterDataPlaneClient", AsyncCodeInterpreterDataPlaneClient),
    ("agentcube.clients.AgentRuntimeDataPlaneClient", AsyncAgentRuntimeDataPlaneClient),
]
# Of requests, and without a meaning here.
STOCK_ONLY = {"pool_connections", "pool_maxsize"}


@pytest.mark.parametrize(("path", "ours"), STOCK)
def test_stock_methods_and_parameters(path: str, ours: type[Any]) -> None:
    """Every public method of the stock SDK is here, and takes its parameters at their places."""
    pytest.importorskip("agentcube")
    module, _, name = path.rpartition(".")
    stock = getattr(__import__(module, fromlist=[name]), name)
    members = {
        "__init__": stock.__init__,
        **{n: m for n, m in public(stock).items() if inspect.isfunction(m)},
    }
    for method, member in members.items():
        theirs = [p for p in inspect.signature(member).parameters.values() if p.name not in STOCK_ONLY]
        mine = list(inspect.signature(getattr(ours, method)).parameters.values())
        assert [p.name for p in theirs] == [p.name for p in mine[: len(theirs)]], method
        for parameter, other in zip(theirs, mine, strict=False):
            if parameter.default is inspect.Parameter.empty:
                assert other.default is inspect.Parameter.empty, (method, parameter.name)


def test_stock_errors() -> None:
    """The stock SDK's names for errors are here, and take what they take there."""
    stock = pytest.importorskip("agentcube.exceptions")
    names = [name for name, value in vars(stock).items() if inspect.isclass(value)]
    assert "CommandExecutionError" in names
    for name in names:
        assert issubclass(getattr(agentcube_kernel, name), AgentCubeError)
    ours = agentcube_kernel.CommandExecutionError(2, "bad", "ls")
    theirs = stock.CommandExecutionError(2, "bad", "ls")
    assert (str(ours), ours.exit_code, ours.stderr, ours.command) == (
        str(theirs),
        theirs.exit_code,
        theirs.stderr,
        theirs.command,
    )


def test_public_names() -> None:
    """`__all__` is sorted, complete, and says the same as the imports for type checkers."""
    names = agentcube_kernel.__all__
    assert names == sorted(names, key=str.casefold)
    for name in names:
        assert getattr(agentcube_kernel, name) is not None
    source = ast.parse(inspect.getsource(agentcube_kernel))
    guarded = next(node for node in source.body if isinstance(node, ast.If))
    imported = {
        (node.module, alias.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {(home, name) for home, names in agentcube_kernel._HOMES.items() for name in names}
    assert imported == homes
    assert {name for _, name in homes} | {"load_ipython_extension"} == set(names)
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = agentcube_kernel.nonesuch


def test_importing_is_cheap() -> None:
    """`import agentcube_kernel` brings neither the HTTP library nor asyncio."""
    heavy = "{'httpx', 'httpx2', 'asyncio', 'anyio', 'IPython', 'ssl', 'sqlite3'}"
    code = f"import agentcube_kernel, sys; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_one_importer_of_the_http_library() -> None:
    """Only `wire/http.py` imports httpx, so that another library can take its place."""
    from pathlib import Path

    root = Path(agentcube_kernel.__path__[0])
    importers = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(
            (isinstance(node, ast.Import) and any(a.name.startswith("httpx") for a in node.names))
            or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("httpx"))
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    assert importers == {"wire/http.py"}


def test_chosen_http_library() -> None:
    """The library that the run was told to test with is the one that is used."""
    import os

    from agentcube_kernel.wire.http import http_library

    assert http_library().__name__ == os.environ.get("AGENTCUBE_HTTP_LIBRARY", "httpx")
