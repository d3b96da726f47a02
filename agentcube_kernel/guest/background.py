"""Whether something of the user's may still speak while no cell runs."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

from . import frames
from .usage import children

if TYPE_CHECKING:
    from collections.abc import Callable

    from .outgoing import Outgoing

_INTERVAL = 1.0


class BackgroundWatch:
    """Tells the supervisor when threads, asyncio tasks or child processes of the user are there, and when no more."""

    def __init__(self, outgoing: Outgoing, is_ours: Callable[[asyncio.Task[object]], bool]) -> None:
        self._outgoing = outgoing
        self._is_ours = is_ours
        self._own_threads = set(threading.enumerate())
        self._live = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Call in the loop when a cell has ended, before its end is told."""
        live = self._has_threads() or self._has_tasks() or _has_children()
        if live != self._live:
            self._live = live
            self._outgoing.frame(frames.LIVE, payload=b"1" if live else b"0")
        if live and self._timer is None:
            self._timer = self._loop.call_later(_INTERVAL, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()

    def _has_threads(self) -> bool:
        # Threads that libraries have started as daemons count too: loggers and progress bars print from those.
        return any(
            thread.is_alive() and thread not in self._own_threads and not _is_idle_loop(thread)
            for thread in threading.enumerate()
        )

    def _has_tasks(self) -> bool:
        return any(not task.done() and not self._is_ours(task) for task in asyncio.all_tasks(self._loop))


def _is_idle_loop(thread: threading.Thread) -> bool:
    """Whether a thread runs nothing but an event loop without tasks, as IPython's for %%bash does ever after."""
    target = getattr(thread, "_target", None)
    loop = getattr(target, "__self__", None)
    if not isinstance(loop, asyncio.AbstractEventLoop) or getattr(target, "__name__", "") != "run_forever":
        return False
    return not asyncio.all_tasks(loop)


def _has_children() -> bool:
    """Whether child processes run; nearly always answered by one system call, since this is asked after every cell."""
    if hasattr(os, "waitid"):
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return False
        if ended is None:
            return True
    return bool(children(os.getpid()))
