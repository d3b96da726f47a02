"""Text for people and for strict encoders: harmless in a terminal, well-formed, and sizes and durations in words."""

from __future__ import annotations

import difflib
import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# Colours and cursor movements (CSI) are what programs print. The sequences that do more to a terminal lose their first
# character: OSC (title, clipboard, links), DCS, SOS, PM, APC, full reset, the shifts, and all of them in their 8-bit
# form. An escape at the very end could be completed by the next piece of text.
_SEQUENCES = re.compile(r"\x1b(?=[\]PX^_c])|\x1b\Z|[\x0e\x0f\x80-\x9f]")


def well_formed(text: str) -> str:
    """The text with each lone surrogate, which no encoding can carry, replaced by a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def well_formed_json(value: Any) -> Any:
    """A copy of JSON data in which every text, keys included, is `well_formed`."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, dict):
        return {well_formed_json(key): well_formed_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [well_formed_json(item) for item in value]
    return value


def terminal_text(text: str) -> str:
    """Output of a program as a terminal may get it: colours and cursor movements stay, what does more goes.

    The result is `well_formed` too.
    """
    if text.isascii():
        if "\x1b" not in text and "\x0e" not in text and "\x0f" not in text:
            return text
    else:
        text = well_formed(text)
    return _SEQUENCES.sub("", text)


def harmless(text: str, *, lines: bool = False) -> str:
    """Text without any control character, each replaced by U+FFFD: for names and messages that a stranger chose.

    With `lines`, line ends and tabs stay.
    """
    kept = "\n\t" if lines else ""
    return "".join(c if c in kept or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str, limit: int = 300) -> str:
    """The text on one line of at most `limit` characters, without any control character."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * limit]).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def size(count: float) -> str:
    """A number of bytes, for people."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95 or unit == "GB":
            return f"{count:.1f} {unit}"
    raise AssertionError


def duration(seconds: float) -> str:
    """A length of time in its one or two largest units."""
    left = max(0, round(seconds))
    for length, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= length:
            rest = left % length // below
            return f"{left // length} {unit} {rest} {small}" if rest else f"{left // length} {unit}"
    return f"{left} s"


def ago(moment: float) -> str:
    """How long ago a moment (seconds since the epoch) was."""
    return f"{duration(time.time() - moment)} ago"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest known word, or an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
