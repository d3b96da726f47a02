"""Keeping a session from idling out while one long request waits.

AgentCube counts a session as active when a request arrives and when it ends, not while it lasts; a command that
takes longer than the session's idle timeout (15 minutes by default) would be killed with its sandbox.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..errors import AgentCubeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

logger = logging.getLogger("agentcube_kernel.heartbeat")


class Heartbeat:
    """Calls `beat` every `interval` seconds for as long as the context lasts, the first time after one interval."""

    def __init__(self, beat: Callable[[], Awaitable[object]], *, interval: float) -> None:
        self._beat = beat
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Heartbeat:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self._beat()
            except AgentCubeError as error:
                # The request that is being waited for will say what is wrong.
                logger.debug("keeping the session alive failed: %s", error)
