"""Output of a sandbox as a language model should read it: without terminal control, and of bounded length."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..text import terminal_text

if TYPE_CHECKING:
    from ..channel.cell_result import CellResult

# Colours and cursor movements; `terminal_text` has dealt with everything that does more.
_CSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def plain(text: str) -> str:
    """The text without escape sequences."""
    return _CSI.sub("", terminal_text(text)).replace("\x1b", "")


def shortened(text: str, limit: int) -> str:
    """At most about `limit` characters: the beginning and the end, and between them how much was left out."""
    if len(text) <= limit:
        return text
    left_out = len(text) - limit
    head, tail = text[: limit // 2], text[len(text) - (limit - limit // 2) :]
    return f"{head}\n[… {left_out:,} characters left out …]\n{tail}"


def failure_text(result: CellResult) -> str:
    """What went wrong in a cell: the traceback, or name and value of the exception."""
    if result.traceback:
        return plain("\n".join(result.traceback))
    return plain(f"{result.ename}: {result.evalue}")
