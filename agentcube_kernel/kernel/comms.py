"""Comm messages (widgets), relayed both ways."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError

if TYPE_CHECKING:
    from ..registry.registry import Registry
    from .interrupts import Interrupts
    from .publishing import Publisher
    from .requests import Request

log = logging.getLogger("agentcube_kernel.kernel")


class Comms:
    """Hands front ends' comm messages to the guest, which holds the other ends. Comm ids mean nothing here."""

    def __init__(self, *, registry: Registry, publisher: Publisher, interrupts: Interrupts) -> None:
        self._registry = registry
        self._publisher = publisher
        self._interrupts = interrupts

    async def receive(self, request: Request) -> None:
        """Deliver a comm message and publish what its callback puts out, until the callback has ended."""
        sandbox = self._registry.ready
        msg_type = request.message["header"]["msg_type"]
        if sandbox is None:
            self._refuse(request, msg_type)
            return
        self._publisher.remember(request)
        with self._interrupts.watch() as execution:
            execution.target = sandbox
            try:
                async with aclosing(
                    sandbox.stream_comm(
                        msg_type,
                        request.content,
                        metadata=request.message.get("metadata") or {},
                        buffers=[bytes(buffer) for buffer in request.message.get("buffers") or ()],
                        message_id=request.task_id,
                    )
                ) as events:
                    async for event in events:
                        if event.type != "comm_reply":
                            self._publisher.forward(event, request.message)
            except AgentCubeError as error:
                log.warning("a %s was not delivered: %s", msg_type, error)
                self._refuse(request, msg_type)
            except asyncio.CancelledError:
                if execution.failure is None:
                    raise
                execution.task.uncancel()

    async def info(self, request: Request) -> dict[str, Any]:
        """The content of a `comm_info_reply`; no comms while there is no sandbox."""
        target = request.content.get("target_name")
        sandbox = self._registry.ready
        comms = (
            {} if sandbox is None else await sandbox.comm_info(target if isinstance(target, str) else None)
        )
        return {"status": "ok", "comms": comms}

    def _refuse(self, request: Request, msg_type: str) -> None:
        # As IPython answers an open for a target that it does not know.
        if msg_type == "comm_open":
            self._publisher.publish(
                "comm_close",
                {"comm_id": request.content.get("comm_id", ""), "data": {}},
                parent=request.message,
            )
