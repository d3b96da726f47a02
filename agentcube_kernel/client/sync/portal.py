"""One event loop in a thread of its own, on which every synchronous client does its work.

It is started when first used, so importing and constructing cost nothing, and a program that runs an event loop
itself (Jupyter, uvloop, one that nest_asyncio has patched) is not touched by it.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ...errors import ClientStateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

T = TypeVar("T")

# How long a call that was interrupted may take to tidy up before the interrupt goes on without it.
_GRACE = 5.0
_EXIT_GRACE = 5.0
# Locks cannot be interrupted on Windows; waiting in short steps lets Ctrl-C through.
_TICK: Final = 0.1 if sys.platform == "win32" else None


class _End:
    """Marks the end of an iteration."""


class _Job(Generic[T]):
    """One call on the loop, which can be cancelled from the moment that this object is there.

    An interrupt can hit the caller while it hands the call over, and then neither knows whether it will run. The end
    is known apart from the result: a cancelled future tells only the latter.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended = threading.Event()
        self._given_up = False
        self._task: asyncio.Task[Any] | None = None

    def start(self, call: Callable[[], Awaitable[T]]) -> None:
        """Hand the call over."""
        self._future = asyncio.run_coroutine_threadsafe(self._run(call), self._loop)

    async def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        self._task = asyncio.current_task()
        try:
            if self._given_up:
                raise asyncio.CancelledError
            return await call()
        finally:
            self._ended.set()

    def wait(self) -> T:
        """The result."""
        while True:
            try:
                return self._future.result(_TICK)
            except concurrent.futures.TimeoutError:
                # The call's own TimeoutError is the same class.
                if self._future.done():
                    raise

    def cancel(self) -> None:
        """Cancel the call if it has not ended, and wait for its end for a few seconds."""
        self._given_up = True
        if not self._ended.is_set():
            # In the second turn of the loop it is known whether the call was handed over.
            self._loop.call_soon_threadsafe(self._loop.call_soon, self._cancel)
            self._ended.wait(_GRACE)

    def _cancel(self) -> None:
        if self._task is None:
            self._ended.set()
        else:
            self._task.cancel()


class Portal:
    """A thread with a running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._on_exit: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        self._thread = threading.Thread(target=self._run_loop, name="agentcube-portal", daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await `call()` on the loop and return its result, with the caller's context variables.

        When the wait is interrupted, by Ctrl-C for example, the call is cancelled and given a few seconds to end
        before the interrupt goes on.

        Raises:
            ClientStateError: called on the loop's own thread, which would wait for itself.
        """
        job: _Job[T] = self._new_job()
        try:
            job.start(call)
            return job.wait()
        except BaseException:
            job.cancel()
            raise

    def iterate(self, iterate: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """The items of an asynchronous iterator, which is closed when this one is.

        It runs in one task, since timeouts and cancel scopes in it belong to a task, and is at most one item ahead.
        """
        items: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        asked = asyncio.Semaphore(0)

        async def pump() -> None:
            try:
                source = iterate()
                try:
                    async for item in source:
                        items.put(item)
                        await asked.acquire()
                finally:
                    close = getattr(source, "aclose", None)
                    if close is not None:
                        await close()
            finally:
                items.put(_End())

        job = self._new_job()
        try:
            job.start(pump)
            while not isinstance(item := _take(items), _End):
                yield item
                self._loop.call_soon_threadsafe(asked.release)
            job.wait()
        finally:
            job.cancel()

    def at_exit(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have `close()` awaited on the loop before it ends."""
        self._on_exit.add(close)

    def not_at_exit(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Take `at_exit` back."""
        self._on_exit.discard(close)

    def close(self) -> None:
        """Close what is still open, and end the loop and its thread."""
        if not self._thread.is_alive():
            return
        future = asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop)
        with contextlib.suppress(Exception):
            future.result(_EXIT_GRACE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_EXIT_GRACE)

    async def _shut_down(self) -> None:
        await asyncio.gather(*(close() for close in tuple(self._on_exit)), return_exceptions=True)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def _new_job(self) -> _Job[Any]:
        if threading.current_thread() is self._thread:
            raise ClientStateError(
                "A synchronous client was used in a callback of a client. Use the asynchronous client there."
            )
        if not self._thread.is_alive():
            raise ClientStateError("The interpreter is shutting down.")
        return _Job(self._loop)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


_lock = threading.Lock()
_portal: Portal | None = None


def portal() -> Portal:
    """This process's portal."""
    global _portal
    with _lock:
        if _portal is None:
            _portal = Portal()
            atexit.register(_portal.close)
        return _portal


def _forget() -> None:
    """A fork has no threads but the one that forked: the child starts a portal of its own when it needs one."""
    global _portal, _lock
    _lock = threading.Lock()
    if _portal is not None:
        atexit.unregister(_portal.close)
        _inherited.append(_portal)
        _portal = None


# Kept so that the parent's loop and sockets are not finalised in the child.
_inherited: list[Portal] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _take(items: queue.SimpleQueue[T]) -> T:
    while True:
        try:
            return items.get(timeout=_TICK)
        except queue.Empty:
            continue
