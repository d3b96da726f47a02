"""One attempt that any number of callers wait for, each of whom may stop waiting without ending it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

T = TypeVar("T")


class SharedAttempt(Generic[T]):
    """Runs `attempt` in a task of its own, once at a time, for everybody who asks while it runs.

    A cancelled caller stops waiting and the attempt goes on; `cancel` ends it. When an attempt has ended, well or not,
    the next `join` begins another one, so whoever needs it once only asks first whether it is still needed. An attempt
    that failed while nobody waited is not reported as a forgotten exception.

    Belongs to the event loop that first uses it.
    """

    def __init__(self, attempt: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> None:
        self._attempt = attempt
        self._name = name
        self._task: asyncio.Task[T] | None = None

    @property
    def running(self) -> bool:
        """True while an attempt is under way."""
        return self._task is not None and not self._task.done()

    def begin(self) -> asyncio.Task[T]:
        """The current attempt; begins one if none is running."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._attempt(), name=self._name)
            self._task.add_done_callback(_retrieve)
        return self._task

    async def join(self) -> T:
        """The outcome of the current attempt, or of a new one.

        Raises:
            CancelledError: the caller was cancelled, or `cancel` was called.
            Exception: whatever the attempt raises.
        """
        return await asyncio.shield(self.begin())

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds for the current attempt to end in any way. True if none is running then."""
        if self._task is None or self._task.done():
            return True
        done, _ = await asyncio.wait({self._task}, timeout=timeout)
        return bool(done)

    async def cancel(self) -> None:
        """Cancel the current attempt, if any, and wait until it has ended."""
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})


def _retrieve(task: asyncio.Task[object]) -> None:
    if not task.cancelled():
        task.exception()
