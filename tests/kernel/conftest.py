"""Kernels to test against: one for the tests that leave it as it was, and new ones for the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.frontend import FrontEnd, front_end

StartKernel = Callable[..., AbstractAsyncContextManager[FrontEnd]]


@pytest.fixture(scope="module")
async def kernel(
    anyio_backend: str, endpoint_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FrontEnd]:
    """A kernel that the tests of one module share; it has run a cell."""
    async with front_end(tmp_path_factory.mktemp("kernel"), endpoint_env) as user:
        await user.run("pass", store_history=False)
        yield user


@pytest.fixture
async def start_kernel(endpoint_env: dict[str, str], tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start further kernels: `await start_kernel(env={...}, arguments=[...])`. They end with the test."""
    async with AsyncExitStack() as kernels:
        started = 0

        async def start(*, env: dict[str, str] | None = None, **options: Any) -> FrontEnd:
            nonlocal started
            started += 1
            settings = endpoint_env if env is None else {**endpoint_env, **env}
            return await kernels.enter_async_context(
                front_end(tmp_path / f"kernel-{started}", settings, **options)
            )

        yield start
