"""The current sandbox as an object for the user's own code."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from ..client.sync.portal import portal
from ..sync_sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..channel.cell_result import CellResult
    from ..channel.protocol import Event
    from ..registry.entry import Entry
    from ..sandbox import AsyncSandbox

T = TypeVar("T")

_CALLER_OF_METHOD = 2


class NotebookSandbox(Sandbox):
    """A `Sandbox` of the magics, left in the notebook as `sandbox`.

    ::

        sandbox.run_cell("x = 20")                  # waits
        result = await sandbox.run_cell("x + 1")    # does not hold up the notebook

    Called from a coroutine (a cell with a top-level `await`, or an `async def`), methods return what is to be awaited;
    called from anywhere else they wait for their result. Streams are for code that waits: use `run_cell` with
    `on_event` in coroutines. The magics own the session: use `%sandbox stop` and `%sandbox detach`.
    """

    def __init__(self, entry: Entry) -> None:
        assert entry.sandbox is not None
        self._entry = entry
        self._core = entry.sandbox
        self._pid = os.getpid()

    @property
    def name(self) -> str:
        """The sandbox's name in `%sandbox`."""
        return self._entry.name

    def is_of(self, entry: Entry) -> bool:
        """Whether this is the sandbox that the entry has now."""
        return self._entry is entry and self._core is entry.sandbox

    def run_cell(
        self,
        code: str,
        *,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        on_event: Callable[[Event], None] | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        on_cancel: str = "interrupt",
    ) -> CellResult:
        """See `AsyncSandbox.run_cell`. Ctrl-C interrupts the cell where this waits."""
        options: dict[str, Any] = {
            "timeout": timeout,
            "queue_timeout": queue_timeout,
            "on_event": on_event,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": user_expressions,
            "on_cancel": on_cancel,
        }
        if sys._getframe(1).f_code.co_flags & inspect.CO_COROUTINE:
            awaitable: Any = self._await(lambda core: core.run_cell(code, **options))
            return awaitable  # type: ignore[no-any-return]  # the annotation is right for those who wait
        self._entry.used()
        return super().run_cell(code, **options)

    def _run(self, call: Callable[[AsyncSandbox], Awaitable[T]]) -> T:
        if sys._getframe(_CALLER_OF_METHOD).f_code.co_flags & inspect.CO_COROUTINE:
            awaitable: Any = self._await(call)
            return awaitable  # type: ignore[no-any-return]  # the annotation is right for those who wait
        self._entry.used()
        return super()._run(call)

    async def _await(self, call: Callable[[AsyncSandbox], Awaitable[T]]) -> T:
        self._entry.used()
        core = self._async()

        async def run() -> T:
            return await call(core)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), portal_loop()))


def portal_loop() -> asyncio.AbstractEventLoop:
    """The event loop that all sandboxes of this process live on, in a thread of its own."""

    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    return portal().run(running)
