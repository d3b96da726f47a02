"""One sandbox for all tests of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.config import Settings
from agentcube_kernel.sandbox import AsyncSandbox


@pytest.fixture(scope="module")
async def sandbox(endpoint_env: dict[str, str], anyio_backend: str) -> AsyncIterator[AsyncSandbox]:
    """An open sandbox, shared by the tests of one file."""
    settings = Settings.load({**endpoint_env})
    async with AsyncSandbox(AsyncCodeInterpreterClient(settings=settings)) as sandbox:
        yield sandbox
