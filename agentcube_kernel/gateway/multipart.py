"""Take a multipart form apart, as far as PicoD uses one: text fields and one file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_BOUNDARY = re.compile(rb'boundary=(?:"([^"]+)"|([^\s;]+))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILENAME = re.compile(rb"[;\s]filename\*?=", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Form:
    """Text fields by name, the content of the part named `file`, and what was wrong with the body."""

    fields: dict[str, str] = field(default_factory=dict)
    file: bytes | None = None
    problem: str = ""

    def text(self, name: str) -> str:
        """A field's text, empty when there is none."""
        return self.fields.get(name, "")


def parse_multipart(content_type: bytes, body: bytes) -> Form:
    """The form in `body`. A body that is no form at all gives an empty one with its problem named."""
    form = Form()
    found = _BOUNDARY.search(content_type)
    if found is None:
        form.problem = "no multipart boundary param in Content-Type"
        return form
    delimiter = b"--" + (found[1] or found[2])
    position = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if position == 1:
        form.problem = "multipart: NextPart: EOF"
        return form
    position += len(delimiter)
    while body[position : position + 2] != b"--":
        head_end = body.find(b"\r\n\r\n", position)
        end = body.find(b"\r\n" + delimiter, head_end + 2)
        if head_end < 0 or end < 0:
            form.problem = "multipart: NextPart: EOF"
            break
        _add(form, body[position:head_end], body[head_end + 4 : end] if end >= head_end + 4 else b"")
        position = end + 2 + len(delimiter)
    return form


def _add(form: Form, head: bytes, content: bytes) -> None:
    for line in head.split(b"\r\n"):
        if not line.lower().startswith(b"content-disposition:"):
            continue
        name = _NAME.search(line)
        if name is None:
            return
        key = re.sub(rb"\\(.)", rb"\1", name[1]).decode(errors="surrogateescape")
        if _FILENAME.search(line) is None:
            form.fields.setdefault(key, content.decode(errors="surrogateescape"))
        elif key == "file" and form.file is None:
            form.file = content
        return
