"""Waiting for a cell: how long, and what becomes of it when the time is up or the caller is cancelled."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, TypeVar

from ..arguments import check_timeout
from ..errors import AgentCubeError, CellTimeoutError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from .cell_run import CellRun
    from .protocol import Event


_HAND_OVER = 3.0
"""Seconds that a cancelled wait may spend on telling the sandbox."""

T = TypeVar("T")


def check_limits(timeout: object, queue_timeout: object, on_cancel: object) -> None:
    """Check what `wait_for_cell` takes.

    Raises:
        ConfigurationError: a time that is not greater than 0 (or no number: a `TypeError` too), or another word than
            `interrupt` and `leave`.
    """
    for name, seconds in (("timeout", timeout), ("queue_timeout", queue_timeout)):
        check_timeout(seconds, name=name, default=1.0)
    if on_cancel not in ("interrupt", "leave"):
        raise ConfigurationError(
            f'on_cancel must be "interrupt" or "leave", not {on_cancel!r}.', name="on_cancel"
        )


async def wait_for_cell(
    run: CellRun,
    reading: Coroutine[Any, Any, T],
    *,
    patience: float,
    timeout: float | None = None,
    queue_timeout: float | None = None,
    on_cancel: str = "interrupt",
    grace: float = 0.0,
    session_id: str | None = None,
    seen: Callable[[], Sequence[Event]] = tuple,
) -> T:
    """Return what `reading`, which reads the events of `run` to their end, returns.

    Args:
        patience: seconds that the interrupted cell gets to end, before it is no longer waited for.
        timeout: seconds from the cell's beginning, after which it is interrupted.
        queue_timeout: seconds that it may wait behind other cells, after which it is taken out of the queue.
        on_cancel: what a cancelled call does to the cell: `interrupt`, or `leave` it running.
        grace: seconds for which a cancelled call waits for the end of the interrupted cell.
        seen: the events so far, for the error.

    Raises:
        CellTimeoutError: the time is up; `started` says whether the cell had begun.
    """
    reader = asyncio.get_running_loop().create_task(reading, name="agentcube-cell")
    try:
        limit = await _expired(run, reader, _seconds(timeout), _seconds(queue_timeout))
        if limit is None:
            return await reader
        await _tell(run, patience)
        await asyncio.wait({reader}, timeout=patience)
        if reader.done() and isinstance(reader.exception(), AgentCubeError):
            return await reader  # the sandbox was lost meanwhile
        raise CellTimeoutError(
            _what_happened(run, limit),
            timeout=limit,
            started=run.started,
            events=tuple(seen()),
            session_id=session_id,
        )
    except asyncio.CancelledError:
        if on_cancel == "interrupt" and not reader.done():
            await _tell(run, _HAND_OVER)
            await asyncio.wait({reader}, timeout=grace)
        raise
    finally:
        await _leave(run, reader)


def _seconds(timeout: float | None) -> float | None:
    return None if timeout == math.inf else timeout


async def _expired(
    run: CellRun, reader: asyncio.Task[T], timeout: float | None, queue_timeout: float | None
) -> float | None:
    """Wait for the reader's end; the limit that has passed before that, or None."""
    if timeout is None and queue_timeout is None:
        await asyncio.wait({reader})
        return None
    begun = asyncio.get_running_loop().create_task(run.begun())
    try:
        await asyncio.wait({reader, begun}, timeout=queue_timeout, return_when=asyncio.FIRST_COMPLETED)
        if not begun.done() and not reader.done():
            return queue_timeout
    finally:
        begun.cancel()
    done, _ = await asyncio.wait({reader}, timeout=timeout)
    return None if done else timeout


async def _tell(run: CellRun, patience: float) -> None:
    """Interrupt the cell. The order stays on its way when the wait ends: after `patience` seconds, or cancelled."""
    telling = run.interrupt_soon()
    await asyncio.wait({telling}, timeout=patience)


async def _leave(run: CellRun, reader: asyncio.Task[T]) -> None:
    if not reader.done():
        reader.cancel()
        await asyncio.wait({reader})
    if not reader.cancelled():
        reader.exception()
    run.leave()


def _what_happened(run: CellRun, limit: float) -> str:
    if run.started:
        what = (
            "was interrupted" if run.ended else "does not react to an interrupt; it runs on until `restart`"
        )
        return f"The cell did not end within {limit:g} s and {what}. Variables are kept."
    waited = f"The cell did not begin within {limit:g} s, because something else runs in the sandbox"
    if run.ended:
        return f"{waited}. It was taken out of the queue: it did not run, and nothing has changed."
    return f"{waited}. It could not be taken out of the queue and may still run."
