"""The gate: every event of a sandbox passes here before anything on the user's side sees it.

What comes from a sandbox is data of a stranger. Only known event types with content of the right shape pass; what has
another shape is replaced by a line that says so. This is also where a policy on what HTML, SVG, JavaScript and widgets
may do in the user's browser belongs.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..text import terminal_text, well_formed
from .protocol import Event, notice_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DEPTH_LIMIT = 64
_STREAMS = ("stdout", "stderr")

Content = dict[str, Any]


class _WrongShapeError(ValueError):
    pass


def admit(event: Event) -> Event:
    """Return the event, cleaned, or a notice in its place."""
    shape = _SHAPES.get(event.type)
    if shape is None:
        return notice_event(
            event.cell_id, f"\n[the sandbox sent an event of unknown type {event.type[:40]!r}]\n"
        )
    try:
        content = shape(event.content)
        return replace(event, content=content, metadata=_json(event.metadata))
    except (_WrongShapeError, RecursionError) as exc:
        return notice_event(
            event.cell_id, f"\n[the sandbox sent a malformed {event.type}, left out here: {exc}]\n"
        )


def _json(value: Any, depth: int = 0) -> Any:
    """Copy JSON data without what would break a strict encoder further on: NaN, lone surrogates, bottomless nesting."""
    if isinstance(value, str):
        return well_formed(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth > _DEPTH_LIMIT:
        raise _WrongShapeError("nested too deeply")
    if isinstance(value, list):
        return [_json(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_json(key): _json(item, depth + 1) for key, item in value.items()}
    raise _WrongShapeError("not JSON")


def _str(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise _WrongShapeError(f"{key} is not text")
    return well_formed(value)


def _shown(content: Mapping[str, Any], key: str) -> str:
    return terminal_text(_str(content, key))


def _int(content: Mapping[str, Any], key: str) -> int:
    value = content.get(key)
    if type(value) is not int or abs(value) > 2**53:
        raise _WrongShapeError(f"{key} is not a number")
    return value


def _object(content: Mapping[str, Any], key: str) -> Content:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise _WrongShapeError(f"{key} is not an object")
    cleaned: Content = _json(value)
    return cleaned


def _lines(content: Mapping[str, Any], key: str) -> list[str]:
    value = content.get(key, [])
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise _WrongShapeError(f"{key} is not a list of text")
    return [terminal_text(line) for line in value]


def _stream(content: Content) -> Content:
    name = _str(content, "name")
    if name not in _STREAMS:
        raise _WrongShapeError("an unknown stream")
    return {"name": name, "text": _shown(content, "text")}


def _display(content: Content) -> Content:
    return {
        "data": _mime_bundle(content),
        "metadata": _object(content, "metadata"),
        "transient": _object(content, "transient"),
    }


def _mime_bundle(content: Content) -> Content:
    data = _object(content, "data")
    for mime, value in data.items():
        # Jupyter: text and base64 are strings (or lists of lines); only JSON types carry structure.
        if isinstance(value, dict) and not mime.endswith("json"):
            raise _WrongShapeError(f"{mime[:80]} is not text")
    if isinstance(data.get("text/plain"), str):
        data["text/plain"] = terminal_text(data["text/plain"])
    return data


def _execute_result(content: Content) -> Content:
    return {
        "data": _mime_bundle(content),
        "metadata": _object(content, "metadata"),
        "execution_count": _int(content, "execution_count"),
    }


def _error(content: Content) -> Content:
    return {
        "ename": _shown(content, "ename"),
        "evalue": _str(content, "evalue"),
        "traceback": _lines(content, "traceback"),
    }


def _execute_input(content: Content) -> Content:
    return {"code": _str(content, "code"), "execution_count": _int(content, "execution_count")}


def _execute_reply(content: Content) -> Content:
    status = _str(content, "status")
    if status not in ("ok", "error"):
        raise _WrongShapeError("an unknown status")
    reply: Content = {
        "status": status,
        "execution_count": _int(content, "execution_count"),
        "user_expressions": _object(content, "user_expressions"),
        "payload": _payload(content),
    }
    return reply if status == "ok" else {**reply, **_error(content)}


_PAYLOADS = frozenset({"page", "set_next_input", "ask_exit"})


def _payload(content: Content) -> list[Content]:
    """Payloads make the front end do things, so only the harmless ones pass (not edit_magic, which opens files)."""
    value = content.get("payload", [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _WrongShapeError("payload is not a list of objects")
    return [_json(item) for item in value if item.get("source") in _PAYLOADS]


def _comm_open(content: Content) -> Content:
    opened = {**_comm(content), "target_name": _str(content, "target_name")}
    if isinstance(content.get("target_module"), str):
        opened["target_module"] = content["target_module"]
    return opened


def _comm(content: Content) -> Content:
    return {"comm_id": _str(content, "comm_id"), "data": _object(content, "data")}


def _input_request(content: Content) -> Content:
    return {"prompt": _shown(content, "prompt"), "password": content.get("password") is True}


_SHAPES: Mapping[str, Callable[[Content], Content]] = {
    "stream": _stream,
    "display_data": _display,
    "update_display_data": _display,
    "execute_result": _execute_result,
    "error": _error,
    "clear_output": lambda content: {"wait": content.get("wait") is True},
    "execute_input": _execute_input,
    "execute_reply": _execute_reply,
    "input_request": _input_request,
    "comm_open": _comm_open,
    "comm_msg": _comm,
    "comm_close": _comm,
    "comm_reply": lambda content: {},
}


def admit_reply(reply: object, question: str) -> Content:
    """Check the answer to a question (completion, inspection, …); an unusable one becomes an empty one."""
    if not isinstance(reply, dict):
        return {}
    try:
        cleaned: Content = _json(reply)
        shape = _REPLIES.get(question)
        return shape(cleaned) if shape is not None else cleaned
    except (_WrongShapeError, RecursionError):
        return {}


def _complete_reply(reply: Content) -> Content:
    if reply.get("status") != "ok":
        return {}
    return {
        "status": "ok",
        "matches": _lines(reply, "matches"),
        "cursor_start": _int(reply, "cursor_start"),
        "cursor_end": _int(reply, "cursor_end"),
        "metadata": _object(reply, "metadata"),
    }


def _inspect_reply(reply: Content) -> Content:
    if reply.get("status") != "ok":
        return {}
    return {
        "status": "ok",
        "found": reply.get("found") is True,
        "data": _mime_bundle(reply),
        "metadata": _object(reply, "metadata"),
    }


def _is_complete_reply(reply: Content) -> Content:
    status = _str(reply, "status")
    if status not in ("complete", "incomplete", "invalid", "unknown"):
        raise _WrongShapeError("an unknown status")
    return (
        {"status": status, "indent": _str(reply, "indent")} if status == "incomplete" else {"status": status}
    )


def _comm_info(reply: Content) -> Content:
    return {
        comm_id: {"target_name": _str(info, "target_name")}
        for comm_id, info in reply.items()
        if isinstance(info, dict) and "target_name" in info
    }


_REPLIES: Mapping[str, Callable[[Content], Content]] = {
    "complete": _complete_reply,
    "inspect": _inspect_reply,
    "is_complete": _is_complete_reply,
    "comm_info": _comm_info,
}
