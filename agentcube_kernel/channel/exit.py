"""The exit: all that comes from a sandbox passes here before a front end, a terminal or a log sees it.

What comes from a sandbox is data of a stranger. Only known event types and answers with content of the right shape
pass, cleaned, and held to what the sandbox is trusted with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..text import harmless, one_line, terminal_text
from .events import Form, event_type
from .execute_replies import restrain_reply
from .mime_bundles import mime_bundle
from .protocol import Event, notice_event
from .shapes import (
    Content,
    WrongShapeError,
    count,
    identifier,
    json_data,
    json_object,
    plain_text,
    shown_lines,
    shown_text,
)
from .trust import Policy, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .trust import Trust

_LONGEST_INDENT = 400


def admit(event: Event, trust: Trust) -> Event | None:
    """Return the event as it may pass, a notice in its place, or None when trust lets nothing of it pass.

    An event that ends a cell is never left out, so that nobody waits for it in vain.
    """
    cell_id = identifier(event.cell_id)
    row = event_type(event.type)
    if row is None:
        name = one_line(event.type, 40)
        return notice_event(
            cell_id, f"\n[the sandbox sent an event of unknown type {name!r}, left out here]\n"
        )
    try:
        content, metadata = row.clean(event.content), json_data(event.metadata)
    except (WrongShapeError, RecursionError) as exc:
        reason = one_line(str(exc))
        if row.malformed is None:
            return notice_event(
                cell_id, f"\n[the sandbox sent a malformed {event.type}, left out here: {reason}]\n"
            )
        content, metadata = row.malformed(reason), {}
    clean = replace(event, content=content, metadata=metadata, cell_id=cell_id)
    return _hold_to(policy_of(trust), row.form, clean)


def _hold_to(policy: Policy, form: Form, event: Event) -> Event | None:
    if form is Form.COMM and not policy.comms:
        return None
    if form is Form.BUNDLE:
        content = {**event.content, "data": policy.bundle(event.content["data"])}
        return replace(event, content=content, buffers=event.buffers if policy.buffers else ())
    if form is Form.REPLY:
        return replace(event, content=restrain_reply(event.content, policy))
    return event


def admit_reply(reply: object, question: str, trust: Trust) -> Content:
    """Return the answer to a question (completion, inspection, …) as it may pass; an unusable one becomes an empty one.

    Raises:
        KeyError: there is no such question.
    """
    clean = _REPLIES[question]
    if not isinstance(reply, dict):
        return {}
    try:
        return clean(reply, policy_of(trust))
    except (WrongShapeError, RecursionError):
        return {}


def _complete_reply(reply: Content, policy: Policy) -> Content:
    if reply.get("status") != "ok":
        return {}
    return {
        "status": "ok",
        "matches": shown_lines(reply, "matches"),
        "cursor_start": count(reply, "cursor_start"),
        "cursor_end": count(reply, "cursor_end"),
        "metadata": json_object(reply, "metadata", terminal_text),
    }


def _inspect_reply(reply: Content, policy: Policy) -> Content:
    if reply.get("status") != "ok":
        return {}
    return {
        "status": "ok",
        "found": reply.get("found") is True,
        "data": policy.bundle(mime_bundle(reply)),
        "metadata": json_object(reply, "metadata"),
    }


def _is_complete_reply(reply: Content, policy: Policy) -> Content:
    status = plain_text(reply, "status")
    if status not in ("complete", "incomplete", "invalid", "unknown"):
        raise WrongShapeError("an unknown status")
    if status != "incomplete":
        return {"status": status}
    indent = plain_text(reply, "indent")
    if indent.strip(" \t"):
        raise WrongShapeError("an indent that is not white space")
    return {"status": status, "indent": indent[:_LONGEST_INDENT]}


def _comm_info(reply: Content, policy: Policy) -> Content:
    if not policy.comms:
        return {}
    return {
        identifier(comm_id): {"target_name": shown_text(info, "target_name")}
        for comm_id, info in reply.items()
        if isinstance(info, dict) and "target_name" in info
    }


_USAGE_NUMBERS = ("pid", "kernel_cpu", "kernel_memory", "cpu_count", "host_cpu_percent")


def _usage_reply(reply: Content, policy: Policy) -> Content:
    usage: Content = {key: reply[key] for key in _USAGE_NUMBERS if _is_number(reply.get(key))}
    memory = reply.get("host_virtual_memory")
    if isinstance(memory, dict):
        usage["host_virtual_memory"] = {
            harmless(key): value for key, value in memory.items() if _is_number(value)
        }
    for key in ("hostname", "running"):
        if isinstance(reply.get(key), str):
            usage[key] = identifier(reply[key])
    return usage


def _is_number(value: object) -> bool:
    """Whether it can be shown and reckoned with; JSON knows numbers that no float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63


_REPLIES: Mapping[str, Callable[[Content, Policy], Content]] = {
    "complete": _complete_reply,
    "inspect": _inspect_reply,
    "is_complete": _is_complete_reply,
    "comm_info": _comm_info,
    "usage": _usage_reply,
}


def admit_text(text: object, limit: int = 2000) -> str:
    """What a sandbox said, for an error message of ours: the end of it, without control characters but line ends."""
    return harmless(str(text)[-limit:].strip(), lines=True)
