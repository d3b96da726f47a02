"""A kernel whose shell channel goes on answering while a cell runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import zmq
from ipykernel.kernelbase import Kernel

from .tasks import OwnedTasks

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tornado.platform.asyncio import BaseAsyncIOLoop

log = logging.getLogger("agentcube_kernel.kernel")

COMM_TYPES = frozenset({"comm_open", "comm_msg", "comm_close"})
CONCURRENT_TYPES = COMM_TYPES | {
    "comm_info_request",
    "complete_request",
    "connect_request",
    "history_request",
    "inspect_request",
    "is_complete_request",
    "kernel_info_request",
}
"""What is handled at once. Everything else on the shell channel takes turns."""


class ConcurrentKernel(Kernel):
    """Handles execute requests one after the other and everything else as it comes.

    The base class makes every shell message wait for the running cell, because there the cell has the thread. Here the
    cell is in a sandbox and this thread is free. Messages are taken straight from the shell socket in the main thread;
    the base class' detour over another thread exists for subshells, which this kernel does not offer.

    Comm messages are handled in their order, and a cell waits for those that came before it: a cell that is run right
    after a slider was moved sees the slider's new value.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tasks = OwnedTasks()
        self._comm_lock = asyncio.Lock()
        self._running: dict[str, Any] | None = None

    @property
    def main_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the main thread, where everything but the control channel's handlers runs."""
        return cast("BaseAsyncIOLoop", self.io_loop).asyncio_loop

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that the kernel owns. To be called in the main thread."""
        return self._tasks.spawn(coroutine, self.main_loop)

    def start(self) -> None:
        super().start()
        assert self.shell_stream is not None
        self.shell_stream.on_recv(self._receive, copy=False)

    def pre_handler_hook(self) -> None:
        """Leave SIGINT alone: the base class would turn it into a KeyboardInterrupt that ends this process."""

    def post_handler_hook(self) -> None:
        """See `pre_handler_hook`."""

    def _receive(self, frames: list[Any]) -> None:
        # Not a coroutine: tasks have to be made in the order in which messages came, also when the socket is flushed.
        assert self.session is not None
        try:
            identities, rest = self.session.feed_identities(frames, copy=False)
            peeked = self.session.deserialize(rest, content=False, copy=False)
            header = peeked["header"]
            msg_type = header["msg_type"]
        except Exception:
            log.warning("a message that is not one was left out", exc_info=True)
            return
        if header.get("subshell_id") is not None:
            self._refuse_subshell(identities, header)
        elif msg_type in CONCURRENT_TYPES:
            self.spawn(self._dispatch_now(frames, header))
        else:
            self.spawn(self._dispatch_in_turn(frames, header))

    async def _dispatch_now(self, frames: list[Any], header: dict[str, Any]) -> None:
        parent = {"header": header}
        self._publish_status("busy", "shell", parent=parent)
        try:
            if header["msg_type"] in COMM_TYPES:
                async with self._comm_lock:
                    await self.dispatch_shell(frames, concurrent=True)
            else:
                await self.dispatch_shell(frames, concurrent=True)
        finally:
            self._publish_status("idle", "shell", parent=parent)
            if self._running is not None:
                # Front ends show the last status that they saw, whomever it was about.
                self._publish_status("busy", "shell", parent=self._running)

    async def _dispatch_in_turn(self, frames: list[Any], header: dict[str, Any]) -> None:
        async with self._main_asyncio_lock:
            if self._comm_lock.locked():
                async with self._comm_lock:
                    pass
            self._running = {"header": header}
            try:
                await self.dispatch_shell(frames)
            finally:
                self._running = None

    def _refuse_subshell(self, identities: list[bytes], header: dict[str, Any]) -> None:
        from ipykernel.subshell_manager import UnknownSubshellError

        self._send_unknown_subshell_reply(
            identities, {"header": header}, UnknownSubshellError(header["subshell_id"])
        )

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        """Abort the execute requests that wait now, as the base class does."""
        assert self.shell_stream is not None
        self._aborting = True
        self.shell_stream.flush(zmq.POLLIN)
        self.spawn(self._stop_aborting())

    async def _stop_aborting(self) -> None:
        if self.stop_on_error_timeout:
            await asyncio.sleep(self.stop_on_error_timeout)
        # The lock is first come, first served: by the time it is ours, everything that waited has been aborted.
        async with self._main_asyncio_lock:
            self._aborting = False
