"""Serve a file as Go's `http.ServeContent` does: length, date, one range, conditional requests."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import re
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING

from .wire import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from io import FileIO

    from .wire import Headers

_CHUNK = 1 << 18
_RANGE = re.compile(rb"bytes=\s*(\d*)\s*-\s*(\d*)\s*")


def serve_content(file: FileIO, name: str, info: os.stat_result, request: Mapping[bytes, bytes]) -> Answer:
    """An answer that streams `file`; 206 for a satisfiable range, 416 for one outside, 304 when unchanged.

    The file is closed by the stream, or here when there is none.

    Several ranges at once are answered with the whole file, which HTTP allows.
    """
    # Go takes the epoch for a date that is not known.
    modified = formatdate(int(info.st_mtime), usegmt=True).encode() if int(info.st_mtime) else b""
    headers = file_headers(name)
    if modified:
        headers.append((b"last-modified", modified))
    if modified and _not_modified(info, request):
        file.close()
        return Answer(status=304, headers=[(b"last-modified", modified)])
    size = info.st_size
    first, length, status = 0, size, 200
    text = request.get(b"range", b"")
    if text and size and b"," not in text and request.get(b"if-range", modified) == modified:
        try:
            first, length = _span(text, size)
        except ValueError as exc:
            file.close()
            return _unsatisfiable(headers, size, str(exc))
        status = 206
        headers.append((b"content-range", b"bytes %d-%d/%d" % (first, first + length - 1, size)))
    headers += [(b"accept-ranges", b"bytes"), (b"content-length", b"%d" % length)]
    return Answer(
        status=status, headers=headers, stream=_read(file, first, length), compressible=status == 200
    )


def file_headers(base: str) -> Headers:
    """What PicoD says about a file of that name before it hands it to Go's file server."""
    return [
        (b"content-description", b"File Transfer"),
        (b"content-transfer-encoding", b"binary"),
        (b"content-disposition", b'attachment; filename="%s"' % _header_text(base)),
        (b"content-type", _content_type(base)),
    ]


def _span(text: bytes, size: int) -> tuple[int, int]:
    """Offset and length of one range; ValueError says in Go's words what is wrong with it."""
    wanted = _RANGE.fullmatch(text)
    if wanted is None or not (wanted[1] or wanted[2]):
        raise ValueError("invalid range")
    if not wanted[1]:
        length = min(int(wanted[2]), size)
        first = size - length
    else:
        first = int(wanted[1])
        if wanted[2] and int(wanted[2]) < first:
            raise ValueError("invalid range")
        length = (min(int(wanted[2]), size - 1) if wanted[2] else size - 1) - first + 1
    if length <= 0:
        raise ValueError("invalid range: failed to overlap")
    return first, length


def _unsatisfiable(headers: Headers, size: int, problem: str) -> Answer:
    kept = [pair for pair in headers if pair[0] not in {b"last-modified", b"content-type"}]
    kept.append((b"content-type", b"text/plain; charset=utf-8"))
    if "overlap" in problem:
        kept.append((b"content-range", b"bytes */%d" % size))
    return Answer(status=416, body=f"{problem}\n".encode(), headers=kept, compressible=False)


async def _read(file: FileIO, first: int, length: int) -> AsyncIterator[bytes]:
    with file:
        while length > 0:
            # A small file comes from the page cache; a large one may have to wait for the disk.
            size = min(_CHUNK, length)
            chunk = (
                os.pread(file.fileno(), size, first)
                if length == size
                else await asyncio.to_thread(os.pread, file.fileno(), size, first)
            )
            if not chunk:
                # Cut short while it was read: an early end lets the client see that the length is not met.
                raise ConnectionAbortedError("the file shrank while it was being sent")
            first += len(chunk)
            length -= len(chunk)
            yield chunk


def _not_modified(info: os.stat_result, request: Mapping[bytes, bytes]) -> bool:
    since = request.get(b"if-modified-since")
    if since is None or b"if-none-match" in request:
        return False
    try:
        return int(info.st_mtime) <= parsedate_to_datetime(since.decode("latin-1")).timestamp()
    except (TypeError, ValueError):
        return False


def _header_text(name: str) -> bytes:
    return os.fsencode(name).replace(b"\n", b" ").replace(b"\r", b" ")


def _content_type(name: str) -> bytes:
    kind = mimetypes.guess_type(name)[0] if os.path.splitext(name)[1] else None
    if kind is None:
        return b"application/octet-stream"
    return (kind + "; charset=utf-8" if kind.startswith("text/") else kind).encode()
