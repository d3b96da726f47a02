"""complete, inspect and is_complete."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from .local_magics import LocalMagics, may_concern
from .requests import Request, field

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..registry.registry import Registry

log = logging.getLogger("agentcube_kernel.kernel")


class Introspection:
    """Answers questions about code. None of them ever starts a sandbox or waits for one to start."""

    def __init__(self, registry: Registry, magics: LocalMagics) -> None:
        self._registry = registry
        self._magics = magics

    async def complete(self, request: Request) -> dict[str, Any]:
        """The content of a `complete_reply`; no matches while there is no sandbox, or when it takes too long."""
        code = field(request, "code", str)
        position = _position(field(request, "cursor_pos", int, len(code)), code)
        nothing = {
            "status": "ok",
            "matches": [],
            "cursor_start": position,
            "cursor_end": position,
            "metadata": {},
        }
        if may_concern(code):
            ours = await self._magics.complete(code, position)
            if ours is not None:
                return ours
        sandbox = self._registry.ready
        if sandbox is None:
            return nothing
        return nothing | await _soon(sandbox.complete(code, position), sandbox.timings.question)

    async def inspect(self, request: Request) -> dict[str, Any]:
        """The content of an `inspect_reply`; nothing is found while there is no sandbox."""
        code = field(request, "code", str)
        position = _position(field(request, "cursor_pos", int, len(code)), code)
        detail = field(request, "detail_level", int, 0)
        nothing = {"status": "ok", "found": False, "data": {}, "metadata": {}}
        sandbox = self._registry.ready
        if sandbox is None:
            return nothing
        return nothing | await _soon(sandbox.inspect(code, position, detail), sandbox.timings.question)

    async def is_complete(self, request: Request) -> dict[str, Any]:
        """The content of an `is_complete_reply`, found here: the rules are IPython's and need no variables."""
        from IPython.core.inputtransformer2 import TransformerManager

        code = field(request, "code", str)
        # A fresh one each time: a transformer manager keeps state between cells.
        status, indent = TransformerManager().check_complete(code)
        reply: dict[str, Any] = {"status": status}
        if status == "incomplete":
            reply["indent"] = " " * (indent or 0)
        return reply


def _position(position: int, code: str) -> int:
    return max(0, min(position, len(code)))


async def _soon(answer: Awaitable[dict[str, Any]], seconds: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        log.info("no answer from the sandbox within %s s", seconds)
        return {}
