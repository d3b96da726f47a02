"""The table of event types: what each is, and what becomes of it.

Whoever does something with events reads it here through `event_type`: the exit, the channel, cells, the kernel's
publisher, `%%sandbox` cells and IPython. The guest, which runs from its own copy of the protocol, marks by itself what
is urgent; a test compares that with this table.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .execute_replies import error, execute_reply
from .mime_bundles import mime_bundle
from .shapes import Content, WrongShapeError, count, json_object, plain_text, shown_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Form(Enum):
    """What the content of an event is, for the policy and for whoever shows it."""

    TEXT = "text"
    """`name` and `text` of a stream."""
    BUNDLE = "bundle"
    """`data`, a mime bundle, with `metadata`: held to the policy."""
    ERROR = "error"
    """`ename`, `evalue`, `traceback`."""
    CLEAR = "clear"
    """Takes output away."""
    COMM = "comm"
    """A message to code in the front end: refused where the policy lets no comms pass."""
    REPLY = "reply"
    """How a cell ended; what it holds for a front end is held to the policy."""
    SIGN = "sign"
    """Tells where a cell is; nothing to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """One row of the table."""

    name: str
    clean: Callable[[Content], Content]
    """Returns the content as it may pass, or raises `WrongShapeError`."""
    form: Form
    urgent: bool = False
    """The guest ends a held request for it at once."""
    ends: bool = False
    """The last event of a cell or comm message."""
    published: bool = False
    """Output for a front end, which gets it as it is."""
    in_cells: bool = False
    """Shown by `%%sandbox` cells; an error is not, since it ends the cell."""
    in_background: bool = False
    """Shown in an IPython also when no cell runs."""
    malformed: Callable[[str], Content] | None = None
    """The content that takes the place of malformed content, given the reason; by default a notice takes its place."""


def _stream(content: Content) -> Content:
    name = plain_text(content, "name")
    if name not in ("stdout", "stderr"):
        raise WrongShapeError("an unknown stream")
    return {"name": name, "text": shown_text(content, "text")}


def _display(content: Content) -> Content:
    return {
        "data": mime_bundle(content),
        "metadata": json_object(content, "metadata"),
        "transient": json_object(content, "transient"),
    }


def _execute_result(content: Content) -> Content:
    return {
        "data": mime_bundle(content),
        "metadata": json_object(content, "metadata"),
        "execution_count": count(content, "execution_count"),
    }


def _execute_input(content: Content) -> Content:
    return {"code": plain_text(content, "code"), "execution_count": count(content, "execution_count")}


def _clear_output(content: Content) -> Content:
    return {"wait": content.get("wait") is True}


def _input_request(content: Content) -> Content:
    return {"prompt": shown_text(content, "prompt"), "password": content.get("password") is True}


def _comm_open(content: Content) -> Content:
    opened = {**_comm(content), "target_name": plain_text(content, "target_name")}
    if isinstance(content.get("target_module"), str):
        opened["target_module"] = plain_text(content, "target_module")
    return opened


def _comm(content: Content) -> Content:
    return {"comm_id": plain_text(content, "comm_id"), "data": json_object(content, "data")}


def _unusable_reply(reason: str) -> Content:
    return {
        "status": "error",
        "execution_count": 0,
        "user_expressions": {},
        "payload": [],
        "ename": "MalformedReply",
        "evalue": f"The cell has ended, and the sandbox did not say properly how: {reason}",
        "traceback": [],
    }


def _nothing(content: object) -> Content:
    return {}


_TABLE: dict[str, EventType] = {
    row.name: row
    for row in (
        EventType(
            name="stream", clean=_stream, form=Form.TEXT, published=True, in_cells=True, in_background=True
        ),
        EventType(name="display_data", clean=_display, form=Form.BUNDLE, published=True, in_cells=True),
        EventType(
            name="update_display_data", clean=_display, form=Form.BUNDLE, published=True, in_cells=True
        ),
        EventType(
            name="execute_result", clean=_execute_result, form=Form.BUNDLE, published=True, in_cells=True
        ),
        EventType(name="error", clean=error, form=Form.ERROR, published=True),
        EventType(name="clear_output", clean=_clear_output, form=Form.CLEAR, published=True, in_cells=True),
        EventType(name="comm_open", clean=_comm_open, form=Form.COMM, published=True),
        EventType(name="comm_msg", clean=_comm, form=Form.COMM, published=True),
        EventType(name="comm_close", clean=_comm, form=Form.COMM, published=True),
        EventType(name="execute_input", clean=_execute_input, form=Form.SIGN),
        EventType(name="input_request", clean=_input_request, form=Form.SIGN, urgent=True),
        EventType(
            name="execute_reply",
            clean=execute_reply,
            form=Form.REPLY,
            urgent=True,
            ends=True,
            malformed=_unusable_reply,
        ),
        EventType(name="comm_reply", clean=_nothing, form=Form.SIGN, urgent=True, ends=True),
    )
}


def event_type(name: str) -> EventType | None:
    """The row of an event type; None for a type that there is not."""
    return _TABLE.get(name)


def event_types() -> Mapping[str, EventType]:
    """All rows by name."""
    return dict(_TABLE)


@contextmanager
def added_event_type(row: EventType) -> Iterator[None]:
    """For tests: have one more row in this process while the block runs."""
    assert row.name not in _TABLE
    _TABLE[row.name] = row
    try:
        yield
    finally:
        del _TABLE[row.name]


__all__ = ["EventType", "Form", "added_event_type", "event_type", "event_types"]
