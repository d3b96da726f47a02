"""The host's side of the channel: cells and questions in, events out, over calls that may fail at any point.

See the theory of operation in `protocol.py`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
import uuid
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError, GuestLostError, ResponseError
from ..timings import Timings
from .connection import GuestConnection
from .event_stream import EventStream
from .events import Form, event_type
from .exit import admit, admit_reply
from .recovery import Recovery
from .shapes import identifier
from .trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .guest_start import Hello
    from .protocol import Answer, Event
    from .relay import CommandRunner, GuestRef

logger = logging.getLogger("agentcube_kernel.channel")

# Theory of operation: drives
# ---------------------------
# A *drive* is the task that makes calls while something is expected: `run` with what has not certainly arrived, then
# `poll` after `poll`. Each cell or comm message starts a new drive, since its call is to leave at once; the guest sends
# the call that the older drive holds home empty, and that drive, no longer the latest, ends without another call. So at
# any time one drive listens, and requests that overtake each other do no harm: ids make each of them happen once, and
# numbers make each entry arrive once. Only the latest drive's failure fails the open streams. A stream that nobody
# drains holds up only itself: past its limit the oldest text of a run that is not read is dropped.

_JOINED = 256 * 1024

Task = dict[str, Any]


class Channel:
    """One client of one guest: its cells, comm messages and questions. Everything runs on one event loop.

    `trust` says what the sandbox's output may do, for each event and answer as it comes.
    `on_background` gets the events that no open stream takes: output after a cell's end, comm messages of threads.
    `on_loss` gets the error when the interpreter or the session turns out to be gone.
    """

    def __init__(
        self,
        runner: CommandRunner,
        *,
        client_id: str,
        session_id: str | None = None,
        trust: Callable[[], Trust] = lambda: Trust.ON,
        on_background: Callable[[Event], None] | None = None,
        on_notice: Callable[[str], None] | None = None,
        on_loss: Callable[[Exception], None] = lambda error: None,
        env: Mapping[str, str] | None = None,
        timings: Timings | None = None,
    ) -> None:
        self._timings = timings = timings or Timings()
        self._connection = GuestConnection(
            runner,
            client_id=client_id,
            session_id=session_id,
            env=env or {},
            timings=timings,
            on_notice=on_notice,
            on_loss=on_loss,
        )
        self._on_background = on_background or (lambda event: None)
        self._on_loss = on_loss
        self._trust = trust
        self._streams: dict[str, EventStream] = {}
        self._unsent: deque[Task] = deque()
        self._drives: set[asyncio.Task[None]] = set()
        self._latest: object = None
        self._heard = 0.0
        self._recovery: Recovery | None = None

    @property
    def guest(self) -> GuestRef | None:
        """The guest that this channel talks to, or None before `start` and after a loss."""
        return self._connection.guest

    # Starting, taking over, restarting.

    async def start(self, *, patience: float | None = None) -> Hello:
        """Find the guest of the session or start one.

        Cancelling leaves at most a guest that nobody uses yet; the next `start` finds it.

        Raises:
            GuestStartError: it cannot be started.
            SandboxUnreachableError: no answer came for `patience` seconds.
            AgentCubeError: whatever the runner raises.
        """
        self._unsent.clear()
        return await self._connection.start(patience)

    async def take_over(self, ref: GuestRef) -> Recovery:
        """Go on with the interpreter that `ref` names, as the client that it names; return what that had missed.

        Raises:
            GuestLostError: that interpreter is no more.
        """
        self._unsent.clear()
        hello = await self._connection.take_over(ref)
        self._recovery = recovery = Recovery(hello, self._connection.inbox.acknowledged)
        if not recovery.over:
            self._drive({"op": "poll"})
        return recovery

    async def restart(self) -> None:
        """End the interpreter and start a fresh one; files stay. Cells that run end with `GuestLostError`."""
        self._fail_streams(
            GuestLostError("The interpreter was restarted.", session_id=self._connection.session_id)
        )
        if not await self._connection.restart():
            await self.start()

    async def shut_down_guest(self) -> None:
        """End the guest and all that it has started."""
        await self._connection.shut_down()

    async def close(self) -> None:
        """Stop listening; the guest goes on. Streams that are open end with `GuestLostError`."""
        self._latest = None
        for drive in list(self._drives):
            drive.cancel()
        if self._drives:
            await asyncio.gather(*self._drives, return_exceptions=True)
        self._fail_streams(
            GuestLostError("The sandbox was closed here.", session_id=self._connection.session_id)
        )

    # Cells and comm messages.

    def submit(self, task: Task) -> EventStream:
        """Send a cell or comm message on its way; its events come out of the stream that is returned."""
        # As events name it after the exit, however odd the id that a front end has chosen.
        stream = self._streams[identifier(task["id"])] = EventStream(task["id"])
        self._unsent.append(task)
        self._drive({"op": "run"})
        return stream

    def leave(self, cell_id: str) -> None:
        """No longer collect the events of a cell or comm message: they are background events from now on."""
        self._streams.pop(identifier(cell_id), None)

    def _drive(self, request: dict[str, Any]) -> None:
        """Make the call that listens from now on; the one before it comes home empty."""
        token = self._latest = object()
        drive = asyncio.get_running_loop().create_task(
            self._run_drive(request, token), name="agentcube-drive"
        )
        self._drives.add(drive)
        drive.add_done_callback(self._drives.discard)

    async def _run_drive(self, request: dict[str, Any], token: object) -> None:
        try:
            while True:
                # All that the guest is not known to have, in order: requests overtake each other, ids make it safe.
                sent = list(self._unsent)
                if sent:
                    request = {"op": "run", "tasks": sent}
                answer = await self._connection.exchange(request, hold=self._timings.hold)
                for task in sent:
                    if task in self._unsent:
                        self._unsent.remove(task)
                await self._process(answer)
                if token is not self._latest or not self._expects_more(answer):
                    return
                request = {"op": "poll"}
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            if token is self._latest:
                self._fail(exc)

    def _expects_more(self, answer: Answer) -> bool:
        if self._streams or self._recovers or answer.more or self._unsent:
            return True
        return answer.live and time.monotonic() - self._heard < self._timings.listen

    @property
    def _recovers(self) -> bool:
        return self._recovery is not None and not self._recovery.over

    async def _process(self, answer: Answer) -> None:
        inbox = self._connection.inbox
        events = list(join_streams(self._admitted(inbox.receive(answer.entries))))
        if events:
            self._heard = time.monotonic()
        for event in events:
            self._deliver(event)
        if self._recovery is not None:
            self._recovery.check(inbox.acknowledged)
        if answer.dead is not None and not answer.more:
            raise self._noted(self._connection.lost(answer.dead))
        for stream in list(self._streams.values()):
            await stream.room()

    def _admitted(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if (admitted := admit(event, self._trust())) is not None:
                yield admitted

    def _deliver(self, event: Event) -> None:
        stream = self._streams.get(event.cell_id)
        if stream is None:
            if self._recovery is None or not self._recovery.take(event):
                self._on_background(event)
            return
        stream.put(event)
        row = event_type(event.type)
        if row is not None and row.ends:
            del self._streams[event.cell_id]
            stream.finish()

    # Everything else that can be asked of the guest.

    async def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """Have the interpreter answer a question, also while a cell runs; {} when it does not answer in time."""
        wait = self._timings.question
        question = {"op": "ask", "id": uuid.uuid4().hex, "what": what, "wait": wait, **fields}
        answer = await self._connection.exchange(question, hold=wait)
        if answer.dead is not None or answer.error == "dead":
            raise self._noted(self._connection.lost(answer.dead))
        return admit_reply(answer.reply, what, self._trust())

    async def usage(self) -> dict[str, Any]:
        """What the sandbox uses, as a `usage_reply` has it."""
        answer = await self._connection.exchange({"op": "usage"})
        return admit_reply(answer.reply, "usage", self._trust())

    async def answer(self, cell_id: str, text: str | None) -> None:
        """Answer the question of a cell."""
        request = {"op": "input", "id": uuid.uuid4().hex, "cell": cell_id, "value": text}
        await self._connection.exchange(request)

    async def interrupt(self, cell_id: str | None) -> None:
        """SIGINT to the running cell, or the end of a cell that still waits. Exactly one, however often it is sent.

        With None it meets whatever runs and nothing that waits.
        """
        request = {"op": "interrupt", "id": uuid.uuid4().hex, "cell": cell_id, "tasks": list(self._unsent)}
        await self._connection.exchange(request)

    # Ends.

    def _noted(self, exc: GuestLostError) -> GuestLostError:
        self._on_loss(exc)
        return exc

    def _fail(self, exc: Exception) -> None:
        if not isinstance(exc, AgentCubeError):
            logger.error("the channel failed", exc_info=exc)
            exc = ResponseError(
                f"An unexpected error in the channel: {type(exc).__name__}: {exc}",
                session_id=self._connection.session_id,
            )
        self._fail_streams(exc)

    def _fail_streams(self, exc: AgentCubeError) -> None:
        self._latest = None
        self._unsent.clear()
        streams, self._streams = self._streams, {}
        recovery, self._recovery = self._recovery, None
        if recovery is not None and not recovery.over:
            recovery.stream.fail(exc)
        for stream in streams.values():
            stream.fail(exc)


def join_streams(events: Iterable[Event]) -> Iterator[Event]:
    """Join neighbouring pieces of one stream: notebooks keep what arrives together as one output."""
    held: Event | None = None
    for event in events:
        if held is not None and _continues(held, event):
            text = held.content["text"] + event.content["text"]
            held = replace(held, content={"name": held.content["name"], "text": text})
            continue
        if held is not None:
            yield held
        held = event
    if held is not None:
        yield held


def _continues(held: Event, event: Event) -> bool:
    row = event_type(event.type)
    return (
        row is not None
        and row.form is Form.TEXT
        and event.type == held.type
        and event.cell_id == held.cell_id
        and event.content["name"] == held.content["name"]
        and len(held.content["text"]) < _JOINED
    )


def cell_task(
    cell_id: str,
    code: str,
    *,
    silent: bool,
    store_history: bool,
    user_expressions: Mapping[str, str],
    allow_stdin: bool,
) -> Task:
    """A cell as the guest takes it."""
    return {
        "id": cell_id,
        "kind": "cell",
        "code": code,
        "silent": silent,
        "store_history": store_history,
        "user_expressions": dict(user_expressions),
        "allow_stdin": allow_stdin,
    }


def comm_task(
    kind: str,
    content: Mapping[str, Any],
    metadata: Mapping[str, Any],
    buffers: Iterable[Any],
    message_id: str,
) -> Task:
    """A comm message as the guest takes it."""
    return {
        "id": message_id,
        "kind": "comm",
        "type": kind,
        "content": dict(content),
        "metadata": dict(metadata),
        "buffers": [base64.b64encode(bytes(buffer)).decode("ascii") for buffer in buffers],
    }
