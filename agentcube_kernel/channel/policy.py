"""What the output of a sandbox that is not trusted may do in the user's browser: be seen, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocol import Event

# Shown by browsers without running anything or loading anything.
_HARMLESS = frozenset(
    {"text/plain", "text/markdown", "text/latex", "image/png", "image/jpeg", "image/gif", "application/json"}
)
_COMMS = frozenset({"comm_open", "comm_msg", "comm_close"})
_BUNDLES = frozenset({"display_data", "update_display_data", "execute_result"})


def restrain(event: Event) -> Event | None:
    """The event without scripts, styles, forms, references to other servers, vector graphics and widgets; None when
    nothing of it may be shown.

    HTML is cleaned to plain structure; Markdown, which may hold HTML, is shown as the text that it is.
    """
    if event.type in _COMMS:
        return None
    if event.type not in _BUNDLES:
        return event
    data = event.content.get("data", {})
    return replace(event, content={**event.content, "data": _bundle(data)}, buffers=())


def _bundle(data: dict[str, Any]) -> dict[str, Any]:
    kept = {mime: value for mime, value in data.items() if mime in _HARMLESS}
    markdown = kept.pop("text/markdown", None)
    if markdown is not None:
        kept.setdefault("text/plain", markdown)
    if "text/html" in data:
        cleaned = _clean(data["text/html"])
        if cleaned.strip():
            kept["text/html"] = cleaned
    if not kept:
        kept["text/plain"] = (
            f"<not shown, since this sandbox is not trusted: {', '.join(sorted(data))[:200]}>"
        )
    return kept


def _clean(value: Any) -> str:
    import nh3

    text = "".join(map(str, value)) if isinstance(value, list) else str(value)
    attributes = {"*": {"colspan", "rowspan", "scope", "title", "lang", "dir"}}
    tags = nh3.ALLOWED_TAGS - {"img", "map", "area"}
    return nh3.clean(text, tags=tags, attributes=attributes, link_rel=None, url_schemes=set())
