"""Answers as AgentCube's Go services write them: JSON bodies, times, durations, file modes, gzip."""

from __future__ import annotations

import json
import re
import stat
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Scope, Send

Headers = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json; charset=utf-8")
_TEXT = (b"content-type", b"text/plain")


@dataclass(slots=True, kw_only=True)
class Answer:
    """One response. `stream` replaces `body` when the content is not in memory.

    `compressible` is False for what PicoD never compresses (its health route) and for partial content.
    """

    status: int
    body: bytes = b""
    headers: Headers = field(default_factory=list)
    stream: AsyncIterator[bytes] | None = None
    compressible: bool = True


class RouterError(Exception):
    """An answer that the Router gives itself: it carries no session id."""

    def __init__(self, status: int, error: str, code: str | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.body: dict[str, object] = {"error": error} if code is None else {"error": error, "code": code}


class ManagerError(Exception):
    """An error answer of the WorkloadManager, whose shape is `{"message": …}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, object] = {"message": message}


class PicoError(Exception):
    """An error answer of PicoD, whose shape is `{"error": …, "code": status}`."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.body: dict[str, object] = {"error": error, "code": status}


def json_answer(status: int, value: object) -> Answer:
    """A JSON answer. Lone surrogates, which stand for undecodable bytes in names, become U+FFFD."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        body = text.encode()
    except UnicodeEncodeError:
        body = _SURROGATES.sub("\ufffd", text).encode()
    return Answer(status=status, body=body, headers=[_JSON])


def text_answer(status: int, text: str) -> Answer:
    """A plain text answer, as gin gives for what it does not route."""
    return Answer(status=status, body=text.encode(), headers=[_TEXT])


def not_routed() -> Answer:
    """What every AgentCube service answers for an unknown path or method."""
    return text_answer(404, "404 page not found")


async def send_answer(send: Send, answer: Answer) -> None:
    """Send an answer, streamed ones chunk by chunk and without a length unless their headers have one."""
    headers = answer.headers
    if answer.stream is None:
        headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    async for chunk in answer.stream:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def accepts_gzip(scope: Scope) -> bool:
    """Whether the request asks for gzip, by the rule of PicoD's middleware: the word is in the header."""
    return any(name == b"accept-encoding" and b"gzip" in value.lower() for name, value in scope["headers"])


def compress(answer: Answer) -> Answer:
    """The same answer, gzip-compressed at the fastest level."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    headers = [pair for pair in answer.headers if pair[0] != b"content-length"]
    headers += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
    if answer.stream is None:
        return Answer(
            status=answer.status, body=packer.compress(answer.body) + packer.flush(), headers=headers
        )
    return Answer(status=answer.status, headers=headers, stream=_compressed(answer.stream, packer))


async def _compressed(stream: AsyncIterator[bytes], packer: zlib._Compress) -> AsyncIterator[bytes]:
    async for chunk in stream:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


_SURROGATES = re.compile("[\ud800-\udfff]")


def whole_text(text: str) -> str:
    """The text with lone surrogates, which JSON can spell, replaced as Go does."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def decode_output(data: bytes) -> str:
    """Text as Go's JSON encoder makes it: each byte that is not UTF-8 becomes one U+FFFD."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        # surrogateescape yields exactly one lone surrogate for each byte that Go would replace.
        return _SURROGATES.sub("\ufffd", data.decode(errors="surrogateescape"))


def rfc3339(nanoseconds: int) -> str:
    """A time stamp with up to nine decimals and the local offset, as Go's `time.Time` marshals."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    local = time.localtime(seconds)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", local)
    if fraction:
        text += f".{fraction:09d}".rstrip("0")
    if not local.tm_gmtoff:
        return text + "Z"
    sign = "-" if local.tm_gmtoff < 0 else "+"
    hours, rest = divmod(abs(local.tm_gmtoff), 3600)
    return f"{text}{sign}{hours:02d}:{rest // 60:02d}"


_TYPE_LETTERS = {
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "L",
    stat.S_IFBLK: "D",
    stat.S_IFCHR: "Dc",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "S",
}


def go_mode(mode: int) -> str:
    """File mode bits as Go's `FileMode.String` writes them."""
    kind = _TYPE_LETTERS.get(stat.S_IFMT(mode), "")
    letters = ("d" if kind == "d" else "") + ("L" if kind == "L" else "")
    letters += {"D": "D", "Dc": "D", "p": "p", "S": "S"}.get(kind, "")
    letters += ("u" if mode & stat.S_ISUID else "") + ("g" if mode & stat.S_ISGID else "")
    letters += "c" if kind == "Dc" else ""
    letters += "t" if mode & stat.S_ISVTX else ""
    bits = "".join(letter if mode & (1 << (8 - i)) else "-" for i, letter in enumerate("rwxrwxrwx"))
    return (letters or "-") + bits


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TERM = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")


def parse_duration(text: str) -> float:
    """Seconds of a Go duration such as `1h2m3.5s`; ValueError carries Go's message."""
    rest = text[1:] if text[:1] in {"+", "-"} else text
    sign = -1.0 if text.startswith("-") else 1.0
    if rest == "0":
        return 0.0
    total, position = 0.0, 0
    while position < len(rest):
        term = _TERM.match(rest, position)
        if term is None:
            raise ValueError(f"time: invalid duration {_quoted(text)}")
        if not term[2]:
            raise ValueError(f"time: missing unit in duration {_quoted(text)}")
        if term[2] not in _UNITS:
            raise ValueError(f"time: unknown unit {_quoted(term[2])} in duration {_quoted(text)}")
        total += float(term[1]) * _UNITS[term[2]]
        position = term.end()
    if not rest or total > 9_223_372_036:
        raise ValueError(f"time: invalid duration {_quoted(text)}")
    return sign * total


def _quoted(text: str) -> str:
    # As Go's time package quotes: byte by byte, all that is not printable ASCII as \xNN.
    data = text.encode(errors="surrogateescape")
    return '"' + "".join(_quoted_byte(byte) for byte in data) + '"'


def _quoted_byte(byte: int) -> str:
    if byte in b'"\\':
        return "\\" + chr(byte)
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"
