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
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import (
    AgentCubeError,
    Delivery,
    ExchangeError,
    GuestLostError,
    ResponseError,
    SandboxUnreachableError,
)
from ..timings import Timings
from ..wire.retry import RetryPolicy
from .cell_stream import CellStream
from .gate import admit, admit_reply
from .guest_start import BootOptions, GuestNotRunningError, Hello, boot
from .protocol import Answer, Event, Inbox, IncompleteAnswerError, ProtocolError
from .relay import CommandRunner, GuestGoneError, GuestRef, NoSlotError, Relay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

logger = logging.getLogger("agentcube_kernel.channel")

_JOINED = 256 * 1024

Task = dict[str, Any]
_T = TypeVar("_T")


class Channel:
    """One client of one guest. Everything runs on one event loop.

    `on_background` gets the events that no open stream takes: output after a cell's end, comm messages of threads.
    """

    def __init__(
        self,
        runner: CommandRunner,
        *,
        client_id: str,
        session_id: str | None = None,
        on_background: Callable[[Event], None] | None = None,
        on_notice: Callable[[str], None] | None = None,
        env: Mapping[str, str] | None = None,
        timings: Timings | None = None,
    ) -> None:
        self.client_id = client_id
        self.session_id = session_id
        self._timings = timings or Timings()
        self._runner = runner
        self._env = dict(env or {})
        self._on_background = on_background or (lambda event: None)
        self._on_notice = on_notice
        self._relay: Relay | None = None
        self._guest: GuestRef | None = None
        self._inbox = Inbox()
        self._streams: dict[str, CellStream] = {}
        self._unsent: deque[Task] = deque()
        self._drives: set[asyncio.Task[None]] = set()
        self._latest: object = None
        self._heard = 0.0
        self._greeting = asyncio.Lock()
        self._recovery: CellStream | None = None
        self._recovering: set[str] = set()
        self._recover_to = 0

    @property
    def guest(self) -> GuestRef | None:
        """The guest that this channel talks to, or None before `start` and after a loss."""
        return self._guest

    # Starting, taking over, restarting.

    async def start(self, *, patience: float | None = None) -> Hello:
        """Find the guest of the session or start one.

        Raises `GuestStartError`, `SandboxUnreachableError`, or the client's error. Cancelling leaves at most a guest
        that nobody uses yet; the next `start` finds it.
        """
        options = BootOptions(client_id=self.client_id, env=self._env)
        hello = await self._boot(options, patience)
        self._adopt(hello, acknowledged=self._number(hello, "acknowledged"))
        if hello.answer.dead is not None:
            if hello.answer.dead.get("started") is False:
                # What it needs to start may have changed since (IPython, a package), so the guest is built anew.
                await self.shut_down_guest()
                hello = await self._boot(options, patience)
                self._adopt(hello, acknowledged=0)
            else:
                await self.restart()
        return hello

    async def take_over(self, ref: GuestRef) -> Hello:
        """Go on with the interpreter that `ref` names, as the client that it names.

        Raises `GuestLostError` when that interpreter is no more.
        """
        self.client_id = ref.client_id
        options = BootOptions(client_id=ref.client_id, generation=ref.generation, must_run=True)
        try:
            hello = await self._boot(options, None)
        except GuestNotRunningError:
            raise self._lost(None) from None
        if hello.answer.error == "generation" or hello.answer.generation != ref.generation:
            raise self._lost(None)
        self._adopt(hello, acknowledged=self._number(hello, "acknowledged"))
        return hello

    def recover(self, hello: Hello) -> tuple[CellStream | None, list[str]]:
        """What this client had missed when it was taken over: a stream of it, and the cells that have not ended.

        The stream ends when those cells have and all that the guest had kept has come; None when there is nothing.
        """
        reply = hello.answer.reply or {}
        unfinished = [name for name in reply.get("unfinished", []) if isinstance(name, str)]
        last = self._number(hello, "last")
        if not unfinished and last <= self._inbox.acknowledged:
            return None, []
        self._recovery = CellStream("", self._abandon_recovery)
        self._recovering, self._recover_to = set(unfinished), last
        self._drive({"op": "poll"})
        return self._recovery, unfinished

    def _abandon_recovery(self, stream: CellStream) -> None:
        if self._recovery is stream:
            self._recovery = None

    def _recovered(self, event: Event) -> bool:
        """Take an event of a cell from before the takeover."""
        if self._recovery is None:
            return False
        self._recovery.put(event)
        if event.type in ("execute_reply", "comm_reply"):
            self._recovering.discard(event.cell_id)
        return True

    def _check_recovered(self) -> None:
        if (
            self._recovery is not None
            and not self._recovering
            and self._inbox.acknowledged >= self._recover_to
        ):
            self._recovery.finish()
            self._recovery = None

    async def restart(self) -> None:
        """End the interpreter and start a fresh one; files stay. Cells that run end with `GuestLostError`."""
        self._fail_streams(GuestLostError("The interpreter was restarted.", session_id=self.session_id))
        if self._relay is not None:
            try:
                answer = await self._exchange({"op": "restart", "id": uuid.uuid4().hex}, generation=False)
            except GuestGoneError:
                self._forget_guest()
            else:
                self._renew(answer.generation)
                return
        await self.start()

    async def _boot(self, options: BootOptions, patience: float | None) -> Hello:
        async def attempt() -> Hello:
            try:
                return await boot(self._runner, options, self._on_notice)
            except (IncompleteAnswerError, NoSlotError) as exc:
                raise self._cut_off(exc) from exc
            except ProtocolError as exc:
                raise ResponseError(
                    f"The sandbox does not answer as expected: {exc}", session_id=self.session_id
                ) from exc

        return await self._patiently(attempt, self._timings.patience if patience is None else patience)

    def _adopt(self, hello: Hello, acknowledged: int) -> None:
        self._relay = Relay(self._runner, hello.pid, hello.fd, grace=self._timings.answer)
        self._relay.add_slots(hello.answer.slots)
        self._guest = GuestRef(
            pid=hello.pid, fd=hello.fd, generation=hello.answer.generation, client_id=self.client_id
        )
        self._inbox = Inbox(acknowledged=acknowledged)
        self._unsent.clear()

    def _renew(self, generation: str) -> None:
        assert self._guest is not None
        guest = self._guest
        self._guest = GuestRef(pid=guest.pid, fd=guest.fd, generation=generation, client_id=guest.client_id)
        self._inbox = Inbox()
        self._unsent.clear()

    @staticmethod
    def _number(hello: Hello, key: str) -> int:
        value = (hello.answer.reply or {}).get(key, 0)
        return value if isinstance(value, int) else 0

    # Cells and comm messages.

    def submit(self, task: Task) -> CellStream:
        """Send a cell or comm message on its way; its events come out of the stream that is returned."""
        stream = self._stream(task["id"])
        self._unsent.append(task)
        self._drive({"op": "run"})
        return stream

    def _stream(self, task_id: str) -> CellStream:
        stream = CellStream(task_id, self._abandon)
        self._streams[task_id] = stream
        return stream

    def _abandon(self, stream: CellStream) -> None:
        if self._streams.get(stream.id) is stream:
            del self._streams[stream.id]

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
                answer = await self._exchange(request, hold=self._timings.hold)
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
        if self._streams or self._recovery is not None or answer.more or self._unsent:
            return True
        return answer.live and time.monotonic() - self._heard < self._timings.listen

    async def _process(self, answer: Answer) -> None:
        events = list(join_streams(admit(event) for event in self._inbox.receive(answer.entries)))
        if events:
            self._heard = time.monotonic()
        for event in events:
            stream = self._streams.get(event.cell_id)
            if stream is None:
                if not self._recovered(event):
                    self._on_background(event)
                continue
            stream.put(event)
            if event.type in ("execute_reply", "comm_reply"):
                del self._streams[event.cell_id]
        self._check_recovered()
        if answer.dead is not None and not answer.more:
            raise self._lost(answer.dead)
        for stream in list(self._streams.values()):
            await stream.room()

    # Everything else that can be asked of the guest.

    async def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """Have the interpreter answer a question, also while a cell runs; {} when it does not answer in time."""
        wait = self._timings.question
        question = {"op": "ask", "id": uuid.uuid4().hex, "what": what, "wait": wait, **fields}
        answer = await self._exchange(question, hold=wait)
        if answer.dead is not None or answer.error == "dead":
            raise self._lost(answer.dead)
        return admit_reply(answer.reply, what)

    async def usage(self) -> dict[str, Any]:
        answer = await self._exchange({"op": "usage"})
        return admit_reply(answer.reply, "usage")

    async def send_input(self, cell_id: str, value: str | None) -> None:
        await self._exchange({"op": "input", "id": uuid.uuid4().hex, "cell": cell_id, "value": value})

    async def interrupt(self, cell_id: str | None) -> None:
        """SIGINT to the running cell, or the end of a cell that still waits. Exactly one, however often it is sent."""
        request = {"op": "interrupt", "id": uuid.uuid4().hex, "cell": cell_id, "tasks": list(self._unsent)}
        await self._exchange(request)

    async def shut_down_guest(self) -> None:
        """End the guest and all that it has started."""
        if self._relay is not None:
            try:
                await self._exchange({"op": "shutdown"}, generation=False)
            except GuestGoneError:
                return

    async def close(self) -> None:
        """Stop listening; the guest goes on. Streams that are open end with `GuestLostError`."""
        self._latest = None
        for drive in list(self._drives):
            drive.cancel()
        if self._drives:
            await asyncio.gather(*self._drives, return_exceptions=True)
        self._fail_streams(GuestLostError("The sandbox was closed here.", session_id=self.session_id))

    # Calls.

    async def _exchange(
        self, request: Mapping[str, Any], *, hold: float = 0.0, generation: bool = True
    ) -> Answer:
        """Call until an answer has arrived whole. Every request may arrive any number of times."""

        async def attempt() -> Answer:
            relay, guest = self._relay, self._guest
            if relay is None or guest is None:
                raise GuestGoneError
            fields = {**request, "c": self.client_id, "ack": self._inbox.acknowledged, "wait": hold}
            if "wait" in request:
                fields["wait"] = request["wait"]
            fields["g"] = guest.generation
            try:
                answer = await relay.call(fields, hold=hold)
            except NoSlotError:
                await self._greet(relay)
                raise self._cut_off(None) from None
            except IncompleteAnswerError as exc:
                raise self._cut_off(exc) from exc
            except ProtocolError as exc:
                raise ResponseError(
                    f"The sandbox does not answer as expected: {exc}", session_id=self.session_id
                ) from exc
            relay.add_slots(answer.slots)
            return answer

        try:
            answer = await self._patiently(attempt, self._timings.patience)
        except GuestGoneError:
            if generation:
                raise self._lost(None) from None
            raise
        if answer.error is not None:
            if answer.error == "generation":
                raise self._lost(None)
            if answer.error.startswith("bad request"):
                raise ResponseError(
                    f"The guest refused a request: {answer.error[:300]}",
                    session_id=self.session_id,
                    delivery=Delivery.DELIVERED,
                )
        return answer

    async def _greet(self, relay: Relay) -> None:
        """All slots are used up, which lost answers can do: say hello for new ones."""
        async with self._greeting:
            if relay.slots or self._relay is not relay:
                return
            try:
                hello = await boot(self._runner, BootOptions(client_id=self.client_id, must_run=True))
            except GuestNotRunningError:
                raise GuestGoneError from None
            except (IncompleteAnswerError, ProtocolError) as exc:
                raise self._cut_off(exc) from exc
            relay.add_slots(hello.answer.slots)

    def _cut_off(self, cause: Exception | None) -> ResponseError:
        return ResponseError(
            f"The answer of the sandbox did not arrive whole ({cause or 'it has to be asked for again'}).",
            session_id=self.session_id,
            delivery=Delivery.UNKNOWN,
            transient=True,
        )

    async def _patiently(self, attempt: Callable[[], Awaitable[_T]], patience: float) -> _T:
        try:
            return await RetryPolicy.IDEMPOTENT.with_patience(patience).call(attempt)
        except ExchangeError as exc:
            if exc.transient and self._guest is not None:
                raise SandboxUnreachableError(
                    f"The sandbox could not be reached for {patience:.0f} s: {exc} Its session and its variables are "
                    "probably still there, and a cell that was running goes on; run a cell to connect again.",
                    session_id=self.session_id,
                ) from exc
            raise

    # Ends.

    def _lost(self, dead: Mapping[str, Any] | None) -> GuestLostError:
        return GuestLostError(describe_end(dead), session_id=self.session_id)

    def _forget_guest(self) -> None:
        self._relay, self._guest = None, None

    def _fail(self, exc: Exception) -> None:
        if not isinstance(exc, AgentCubeError):
            logger.error("the channel failed", exc_info=exc)
            exc = ResponseError(
                f"An unexpected error in the channel: {type(exc).__name__}: {exc}", session_id=self.session_id
            )
        self._fail_streams(exc)

    def _fail_streams(self, exc: AgentCubeError) -> None:
        self._latest = None
        self._unsent.clear()
        streams, self._streams = self._streams, {}
        recovery, self._recovery = self._recovery, None
        for stream in (*streams.values(), *([recovery] if recovery is not None else [])):
            stream.fail(exc)


def join_streams(events: Iterable[Event]) -> Iterator[Event]:
    """Join neighbouring pieces of one stream: notebooks keep what arrives together as one output."""
    held: Event | None = None
    for event in events:
        if (
            held is not None
            and event.type == "stream" == held.type
            and event.cell_id == held.cell_id
            and event.content["name"] == held.content["name"]
            and len(held.content["text"]) < _JOINED
        ):
            text = held.content["text"] + event.content["text"]
            held = replace(held, content={"name": held.content["name"], "text": text})
            continue
        if held is not None:
            yield held
        held = event
    if held is not None:
        yield held


def describe_end(dead: Mapping[str, Any] | None) -> str:
    """Say how an interpreter ended, what is lost and what to do."""
    if dead is None:
        how = "The interpreter in the sandbox is not running any more"
    elif dead.get("started") is False:
        detail = str(dead.get("stderr", ""))[-2000:].strip()
        return f"The interpreter in the sandbox could not start: {detail or 'it gave no reason'}"
    elif dead.get("memory"):
        how = "The interpreter in the sandbox was killed because the sandbox ran out of memory"
    elif dead.get("signal") == 9:
        how = "The interpreter in the sandbox was killed (signal 9; the usual reason is too little memory)"
    elif isinstance(dead.get("signal"), int):
        how = f"The interpreter in the sandbox crashed (signal {dead['signal']})"
    else:
        how = f"The interpreter in the sandbox exited with status {dead.get('status')}"
    return f"{how}. Its variables are lost; files are still there. The next cell starts with a fresh interpreter."


def comm_task(
    kind: str,
    content: Mapping[str, Any],
    metadata: Mapping[str, Any],
    buffers: Iterable[Any],
    message_id: str,
) -> Task:
    return {
        "id": message_id,
        "kind": "comm",
        "type": kind,
        "content": dict(content),
        "metadata": dict(metadata),
        "buffers": [base64.b64encode(bytes(buffer)).decode("ascii") for buffer in buffers],
    }
