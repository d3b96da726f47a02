"""How much of the sandbox is in use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError

if TYPE_CHECKING:
    from ..registry.registry import Registry
    from .requests import Request

PATIENCE_SECONDS = 1.0
"""Usage is asked for on the control channel, where an interrupt may wait behind it."""


class Usage:
    """Reports the sandbox's processor and memory use, never this machine's."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def report(self, request: Request) -> dict[str, Any]:
        """The content of a `usage_reply`; an error with a `reason` when there is nothing to report."""
        sandbox = self._registry.ready
        if sandbox is None:
            return _nothing("there is no sandbox yet")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return {"status": "ok", **await sandbox.usage()}
        except TimeoutError:
            return _nothing(f"the sandbox did not answer within {PATIENCE_SECONDS:g} s")
        except AgentCubeError as error:
            return _nothing(str(error))


def _nothing(reason: str) -> dict[str, Any]:
    return {
        "status": "error",
        "ename": "UsageUnknown",
        "evalue": reason,
        "traceback": [],
        "reason": reason,
    }
