"""One file as a form: PicoD's JSON upload cannot carry an empty file, and costs a third more."""

from __future__ import annotations

import secrets


def form(
    path: str, data: bytes | memoryview, mode: str
) -> tuple[tuple[str, str], tuple[bytes | memoryview, ...]]:
    """The content-type header and the parts of a body; `data` is not copied."""
    boundary = secrets.token_hex(16)
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("path", path), ("mode", mode))
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return (
        ("content-type", f"multipart/form-data; boundary={boundary}"),
        (head.encode(), *_slices(data), f"\r\n--{boundary}--\r\n".encode()),
    )


def _slices(data: bytes | memoryview, size: int = 256 * 1024) -> list[memoryview]:
    """Pieces small enough that the event loop gets its turn between them."""
    view = memoryview(data).cast("B")
    return [view[start : start + size] for start in range(0, len(view), size)]
