"""What goes out on IOPub, each message with the parent that it belongs to."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ..channel.events import event_type
from ..text import well_formed_json
from .requests import msg_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jupyter_client.session import Session

    from ..channel.protocol import Event
    from .requests import Request

REMEMBERED_PARENTS = 2000


class Publisher:
    """Sends IOPub messages; callable from any thread, and never through the kernel's notion of a current parent."""

    def __init__(self, session: Session, iopub_socket: Any, topic: Callable[[str], bytes]) -> None:
        self._session = session
        self._iopub_socket = iopub_socket
        self._topic = topic
        self._headers: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def remember(self, request: Request) -> None:
        """Keep the request's header, so that output which comes after its reply still finds its parent."""
        self._headers[request.task_id] = request.message["header"]
        while len(self._headers) > REMEMBERED_PARENTS:
            self._headers.popitem(last=False)

    def publish(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        parent: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] | None = None,
    ) -> None:
        """Send one message on IOPub with `parent` (a message) as its parent."""
        try:
            self._send(msg_type, content, parent, metadata, buffers)
        except ValueError:
            # Half a surrogate pair is a valid str and cannot be encoded.
            self._send(msg_type, well_formed_json(content), parent, well_formed_json(metadata), buffers)

    def _send(self, msg_type: str, content: Any, parent: Any, metadata: Any, buffers: Any) -> None:
        self._session.send(
            self._iopub_socket,
            msg_type,
            content,
            parent=parent,
            ident=self._topic(msg_type),
            metadata=metadata,
            buffers=buffers,
        )

    def forward(self, event: Event, parent: Mapping[str, Any] | None = None) -> None:
        """Publish an event of a sandbox; without `parent` it goes to the cell that the event names.

        Nothing but the types of output of the event table reaches a front end unasked.
        """
        row = event_type(event.type)
        if row is None or not row.published:
            return
        self.publish(
            event.type,
            event.content,
            parent=parent if parent is not None else self._parent_of(event.cell_id),
            metadata=event.metadata,
            buffers=event.buffers,
        )

    def _parent_of(self, cell_id: str) -> Mapping[str, Any] | None:
        if not cell_id:
            return None
        # A cell of the kernel before this one: the msg_id is what a front end goes by.
        unknown = {"msg_id": msg_id_of(cell_id), "msg_type": "execute_request"}
        return {"header": self._headers.get(cell_id, unknown)}
