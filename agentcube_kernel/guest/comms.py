"""Comms: the two-way channel of widgets, on the `comm` package."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import comm
from comm.base_comm import BaseComm, CommManager

if TYPE_CHECKING:
    from .outgoing import Outgoing


class Comms:
    """Makes `comm.create_comm` and `comm.get_comm_manager` talk to the front end."""

    def __init__(self, outgoing: Outgoing) -> None:
        self.manager = CommManager()
        manager = self.manager

        class GuestComm(BaseComm):
            def publish_msg(
                self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
            ) -> None:
                content = {"data": data or {}, "comm_id": self.comm_id, **keys}
                outgoing.event(
                    msg_type, content, metadata=metadata, buffers=[_as_bytes(b) for b in buffers or ()]
                )

        comm.create_comm = lambda *args, **kwargs: GuestComm(*args, **kwargs)
        comm.get_comm_manager = lambda: manager

    def handle(self, task: dict[str, Any]) -> None:
        """Hand a front end's comm_open, comm_msg or comm_close to the comm that it is for."""
        kind = task["type"]
        message = {
            "header": {"msg_id": task["id"], "msg_type": kind},
            "msg_type": kind,
            "content": task["content"],
            "metadata": task.get("metadata") or {},
            "buffers": [memoryview(base64.b64decode(item)) for item in task.get("buffers") or ()],
        }
        if kind in ("comm_open", "comm_msg", "comm_close"):
            getattr(self.manager, kind)(None, None, message)

    def info(self, target: str | None) -> dict[str, Any]:
        return {
            comm_id: {"target_name": item.target_name}
            for comm_id, item in self.manager.comms.items()
            if target is None or item.target_name == target
        }


def _as_bytes(buffer: Any) -> bytes:
    return memoryview(buffer).tobytes()
