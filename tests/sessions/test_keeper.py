"""Several keepers of one process."""

from __future__ import annotations

import pytest

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.sessions.keeper import Keeper

pytestmark = pytest.mark.usefixtures("configured", "needs_sessions")


async def test_the_end_of_one_keeper_is_not_that_of_another() -> None:
    """A session stays while the keeper that noted it is open, whichever others of its process come and go."""
    first = Keeper()
    async with AsyncCodeInterpreterClient(keeper=first) as client:
        for _ in range(2):
            second = Keeper()
            async with AsyncCodeInterpreterClient(keeper=second) as other:
                await other.health()
            second.close()
        assert (await client.execute_command("echo there")) == "there\n"
        record = await first.find(str(client.session_id))
        assert record is not None
    first.close()
