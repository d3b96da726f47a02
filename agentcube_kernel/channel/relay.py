"""The relay: the command that every call starts in the sandbox, as small as it can be.

A process start is what a call costs, so the script consists of shell builtins and starts `cat` only for an answer that
is too long for `read`. It checks that the guest is alive before it opens anything, because opening a pipe that nobody
holds would wait forever.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Delivery, GuestStartError, RequestTooLargeError
from .exit import admit_text
from .protocol import (
    ARGUMENT_LIMIT,
    LINE_LIMIT,
    VERSION,
    Answer,
    IncompleteAnswerError,
    ProtocolError,
    decode_answer,
    encode_request,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..results import CommandResult

FOLDER = f".agentcube-kernel/guest-{VERSION}"

# $1 folder, $2 pid of the guest, $3 its file descriptor of the request pipe, $4 slot, $5 request line, and for a longer
# request $6 file name and $7 text. Where there is no /proc, a living process of that number has to do.
_SCRIPT = """\
cd "$1" 2>/dev/null || { echo gone; exit; }
if [ -e /proc/self/fd ]; then [ "/proc/$2/fd/$3" -ef request ]; else [ -p request ] && kill -0 "$2" 2>/dev/null; fi \
|| { echo gone; exit; }
[ -p "$4" ] || { echo slot; exit; }
if [ $# -gt 5 ]; then printf %s "$7" >"$6" || { rm -f "$6"; echo full; exit; }; fi
exec 3<"$4"
printf '%s\\n' "$5" >request
IFS= read -r a <&3
case $a in
+*) exec cat <&3;;
*) printf '%s\\n' "$a";;
esac
"""

_MAX_REQUEST = 16 * 1024 * 1024


class CommandRunner(Protocol):
    """What the channel needs of the wire: one command, one file, each in one exchange that is never repeated."""

    async def execute(self, command: Sequence[str], *, timeout: float) -> CommandResult: ...

    async def write(self, path: str, data: bytes) -> None: ...


class GuestGoneError(Exception):
    """No guest answers in that folder any more."""


class NoSlotError(Exception):
    """The slot was not there; another one has to be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRef:
    """Where a guest is and which interpreter in it a client believes in: all that another process needs to go on."""

    pid: int
    fd: int
    generation: str
    client_id: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> GuestRef:
        """Raises ValueError when `fields` are not those of a `GuestRef`."""
        try:
            ref = cls(**fields)
        except TypeError as exc:
            raise ValueError("not a guest reference") from exc
        if [type(value) for value in asdict(ref).values()] != [int, int, str, str]:
            raise ValueError("not a guest reference")
        return ref


class Relay:
    """Makes calls to one guest. A slot is used for one call only, whatever became of it.

    A call may take `grace` seconds beyond the time for which its request is held.
    """

    def __init__(self, runner: CommandRunner, pid: int, fd: int, *, grace: float) -> None:
        self._runner = runner
        self._grace = grace
        self._pid, self._fd = str(pid), str(fd)
        self._slots: dict[str, None] = {}
        self._used: dict[str, None] = {}

    @property
    def slots(self) -> int:
        return len(self._slots)

    def add_slots(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._used:
                self._slots[name] = None

    async def call(self, request: Mapping[str, Any], *, hold: float = 0.0) -> Answer:
        """Make one attempt.

        Raises `IncompleteAnswerError` when the answer did not arrive whole, `GuestGoneError`, `NoSlotError`, and
        whatever the runner raises. A cancelled call may still reach the guest.
        """
        if not self._slots:
            raise NoSlotError
        slot = self._slots.popitem()[0]
        self._used[slot] = None
        if len(self._used) > 1000:
            del self._used[next(iter(self._used))]
        arguments = await self._arguments({**request, "have": len(self._slots)}, slot)
        command = ["sh", "-c", _SCRIPT, "relay", FOLDER, self._pid, self._fd, slot, *arguments]
        result = await self._runner.execute(command, timeout=hold + self._grace)
        return self._parse(result)

    async def _arguments(self, request: Mapping[str, Any], slot: str) -> list[str]:
        text = encode_request(request)
        if len(text) <= LINE_LIMIT:
            return [f"{slot} {text}"]
        name = f"in-{uuid.uuid4().hex}"
        if len(text) <= ARGUMENT_LIMIT:
            return [f"{slot} @{name}", name, text]
        if len(text) > _MAX_REQUEST:
            raise RequestTooLargeError(
                f"This is {len(text) / 1e6:.0f} MB in one piece; AgentCube takes {_MAX_REQUEST / 1e6:.0f} MB in one "
                "request. Put the data into a file (`%sandbox put`) and let the code read it.",
                delivery=Delivery.NEVER,
            )
        await self._runner.write(f"{FOLDER}/{name}", text.encode("ascii"))
        return [f"{slot} @{name}"]

    @staticmethod
    def _parse(result: CommandResult) -> Answer:
        output = result.stdout
        if output == "gone\n":
            raise GuestGoneError
        if output == "slot\n":
            raise NoSlotError
        if output == "full\n":
            raise GuestStartError(
                "The sandbox could not store the request: its disk is full or read-only. "
                f"It says: {admit_text(result.stderr, 300)}"
            )
        if not output and result.exit_code not in (0, -1, 124):
            raise ProtocolError(
                f"the relay ended with exit code {result.exit_code}: {admit_text(result.stderr, 300) or 'no message'}"
            )
        if not output:
            raise IncompleteAnswerError("the relay was stopped before the guest had answered")
        return decode_answer(output)
