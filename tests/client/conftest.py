"""Clients of this run's AgentCube."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentcube_kernel import AsyncCodeInterpreterClient


@pytest.fixture
async def client(configured: dict[str, str]) -> AsyncIterator[AsyncCodeInterpreterClient]:
    """An open client with a session, or a folder on a bare PicoD, of its own."""
    async with AsyncCodeInterpreterClient() as opened:
        yield opened
        if opened.settings.picod_url is not None:
            await opened.execute_command(
                ["sh", "-c", "find . -mindepth 1 -maxdepth 1 ! -name .agentcube -exec rm -rf {} +"]
            )
