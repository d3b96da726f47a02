"""Notebooks in both kinds of kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.magics.notebooks import KINDS, Notebook, notebook

OpenNotebook = Callable[[str], Awaitable[Notebook]]


@pytest.fixture(scope="module", params=KINDS)
async def shared(
    request: pytest.FixtureRequest,
    anyio_backend: str,
    endpoint_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Notebook]:
    """A notebook of each kind for tests that leave no sandbox of their own."""
    async with notebook(request.param, tmp_path_factory.mktemp("notebook"), endpoint_env) as user:
        yield user


@pytest.fixture
async def open_notebook(endpoint_env: dict[str, str], tmp_path: Path) -> AsyncIterator[OpenNotebook]:
    """Open further notebooks; they are shut down with the test."""
    async with AsyncExitStack() as notebooks:
        opened = 0

        async def start(kind: str) -> Notebook:
            nonlocal opened
            opened += 1
            return await notebooks.enter_async_context(
                notebook(kind, tmp_path / f"notebook-{opened}", endpoint_env)
            )

        yield start
