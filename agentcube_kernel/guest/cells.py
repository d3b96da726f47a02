"""Running cells: one after the other in the main thread, on a loop that keeps running between them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..channel.protocol import encode_event
from . import frames
from .outgoing import Outgoing, current_cell
from .shell import GuestShell, error_content

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from .comms import Comms
    from .stdin import Stdin
    from .streams import Capture


# Theory of operation: threads, signals and locks of the worker
# ---------------------------------------------------------------
# * The main thread runs the loop, and in it one cell at a time; everything else is in threads: listening to the
#   supervisor, sending (`Outgoing`), answering questions, capturing fd 1 and 2, watching background threads. So a cell
#   can hold the main thread for as long as it likes, and only user code waits for it.
# * SIGINT is the only signal that means something, and its handler runs in the main thread between any two bytecodes.
#   Where user code is on the stack it raises KeyboardInterrupt there. Where the loop has control it cancels the cell's
#   task, and never raises: an exception inside asyncio's own code loses a wake-up, and its task never ends.
#   A loop that user callbacks hog does not come round to cancelling, so a thread sends the signal again until it has.
# * The one lock is `Outgoing`'s. Whoever holds it runs no user code and is not interrupted (`defers_interrupt`): an
#   interrupt that arrives then is raised when the lock is free. Hence a frame is sent whole or not at all.

_TASKS_TAKE_CONTEXTS = (
    "context" in inspect.signature(asyncio.AbstractEventLoop.create_task).parameters
)  # Python 3.11


_HOGGED = 0.5
"""Seconds after which a loop that has not cancelled the interrupted cell counts as hogged."""


class CellRunner:
    """Owns the queue of cells and comm messages, and what an interrupt does to the one that runs."""

    def __init__(
        self, shell: GuestShell, outgoing: Outgoing, capture: Capture, stdin: Stdin, comms: Comms
    ) -> None:
        self.shell, self.outgoing, self.capture, self.stdin, self.comms = (
            shell,
            outgoing,
            capture,
            stdin,
            comms,
        )
        self.loop = asyncio.get_running_loop()
        self.running: str | None = None
        self._pid = os.getpid()
        self._queue: deque[dict[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._comm_tasks: set[asyncio.Task[None]] = set()
        self._server = asyncio.current_task()
        self._context: dict[str, Any] = {"context": copy_context()} if _TASKS_TAKE_CONTEXTS else {}
        self.before_end: Callable[[], None] = lambda: None
        self._cancelling: asyncio.Task[None] | None = None
        self._insistence: queue.SimpleQueue[asyncio.Task[None]] = queue.SimpleQueue()
        threading.Thread(target=self._insist, name="agentcube-interrupts", daemon=True).start()
        signal.signal(signal.SIGINT, self._on_sigint)

    def submit(self, task: dict[str, Any]) -> None:
        """Queue a cell; a comm message is handled at once, also while a cell awaits something.

        Called in the listening thread, like `withdraw`, so that a cell can be taken back while another one holds the
        loop.
        """
        if task.get("kind") == "comm":
            self.loop.call_soon_threadsafe(self._start_comm, task)
        else:
            self._queue.append(task)
            self.loop.call_soon_threadsafe(self._wake.set)

    def _start_comm(self, task: dict[str, Any]) -> None:
        comm_task = self.loop.create_task(self._run_comm(task))
        self._comm_tasks.add(comm_task)
        comm_task.add_done_callback(self._comm_tasks.discard)

    def withdraw(self, cell: str) -> None:
        """Take a cell out of the queue and end it with KeyboardInterrupt, unless it has begun."""
        for task in list(self._queue):
            if task["id"] == cell:
                try:
                    self._queue.remove(task)
                except ValueError:  # the main thread was faster
                    return
                exc = KeyboardInterrupt("interrupted before it began; it was not run")
                reply = {**_failed(exc, self.shell.execution_count), "started": False}
                self.outgoing.frame(frames.DONE, cell, encode_event("execute_reply", reply).encode("ascii"))

    def is_ours(self, task: asyncio.Task[Any]) -> bool:
        """Whether an asyncio task is part of the machinery and not something that a cell has started."""
        return task is self._server or task is self._task or task in self._comm_tasks

    async def serve(self) -> None:
        while True:
            try:
                task = self._queue.popleft()
            except IndexError:
                self._wake.clear()
                if not self._queue:
                    await self._wake.wait()
                continue
            # A task of its own: an interrupt cancels it and not this loop. The context is one for all cells, so that a
            # context variable that one cell sets is there in the next.
            self._task = self.loop.create_task(self._run(task), **self._context)
            try:
                await self._task
            except BaseException as exc:
                self._finish(task["id"], _failed(exc, self.shell.execution_count))
            finally:
                self._task = self._cancelling = self.running = None

    async def _run(self, task: dict[str, Any]) -> None:
        cell = task["id"]
        current_cell.set(cell)
        self.outgoing.latest_cell = cell
        self.shell.last_error = None
        self.shell.failed_to_show = self.shell.displayhook.showing = False
        self.shell.interrupted = False
        # For a silent cell too, of which the host shows nothing: it says that the cell has begun.
        shown = {"code": task["code"], "execution_count": self.shell.execution_count}
        self.outgoing.frame(frames.QUIET, cell, encode_event("execute_input", shown).encode("ascii"))
        self.stdin.allowed = bool(task.get("allow_stdin"))
        self.running = cell
        self.outgoing.frame(frames.BEGIN, cell)
        try:
            reply = await self._run_user_code(task)
        except BaseException as exc:
            reply = self._unexpected(exc)
        finally:
            self.running = None
            if os.getpid() != self._pid:
                _leave_child()
        self._finish(cell, reply)

    def _finish(self, cell: str, reply: dict[str, Any]) -> None:
        try:
            # At once, before the number of a closed descriptor is given to something else.
            self.capture.restore()
            _flush_original_streams()
            self.capture.drain()
            self.before_end()
        except BaseException as exc:
            traceback.print_exception(exc, file=sys.__stderr__)
        self.outgoing.frame(frames.DONE, cell, encode_event("execute_reply", reply).encode("ascii"))

    async def _run_user_code(self, task: dict[str, Any]) -> dict[str, Any]:
        """The frame of this function on the stack tells the interrupt handler that user code runs right now."""
        shell, code, silent = self.shell, task["code"], bool(task.get("silent"))
        failed: Any = None
        try:
            transformed = shell.transform_cell(code)
        except Exception:
            transformed, failed = code, sys.exc_info()
        try:
            result = None
            try:
                result = await shell.run_cell_async(
                    code,
                    store_history=bool(task.get("store_history", True)) and not silent,
                    silent=silent,
                    transformed_cell=transformed,
                    preprocessing_exc_tuple=failed,
                )
            finally:
                if os.getpid() == self._pid:
                    shell.events.trigger("post_execute")
                    if not silent:
                        shell.events.trigger("post_run_cell", result)
            return self._reply(task, result)
        finally:
            failed = None

    def _reply(self, task: dict[str, Any], result: Any) -> dict[str, Any]:
        shell = self.shell
        error = result.error_before_exec or result.error_in_exec
        reply: dict[str, Any] = {"execution_count": shell.execution_count - 1}
        if error is None and result.success and not shell.failed_to_show:
            reply["status"] = "ok"
            reply["user_expressions"] = shell.user_expressions(task.get("user_expressions") or {})
        else:
            reply["status"] = "error"
            reply["user_expressions"] = {}
            if shell.last_error is not None:
                reply.update(shell.last_error)
            else:
                reply.update(error_content(type(error), error, []))
        reply["payload"] = shell.payload_manager.read_payload()
        shell.payload_manager.clear_payload()
        return reply

    def _unexpected(self, exc: BaseException) -> dict[str, Any]:
        """An interrupt that hit IPython's own code, or a fault in it: the cell still ends properly."""
        if self.shell.interrupted and isinstance(exc, asyncio.CancelledError):
            exc = KeyboardInterrupt()
        reply = _failed(exc, self.shell.execution_count)
        self.outgoing.event("error", {key: reply[key] for key in ("ename", "evalue", "traceback")})
        return reply

    async def _run_comm(self, task: dict[str, Any]) -> None:
        current_cell.set(task["id"])
        try:
            self._run_user_callback(task)
        except BaseException as exc:
            reply = _failed(exc, 0)
            self.outgoing.event("error", {key: reply[key] for key in ("ename", "evalue", "traceback")})
        finally:
            if os.getpid() != self._pid:
                _leave_child()
            self.capture.drain()
            self.outgoing.frame(frames.DONE, task["id"], encode_event("comm_reply", {}).encode("ascii"))

    def _run_user_callback(self, task: dict[str, Any]) -> None:
        self.comms.handle(task)

    _user_frames = (_run_user_code.__code__, _run_user_callback.__code__)

    def _on_sigint(self, _signal: int, frame: FrameType | None) -> None:
        """User code on the stack gets KeyboardInterrupt; a cell that awaits is cancelled; else nothing happens.

        Nothing is ever raised into asyncio itself: a callback that is cut off there is a task that never wakes up.
        """
        if self.outgoing.defers_interrupt():
            return
        self.shell.interrupted = True
        if os.getpid() != self._pid or self._runs_user_code(frame):
            raise KeyboardInterrupt
        cell = self._task
        if self.running is None or cell is None:
            return
        if self._cancelling is not cell:
            self._cancelling = cell
            self.loop.call_soon_threadsafe(self._cancel, cell)
            self._insistence.put(cell)
        elif frame is not None and not str(frame.f_globals.get("__name__")).startswith("asyncio"):
            # Something that the cell has started hogs the loop, which therefore has not cancelled the cell yet.
            raise KeyboardInterrupt

    def _runs_user_code(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code in self._user_frames:
                return True
            frame = frame.f_back
        return False

    def _cancel(self, cell: asyncio.Task[None]) -> None:
        self._cancelling = None
        cell.cancel()

    def _insist(self) -> None:
        """In a thread: send the interrupt again while the loop does not come round to cancelling the cell."""
        while True:
            cell = self._insistence.get()
            while self._cancelling is cell:
                time.sleep(_HOGGED)
                if self._cancelling is cell:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _failed(exc: BaseException, count: int) -> dict[str, Any]:
    lines = traceback.format_exception(type(exc), exc, exc.__traceback__)
    content = error_content(type(exc), exc, [line.rstrip("\n") for line in lines])
    return {"status": "error", "execution_count": count - 1, "user_expressions": {}, "payload": [], **content}


def _flush_original_streams() -> None:
    """What C-level or redirected prints have left in the buffers of the process's own streams belongs to this cell."""
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue


def _leave_child() -> None:
    """End a child that a cell has forked and that came back from the cell: only the parent is the interpreter."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        # A cell may have put anything in their place.
        with contextlib.suppress(Exception):
            if stream is not None:
                stream.flush()
    os._exit(0)
