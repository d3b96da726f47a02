"""What an interrupt means for whatever runs at the moment."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import AgentCubeError
from .failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

log = logging.getLogger("agentcube_kernel.kernel")

UNANSWERED_SECONDS = 8.0
"""How long an undeliverable interrupt is retried before the kernel stops waiting for the cell."""


class Interruptible(Protocol):
    """A `CellRun`, or a sandbox where anything that runs in it is meant."""

    async def interrupt(self) -> None: ...


class Execution:
    """A cell, or a comm message's callback, that is being waited for.

    While `target` is None it has not been sent anywhere, and an interrupt simply drops it; `dropped` is then what the
    user is told.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.target: Interruptible | None = None
        self.failure: Failure | None = None
        self.interrupted = False
        self.dropped = "nothing was run"

    def abandon(self, failure: Failure) -> None:
        """Make the waiting task raise CancelledError; it finds the reason in `failure`."""
        if self.failure is None:
            self.failure = failure
            self.task.cancel()


class Interrupts:
    """Sends interrupts to where the running code is. Lives in the main thread."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._spawn = spawn
        self._executions: list[Execution] = []

    @contextmanager
    def watch(self) -> Iterator[Execution]:
        """Let interrupts reach the current task until the block ends."""
        task = asyncio.current_task()
        assert task is not None
        execution = Execution(task)
        self._executions.append(execution)
        try:
            yield execution
        finally:
            self._executions.remove(execution)

    def request(self) -> None:
        """Interrupt what runs now; nothing happens when nothing runs.

        Code in a sandbox is interrupted there, and ends as the sandbox says: with its own KeyboardInterrupt, or not at
        all if it catches that. A cell that waits behind those of others ends without having run. Only when the
        interrupt cannot be delivered does the kernel stop waiting by itself.
        """
        for execution in list(self._executions):
            execution.interrupted = True
            if execution.target is None:
                execution.abandon(Failure(ename="KeyboardInterrupt", evalue=execution.dropped))
            else:
                self.forward(execution, execution.target)

    def forward(self, execution: Execution, target: Interruptible) -> None:
        """Send the interrupt on."""
        self._spawn(self._forward(execution, target))

    async def _forward(self, execution: Execution, target: Interruptible) -> None:
        try:
            async with asyncio.timeout(UNANSWERED_SECONDS):
                await target.interrupt()
        except (AgentCubeError, TimeoutError) as error:
            log.warning("an interrupt could not be delivered: %s", error)
            if execution in self._executions:
                execution.abandon(_undelivered(error))


def _undelivered(error: Exception) -> Failure:
    reason = str(error) or f"no answer within {UNANSWERED_SECONDS:g} s"
    session = getattr(error, "session_id", None)
    where = f"session {session}" if session else "the sandbox"
    return Failure(
        ename="KeyboardInterrupt",
        evalue=(
            f"The interrupt could not be delivered to {where}: {reason}\n"
            "The kernel no longer waits for this cell, which may still be running there. Run the next cell when the "
            "sandbox can be reached again; it waits for this one."
        ),
    )
