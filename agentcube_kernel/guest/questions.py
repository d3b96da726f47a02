"""Completion, inspection and the like: answered by a thread of their own, also while a cell runs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from IPython.core.completer import provisionalcompleter, rectify_completions
from IPython.utils.tokenutil import token_at_cursor

if TYPE_CHECKING:
    from .comms import Comms
    from .shell import GuestShell

_TYPES_KEY = "_jupyter_types_experimental"


def answer(shell: GuestShell, comms: Comms, question: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the Jupyter reply; raises whatever the user's objects raise."""
    what = question.get("what")
    if what == "complete":
        return complete(shell, question["code"], question["cursor_pos"])
    if what == "inspect":
        return inspect(shell, question["code"], question["cursor_pos"], question.get("detail_level", 0))
    if what == "is_complete":
        return is_complete(shell, question["code"])
    if what == "comm_info":
        return comms.info(question.get("target_name"))
    if what == "status":
        return status(shell)
    raise ValueError(f"unknown question {what!r}")


def complete(shell: GuestShell, code: str, cursor_pos: int) -> dict[str, Any]:
    with provisionalcompleter():
        raw = shell.Completer.completions(code, cursor_pos)
        completions = list(rectify_completions(code, raw))
    typed = [
        {"start": c.start, "end": c.end, "text": c.text, "type": c.type, "signature": c.signature}
        for c in completions
    ]
    return {
        "status": "ok",
        "matches": [c.text for c in completions],
        "cursor_start": completions[0].start if completions else cursor_pos,
        "cursor_end": completions[0].end if completions else cursor_pos,
        "metadata": {_TYPES_KEY: typed},
    }


def inspect(shell: GuestShell, code: str, cursor_pos: int, detail_level: int) -> dict[str, Any]:
    name = token_at_cursor(code, cursor_pos)
    reply: dict[str, Any] = {"status": "ok", "data": {}, "metadata": {}, "found": False}
    try:
        reply["data"] = dict(shell.object_inspect_mime(name, detail_level=detail_level))
    except KeyError:
        return reply
    if not shell.enable_html_pager:
        reply["data"].pop("text/html", None)
    reply["found"] = True
    return reply


def is_complete(shell: GuestShell, code: str) -> dict[str, Any]:
    status, indent = shell.input_transformer_manager.check_complete(code)
    reply = {"status": status}
    if status == "incomplete":
        reply["indent"] = " " * (indent or 0)
    return reply


def status(shell: GuestShell) -> dict[str, Any]:
    return {"execution_count": shell.execution_count, "cwd": os.getcwd(), "python": sys.version.split()[0]}
