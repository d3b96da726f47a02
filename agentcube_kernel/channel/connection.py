"""The connection to one guest: finding or starting it, and calls that go on until an answer has arrived whole."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import (
    Delivery,
    ExchangeError,
    GuestLostError,
    ResponseError,
    SandboxUnreachableError,
    SessionNotFoundError,
)
from ..wire.retry import RetryPolicy
from .exit import admit_text
from .guest_start import BootOptions, GuestNotRunningError, Hello, boot
from .protocol import Answer, Inbox, IncompleteAnswerError, ProtocolError
from .relay import CommandRunner, GuestGoneError, GuestRef, NoSlotError, Relay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..timings import Timings

_T = TypeVar("_T")
_Lost = TypeVar("_Lost", bound=Exception)


class GuestConnection:
    """Calls to one guest, of one client. Knows which interpreter is believed in and what has arrived from it."""

    def __init__(
        self,
        runner: CommandRunner,
        *,
        client_id: str,
        session_id: str | None,
        env: Mapping[str, str],
        timings: Timings,
        on_notice: Callable[[str], None] | None,
        on_loss: Callable[[Exception], None],
    ) -> None:
        self.client_id = client_id
        self.session_id = session_id
        self._timings = timings
        self.guest: GuestRef | None = None
        self.inbox = Inbox()
        self._runner = runner
        self._env = dict(env)
        self._on_notice = on_notice
        self._on_loss = on_loss
        self._relay: Relay | None = None
        self._greeting = asyncio.Lock()

    # Starting, taking over, restarting.

    async def start(self, patience: float | None) -> Hello:
        """Find the guest of the session or start one."""
        options = BootOptions(client_id=self.client_id, env=self._env)
        hello = await self._boot(options, patience)
        self._adopt(hello, acknowledged=number(hello, "acknowledged"))
        if hello.answer.dead is not None:
            if hello.answer.dead.get("started") is False:
                # What it needs to start may have changed since (IPython, a package), so the guest is built anew.
                await self.shut_down()
                hello = await self._boot(options, patience)
                self._adopt(hello, acknowledged=0)
            elif not await self.restart():
                hello = await self._boot(options, patience)
                self._adopt(hello, acknowledged=number(hello, "acknowledged"))
        return hello

    async def take_over(self, ref: GuestRef) -> Hello:
        """Go on with the interpreter that `ref` names, as the client that it names."""
        self.client_id = ref.client_id
        options = BootOptions(client_id=ref.client_id, generation=ref.generation, must_run=True)
        try:
            hello = await self._boot(options, None)
        except GuestNotRunningError:
            raise self.lost(None) from None
        if hello.answer.error == "generation" or hello.answer.generation != ref.generation:
            raise self.lost(None)
        self._adopt(hello, acknowledged=number(hello, "acknowledged"))
        return hello

    async def restart(self) -> bool:
        """Have the guest replace its interpreter; False when there is no guest that could."""
        try:
            answer = await self.exchange({"op": "restart", "id": uuid.uuid4().hex}, generation=False)
        except GuestGoneError:
            self._relay, self.guest = None, None
            return False
        assert self.guest is not None
        guest = self.guest
        self.guest = GuestRef(
            pid=guest.pid, fd=guest.fd, generation=answer.generation, client_id=guest.client_id
        )
        self.inbox = Inbox()
        return True

    async def shut_down(self) -> None:
        """End the guest and all that it has started."""
        try:
            await self.exchange({"op": "shutdown"}, generation=False)
        except GuestGoneError:
            return

    async def _boot(self, options: BootOptions, patience: float | None) -> Hello:
        async def attempt() -> Hello:
            try:
                return await boot(self._runner, options, self._on_notice)
            except (IncompleteAnswerError, NoSlotError) as exc:
                raise self._cut_off(exc) from exc
            except ProtocolError as exc:
                raise self._not_as_expected(exc) from exc

        return await self._patiently(attempt, self._timings.patience if patience is None else patience)

    def _adopt(self, hello: Hello, acknowledged: int) -> None:
        self._relay = Relay(self._runner, hello.pid, hello.fd, grace=self._timings.answer)
        self._relay.add_slots(hello.answer.slots)
        self.guest = GuestRef(
            pid=hello.pid, fd=hello.fd, generation=hello.answer.generation, client_id=self.client_id
        )
        self.inbox = Inbox(acknowledged=acknowledged)

    # Calls.

    async def exchange(
        self, request: Mapping[str, Any], *, hold: float = 0.0, generation: bool = True
    ) -> Answer:
        """Call until an answer has arrived whole. Every request may arrive any number of times.

        With `generation` the answer is of the interpreter that was believed in when the call began.

        Raises:
            GuestLostError: that interpreter is no more.
            GuestGoneError: no guest answers, where the interpreter does not matter.
            SandboxUnreachableError: no answer came for `patience` seconds.
            AgentCubeError: whatever the runner raises.
        """
        believed = self.guest
        try:
            return await self._exchange(request, hold=hold)
        except GuestGoneError:
            if not generation:
                raise
            raise self._noted(self.lost(None), believed) from None
        except (GuestLostError, SessionNotFoundError) as exc:
            self._noted(exc, believed)
            raise

    def _noted(self, lost: _Lost, believed: GuestRef | None) -> _Lost:
        if self.guest is believed:
            self._on_loss(lost)
        return lost

    async def _exchange(self, request: Mapping[str, Any], *, hold: float) -> Answer:
        async def attempt() -> Answer:
            relay, guest = self._relay, self.guest
            if relay is None or guest is None:
                raise GuestGoneError
            return await self._attempt(relay, guest, request, hold)

        answer = await self._patiently(attempt, self._timings.patience)
        if answer.error == "generation":
            raise self.lost(None)
        if answer.error is not None and answer.error.startswith("bad request"):
            raise ResponseError(
                f"The guest refused a request: {admit_text(answer.error, 300)}",
                session_id=self.session_id,
                delivery=Delivery.DELIVERED,
            )
        return answer

    async def _attempt(
        self, relay: Relay, guest: GuestRef, request: Mapping[str, Any], hold: float
    ) -> Answer:
        fields = {"wait": hold, **request, "c": self.client_id, "ack": self.inbox.acknowledged}
        fields["g"] = guest.generation
        try:
            answer = await relay.call(fields, hold=hold)
        except NoSlotError:
            await self._greet(relay)
            raise self._cut_off(None) from None
        except IncompleteAnswerError as exc:
            raise self._cut_off(exc) from exc
        except ProtocolError as exc:
            raise self._not_as_expected(exc) from exc
        relay.add_slots(answer.slots)
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

    async def _patiently(self, attempt: Callable[[], Awaitable[_T]], patience: float) -> _T:
        try:
            return await RetryPolicy.IDEMPOTENT.with_patience(patience).call(attempt)
        except ExchangeError as exc:
            if exc.transient and self.guest is not None:
                raise SandboxUnreachableError(
                    f"The sandbox could not be reached for {patience:.0f} s: {exc} Its session and its variables are "
                    "probably still there, and a cell that was running goes on; run a cell to connect again.",
                    session_id=self.session_id,
                ) from exc
            raise

    # Errors.

    def _cut_off(self, cause: Exception | None) -> ResponseError:
        return ResponseError(
            f"The answer of the sandbox did not arrive whole ({cause or 'it has to be asked for again'}).",
            session_id=self.session_id,
            delivery=Delivery.UNKNOWN,
            transient=True,
        )

    def _not_as_expected(self, exc: ProtocolError) -> ResponseError:
        return ResponseError(
            f"The sandbox does not answer as expected: {admit_text(exc)}", session_id=self.session_id
        )

    def lost(self, dead: Mapping[str, Any] | None) -> GuestLostError:
        """The error for an interpreter that has ended as `dead` says."""
        return GuestLostError(describe_end(dead), session_id=self.session_id)


def number(hello: Hello, key: str) -> int:
    """A number in what the guest said of itself; 0 for anything else."""
    value = (hello.answer.reply or {}).get(key, 0)
    return value if type(value) is int else 0


def describe_end(dead: Mapping[str, Any] | None) -> str:
    """Say how an interpreter ended, what is lost and what to do."""
    if dead is None:
        how = "The interpreter in the sandbox is not running any more"
    elif dead.get("started") is False:
        detail = admit_text(dead.get("stderr", ""))
        return f"The interpreter in the sandbox could not start: {detail or 'it gave no reason'}"
    elif dead.get("memory"):
        how = "The interpreter in the sandbox was killed because the sandbox ran out of memory"
    elif dead.get("signal") == 9:
        how = "The interpreter in the sandbox was killed (signal 9; the usual reason is too little memory)"
    elif isinstance(dead.get("signal"), int):
        how = f"The interpreter in the sandbox crashed (signal {dead['signal']})"
    else:
        how = f"The interpreter in the sandbox exited with status {admit_text(dead.get('status'), 20)}"
    return f"{how}. Its variables are lost; files are still there. The next cell starts with a fresh interpreter."
