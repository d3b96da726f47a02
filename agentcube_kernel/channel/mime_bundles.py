"""Mime bundles of a sandbox: one output in several formats, as nbformat wants them and no more than that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..text import terminal_text, well_formed
from .shapes import Content, WrongShapeError, json_data

if TYPE_CHECKING:
    from collections.abc import Mapping

# nbformat's own rule for what carries structure; everything else is text or a list of lines.
_STRUCTURED = re.compile(r"application/([^\n]*\+)?json")
_NAME = re.compile(r"[\w.+-]{1,100}/[\w.+;= -]{1,150}", re.ASCII)
_MARKUP = frozenset({"text/html", "image/svg+xml", "application/xml", "text/xml"})

# Shown by browsers without running anything or loading anything.
_HARMLESS = frozenset(
    {"text/plain", "text/markdown", "text/latex", "image/png", "image/jpeg", "image/gif", "application/json"}
)


def mime_bundle(content: Mapping[str, Any], key: str = "data") -> Content:
    """Return the bundle at `key`, clean: names of mime types, text joined to one str, structure only in JSON types.

    Raises:
        WrongShapeError: a name is none, or a value is not what its mime type allows.
    """
    data = content.get(key, {})
    if not isinstance(data, dict):
        raise WrongShapeError(f"{key} is not an object")
    return {_name(mime): _value(mime, value) for mime, value in data.items() if value is not None}


def _name(mime: str) -> str:
    if not _NAME.fullmatch(mime):
        raise WrongShapeError("a mime type has no proper name")
    return mime


def _value(mime: str, value: Any) -> Any:
    if _STRUCTURED.fullmatch(mime):
        return json_data(value)
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    if not isinstance(value, str):
        raise WrongShapeError(f"{mime[:80]} is not text")
    return well_formed(value) if mime in _MARKUP else terminal_text(value)


def restrained(data: Content) -> Content:
    """The clean bundle without scripts, styles, forms, references to other servers, vector graphics and widgets.

    HTML is cleaned to plain structure; Markdown, which may hold HTML, becomes the text that it is. It is empty only if
    `data` is.
    """
    kept = {mime: value for mime, value in data.items() if mime in _HARMLESS}
    markdown = kept.pop("text/markdown", None)
    if markdown is not None:
        kept.setdefault("text/plain", markdown)
    if "text/html" in data:
        cleaned = _clean_html(data["text/html"])
        if cleaned.strip():
            kept["text/html"] = cleaned
    if data and not kept:
        kept["text/plain"] = (
            f"<not shown, since this sandbox is not trusted: {', '.join(sorted(data))[:200]}>"
        )
    return kept


def _clean_html(text: str) -> str:
    import nh3

    attributes = {"*": {"colspan", "rowspan", "scope", "title", "lang", "dir"}}
    tags = nh3.ALLOWED_TAGS - {"img", "map", "area"}
    return nh3.clean(text, tags=tags, attributes=attributes, link_rel=None, url_schemes=set())
