"""The reply that ends a cell: status, payloads and user expressions, cleaned and held to the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .mime_bundles import mime_bundle
from .shapes import (
    Content,
    WrongShapeError,
    count,
    json_object,
    plain_text,
    shown_lines,
    shown_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .trust import Policy

OUR_MAGIC = "%sandbox"
"""Runs on the user's side, so no cell may propose it: the user's next Shift-Enter would be the sandbox's command."""


def execute_reply(content: Content) -> Content:
    """Clean the content of an `execute_reply`."""
    status = plain_text(content, "status")
    if status not in ("ok", "error"):
        raise WrongShapeError("an unknown status")
    expressions = content.get("user_expressions", {})
    if not isinstance(expressions, dict):
        raise WrongShapeError("user_expressions is not an object")
    reply: Content = {
        "status": status,
        "execution_count": count(content, "execution_count"),
        "user_expressions": {
            name: _expression(value) for name, value in expressions.items() if name.isprintable()
        },
        "payload": _payloads(content),
    }
    if content.get("started") is False:
        reply["started"] = False
    return reply if status == "ok" else {**reply, **error(content)}


def error(content: Mapping[str, Any]) -> Content:
    """Clean the content of an `error`."""
    return {
        "ename": shown_text(content, "ename"),
        "evalue": shown_text(content, "evalue"),
        "traceback": shown_lines(content, "traceback"),
    }


def _expression(value: object) -> Content:
    if not isinstance(value, dict):
        raise WrongShapeError("a user expression is not an object")
    if value.get("status") != "ok":
        return {"status": "error", **error(value)}
    return {"status": "ok", "data": mime_bundle(value), "metadata": json_object(value, "metadata")}


def _payloads(content: Mapping[str, Any]) -> list[Content]:
    """Payloads make the front end do things, so only the harmless ones pass (not edit_magic, which opens files)."""
    value = content.get("payload", [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise WrongShapeError("payload is not a list of objects")
    return [cleaned for item in value if (cleaned := _payload(item)) is not None]


def _payload(item: Content) -> Content | None:
    source = item.get("source")
    if source == "page":
        start = count(item, "start") if "start" in item else 0
        return {"source": "page", "data": mime_bundle(item), "start": start}
    if source == "set_next_input":
        text = shown_text(item, "text")
        # `replace` would turn the cell that the user has just read and run into another one.
        return None if OUR_MAGIC in text else {"source": source, "text": text, "replace": False}
    if source == "ask_exit":
        return {"source": "ask_exit", "keepkernel": item.get("keepkernel") is True}
    return None


def restrain_reply(reply: Content, policy: Policy) -> Content:
    """Hold a clean `execute_reply` to the policy."""
    return {
        **reply,
        "user_expressions": {
            name: {**value, "data": policy.bundle(value["data"])} if "data" in value else value
            for name, value in reply["user_expressions"].items()
        },
        "payload": [
            {**item, "data": policy.bundle(item["data"])} if item["source"] == "page" else item
            for item in reply["payload"]
            if policy.next_input or item["source"] != "set_next_input"
        ],
    }
