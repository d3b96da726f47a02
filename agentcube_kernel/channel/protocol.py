"""What host and guest say to each other: events, requests, answers, and the numbering that makes delivery exact.

This module does no I/O and imports the standard library alone: the very same file runs in the kernel and, as source,
inside the sandbox. Nothing here trusts its input; whatever does not have the stated shape raises `ProtocolError`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Theory of operation
# -------------------
# AgentCube runs one command per HTTP request and keeps nothing. The *guest* is a process in the sandbox that does keep
# things; every *call* starts a tiny shell script, the relay, that hands one *request* line to the guest and prints the
# guest's *answer*. Any call may fail in any way at any point, and the caller often cannot know whether it arrived. So
# correctness never depends on a call succeeding:
#
# * Everything a client asks for carries an id of the client's making (a cell's id is the Jupyter msg_id). The guest
#   remembers ids, so asking twice is asking once. After an ambiguous failure the host just asks again.
# * Everything the guest says to a client is an *entry* in that client's outbox, numbered 1, 2, 3, … without holes, and
#   stays there until a later request acknowledges it. An answer always starts at the first entry after the number that
#   its request acknowledged. The inbox on the host takes entries in order, drops those it has had, and ignores what
#   comes after a hole: it will be sent again.
# * The numbers are of one client and one *generation*. A generation is one interpreter: its id is random, each request
#   names the generation that the client believes in, and a guest of another generation refuses. Nothing can thus be
#   replayed into a fresh interpreter or be answered by one.
# * An answer counts only when it is whole: JSON that parses, followed by `END`. A proxy can end a broken body as if it
#   were complete, and a guest can die in the middle of writing.
# * Requests wait (are *held*) for a bounded time only. A held request comes back as soon as there is something worth
#   saying: at once when a cell has ended or asks for input, a few milliseconds after the first output otherwise, so
#   that a short cell costs one exchange and a chatty one does not cost one exchange per line. A newer held request of
#   the same client sends the older one home empty.
# * The outbox is bounded. While its client keeps coming, a full outbox makes the cell wait, as a full pipe would. When
#   nobody comes, the oldest stream text is replaced by an entry that says how much is missing; results, errors and
#   everything else stay.

VERSION = 1
"""Raised when a host and a guest of different versions could misunderstand each other."""

END = " .\n"
"""Follows every answer; an answer without it is not one."""

LINE_LIMIT = 3800
"""Longest request, in characters, that travels in the request line itself (a FIFO write is atomic up to 4096 bytes)."""

ARGUMENT_LIMIT = 120_000
"""Longest request that travels as an argument of the relay (Linux limits one argument to 128 KiB)."""

ANSWER_LIMIT = 2 * 1024 * 1024
"""An answer takes no further entry once it has this many characters."""

ENTRY_LIMIT = 512 * 1024
"""A longer event is cut into fragments of this many characters."""

SHORT_ANSWER = 1500
"""Longest answer, in characters, that the relay reads by itself instead of starting `cat`."""


class ProtocolError(ValueError):
    """The other side sent something that is not of this protocol."""


class IncompleteAnswerError(ProtocolError):
    """The answer was cut off; asking again is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened in a sandbox: the type, content, metadata and buffers of a Jupyter message.

    `cell_id` names the cell (or comm message) that it belongs to, also when it happened after that cell had ended; it
    is empty when it belongs to none. Such an id is a Jupyter msg_id, which may be followed by `~` and something that
    makes it unique. The last event of a cell has the type `execute_reply`.
    """

    type: str
    content: dict[str, Any]
    cell_id: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    buffers: tuple[bytes, ...] = ()


def encode_event(
    type: str,
    content: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    buffers: Iterable[Any] = (),
) -> str:
    """Return the event as ASCII JSON. Values that JSON does not know become base64 (bytes) or their `str`."""
    body: dict[str, Any] = {"t": type, "c": content}
    if metadata:
        body["m"] = metadata
    encoded = [base64.b64encode(bytes(b)).decode("ascii") for b in buffers]
    if encoded:
        body["b"] = encoded
    try:
        return json.dumps(body, separators=(",", ":"), default=_jsonable, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_clean(body), separators=(",", ":"))


def decode_event(body: object, cell_id: str) -> Event:
    """Turn a decoded JSON body into an `Event`; raise `ProtocolError` for any other shape."""
    if not isinstance(body, dict):
        raise ProtocolError("an event must be an object")
    kind, content = body.get("t"), body.get("c")
    metadata, encoded = body.get("m", {}), body.get("b", [])
    if not isinstance(kind, str) or not isinstance(content, dict):
        raise ProtocolError("an event needs a type and a content")
    if not isinstance(metadata, dict) or not isinstance(encoded, list):
        raise ProtocolError("an event's metadata must be an object and its buffers a list")
    try:
        buffers = tuple(base64.b64decode(item, validate=True) for item in encoded)
    except (TypeError, ValueError, binascii.Error) as exc:
        raise ProtocolError("an event's buffers must be base64 text") from exc
    return Event(type=kind, content=content, cell_id=cell_id, metadata=metadata, buffers=buffers)


def _jsonable(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, set | frozenset | deque):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    for method in ("item", "isoformat"):
        convert = getattr(value, method, None)
        if callable(convert):
            try:
                return convert()
            except Exception:
                break
    return str(value)


def _clean(value: object) -> object:
    """Like the encoder, but for what it refuses: keys that are no strings, NaN, objects that refer to themselves."""
    return _clean_at(value, 0)


def _clean_at(value: object, depth: int) -> object:
    if depth > 100:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): _clean_at(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [_clean_at(item, depth + 1) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    converted = _jsonable(value)
    return converted if converted is None or isinstance(converted, str | int | float | bool) else str(value)


# Entries: what is numbered. On the wire `[number, cell_id, kind, data]`.

WHOLE, FRAGMENT, LAST_FRAGMENT, DROPPED = range(4)


@dataclass(slots=True)
class _Entry:
    number: int
    cell_id: str
    kind: int
    data: str  # JSON text
    stream: bool = False
    last_number: int = 0  # of a DROPPED entry: the last number that it stands for
    dropped: int = 0  # characters

    def encode(self) -> str:
        data = self.data
        if self.kind == DROPPED:
            data = json.dumps({"last": self.last_number, "characters": self.dropped})
        return f"[{self.number},{json.dumps(self.cell_id)},{self.kind},{data}]"


class Outbox:
    """The guest's side of one client's event stream: numbered entries, kept until they are acknowledged."""

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        self.limit = limit
        self.size = 0
        self.last_number = 0
        self.acknowledged = 0
        self._entries: deque[_Entry] = deque()
        self._attention: deque[int] = deque()

    def append(self, cell_id: str, body: str, *, stream: bool = False, attention: bool = False) -> None:
        """Add an encoded event; `stream` marks text that may be dropped when nobody fetches it."""
        if len(body) <= ENTRY_LIMIT:
            self._add(_Entry(self.last_number + 1, cell_id, WHOLE, body, stream))
        else:
            pieces = range(0, len(body), ENTRY_LIMIT)
            for start in pieces:
                kind = LAST_FRAGMENT if start == pieces[-1] else FRAGMENT
                piece = json.dumps(body[start : start + ENTRY_LIMIT])
                self._add(_Entry(self.last_number + 1, cell_id, kind, piece))
        if attention:
            self._attention.append(self.last_number)

    def _add(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self.last_number = entry.number
        self.size += len(entry.data)

    def acknowledge(self, number: int) -> None:
        """Forget all entries up to `number`; a number that was never given out changes nothing."""
        if not self.acknowledged < number <= self.last_number:
            return
        self.acknowledged = number
        while self._entries and max(self._entries[0].number, self._entries[0].last_number) <= number:
            self.size -= len(self._entries.popleft().data)
        while self._attention and self._attention[0] <= number:
            self._attention.popleft()

    @property
    def pending(self) -> bool:
        return bool(self._entries)

    @property
    def wants_attention(self) -> bool:
        """Whether an entry waits that should not wait for more to come."""
        return bool(self._attention) or self.size >= ANSWER_LIMIT

    @property
    def full(self) -> bool:
        return self.size >= self.limit

    def take(self, limit: int = ANSWER_LIMIT) -> tuple[list[str], bool]:
        """Return encoded entries from the first unacknowledged on, and whether there are more than these."""
        taken: list[str] = []
        room = limit
        for entry in self._entries:
            if taken and room < len(entry.data):
                return taken, True
            encoded = entry.encode()
            taken.append(encoded)
            room -= len(encoded)
        return taken, False

    def drop_oldest_streams(self) -> None:
        """Bring the size below three quarters of the limit as far as dropping stream text can."""
        target = self.limit * 3 // 4
        kept: deque[_Entry] = deque()
        while self._entries:
            entry = self._entries.popleft()
            if entry.stream and self.size > target:
                self.size -= len(entry.data)
                entry = _Entry(
                    entry.number,
                    entry.cell_id,
                    DROPPED,
                    "",
                    last_number=entry.number,
                    dropped=len(entry.data),
                )
            before = kept[-1] if kept else None
            if (
                before is not None
                and entry.kind == DROPPED == before.kind
                and entry.cell_id == before.cell_id
                and entry.number == before.last_number + 1
            ):
                before.last_number = entry.last_number
                before.dropped += entry.dropped
            else:
                kept.append(entry)
        self._entries = kept


class Inbox:
    """The host's side of the stream: entries in, events out, each exactly once and in order."""

    def __init__(self, limit: int = 256 * 1024 * 1024, acknowledged: int = 0) -> None:
        self.limit = limit
        self.acknowledged = acknowledged
        self._fragments: list[str] = []
        self._fragment_size = 0

    def receive(self, entries: Sequence[object]) -> Iterator[Event]:
        """Yield the events that `entries` complete. Raises `ProtocolError` for an entry of a wrong shape.

        An event larger than `limit` characters, or one whose content has a wrong shape, is not yielded; a `stream`
        event on stderr says so in its place.
        """
        for item in entries:
            number, cell_id, kind, data = self._checked(item)
            if number <= self.acknowledged:
                continue
            if number != self.acknowledged + 1:
                return
            if kind == DROPPED:
                last, lost = data.get("last"), data.get("characters")
                if not isinstance(last, int) or not isinstance(lost, int) or last < number:
                    raise ProtocolError("a wrong mark of dropped output")
                self.acknowledged = last
                yield notice_event(cell_id, f"\n[{lost:,} characters of output were dropped here]\n")
                continue
            self.acknowledged = number
            if kind == WHOLE:
                yield self._event(data, cell_id)
            else:
                yield from self._fragment(kind, data, cell_id)

    @staticmethod
    def _checked(item: object) -> tuple[int, str, int, Any]:
        if not isinstance(item, list) or len(item) != 4:
            raise ProtocolError("an entry must be a list of four")
        number, cell_id, kind, data = item
        if type(number) is not int or not isinstance(cell_id, str) or kind not in (0, 1, 2, 3):
            raise ProtocolError("an entry of a wrong shape")
        if kind == DROPPED and not isinstance(data, dict):
            raise ProtocolError("a wrong mark of dropped output")
        if kind in (FRAGMENT, LAST_FRAGMENT) and not isinstance(data, str):
            raise ProtocolError("a fragment must be text")
        return number, cell_id, kind, data

    def _event(self, body: object, cell_id: str) -> Event:
        try:
            return decode_event(body, cell_id)
        except ProtocolError as exc:
            return notice_event(cell_id, f"\n[the sandbox sent a malformed event, left out here: {exc}]\n")

    def _fragment(self, kind: int, piece: str, cell_id: str) -> Iterator[Event]:
        self._fragment_size += len(piece)
        if self._fragment_size <= self.limit:
            self._fragments.append(piece)
        else:
            self._fragments.clear()
        if kind == FRAGMENT:
            return
        size, text = self._fragment_size, "".join(self._fragments)
        self._fragments, self._fragment_size = [], 0
        if size > self.limit:
            yield notice_event(
                cell_id, f"\n[an output of {size:,} characters was too large, left out here]\n"
            )
            return
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        yield self._event(body, cell_id)


def notice_event(cell_id: str, text: str) -> Event:
    """A line of our own about the stream itself, as stderr text."""
    return Event(type="stream", content={"name": "stderr", "text": text}, cell_id=cell_id)


# Requests and answers.


def encode_request(request: Mapping[str, Any]) -> str:
    """One line of ASCII JSON without a line break."""
    return json.dumps({"v": VERSION, **request}, separators=(",", ":"))


def decode_request(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError("a request must be JSON") from exc
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise ProtocolError("a request must be an object with an op")
    return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the guest said to one request."""

    generation: str
    entries: list[object]
    more: bool = False
    """More entries wait than fitted into this answer."""
    slots: tuple[str, ...] = ()
    """Names under which further answers can be fetched, one call each."""
    live: bool = False
    """Output may still come although no cell of this client runs."""
    unfinished: int = 0
    """Cells and comm messages of this client that have not ended."""
    reply: dict[str, Any] | None = None
    error: str | None = None
    dead: dict[str, Any] | None = None
    """How the interpreter of this generation ended, if it has."""


def encode_answer(fields: Mapping[str, Any], entries: Iterable[str] = ()) -> str:
    """Join header fields and already encoded entries into one answer, `END` included."""
    header = json.dumps({"v": VERSION, **fields}, separators=(",", ":"))
    return f'{header[:-1]},"e":[{",".join(entries)}]}}{END}'


def decode_answer(text: str) -> Answer:
    """Raise `IncompleteAnswerError` when the text is cut off, `ProtocolError` when it is something else."""
    if not text.endswith(END):
        raise IncompleteAnswerError("the answer was cut off")
    try:
        fields = json.loads(text[: -len(END)])
    except (ValueError, RecursionError) as exc:
        raise IncompleteAnswerError("the answer was cut off or damaged") from exc
    if not isinstance(fields, dict) or fields.get("v") != VERSION:
        raise ProtocolError("the guest speaks another version of the protocol")
    entries, slots = fields.get("e", []), fields.get("slots", [])
    reply, error, dead = fields.get("reply"), fields.get("error"), fields.get("dead")
    unfinished = fields.get("unfinished", 0)
    if (
        not isinstance(entries, list)
        or not isinstance(slots, list)
        or not all(is_slot_name(s) for s in slots)
        or not isinstance(fields.get("g"), str)
        or not isinstance(reply, dict | None)
        or not isinstance(error, str | None)
        or not isinstance(dead, dict | None)
        or not isinstance(unfinished, int)
    ):
        raise ProtocolError("an answer of a wrong shape")
    return Answer(
        generation=fields["g"],
        entries=entries,
        more=bool(fields.get("more")),
        slots=tuple(slots[:64]),
        live=bool(fields.get("live")),
        unfinished=unfinished,
        reply=reply,
        error=error,
        dead=dead,
    )


def is_slot_name(value: object) -> bool:
    """Slot names become words of a shell command and file names, so nothing but this shape is taken for one."""
    return (
        isinstance(value, str)
        and value[:1] == "s"
        and value[1:].isascii()
        and value[1:].isdigit()
        and len(value) < 20
    )
