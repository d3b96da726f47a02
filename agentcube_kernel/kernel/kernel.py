"""The kernel: which part answers which message."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from ipykernel._version import kernel_protocol_version
from traitlets import Any as AnyTrait
from traitlets import Bool, default

from ..config import Settings
from ..registry.handover import Handover
from ..registry.registry import Registry
from ..sessions.keeper import Keeper
from ..sessions.kept_sessions import this_notebook
from . import info
from .cell import Cell
from .comms import Comms
from .dispatch import ConcurrentKernel
from .execution import CellRunner
from .failures import Failure
from .history import History
from .interrupts import Interrupts
from .introspection import Introspection
from .local_magics import LocalMagics
from .publishing import Publisher
from .requests import BadRequestError, Request
from .stdin import Stdin
from .usage import Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    Answer = Callable[[Request], Coroutine[Any, Any, dict[str, Any]]]
    Handler = Callable[[Any, list[bytes], dict[str, Any]], Awaitable[None]]

log = logging.getLogger("agentcube_kernel.kernel")

UNASKED_SECONDS = 0.3
"""How long the sandbox's start waits for a front end's first question, which is to be answered without delay."""

SHUTDOWN_SECONDS = 2.0
"""Jupyter kills a kernel 2.5 s after asking it to go."""


class AgentCubeKernel(ConcurrentKernel):
    """A Jupyter kernel whose cells run in an AgentCube sandbox.

    Every request gets a reply, whatever happens to it: what an answer raises becomes a reply with the status error.
    """

    implementation = info.IMPLEMENTATION
    implementation_version = info.version()
    language_info = info.language_info()
    banner = info.banner()

    eager_start = Bool(
        help="Start the sandbox right after the kernel instead of with the first cell "
        "(environment: AGENTCUBE_EAGER_START=0 switches it off).",
    ).tag(config=True)
    show_progress = Bool(
        help="Let the first cell say what it waits for when that takes longer than a few seconds "
        "(environment: AGENTCUBE_PROGRESS=0 switches it off).",
    ).tag(config=True)

    # What IPKernelApp passes to IPython's kernel and this one has no use for.
    iopub_thread = AnyTrait()
    debugpy_stream = AnyTrait()
    user_ns = AnyTrait()

    _execute_sleep = 0  # outputs and replies cannot overtake each other here

    @default("eager_start")
    def _eager_start_default(self) -> bool:
        return bool(Settings.load_one("eager_start"))

    @default("show_progress")
    def _show_progress_default(self) -> bool:
        return bool(Settings.load_one("progress"))

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.help_links = info.HELP_LINKS
        self._in_background = False
        assert self.session is not None
        self._publisher = Publisher(self.session, self.iopub_socket, self._topic)
        self._stdin = Stdin(self.session, self.stdin_socket)
        self._interrupts = Interrupts(self.spawn)
        # Jupyter knows a kernel by its connection file, over restarts too.
        connection_file: str = getattr(self.parent, "abs_connection_file", "")
        keeper = Keeper(connection_file=os.path.abspath(connection_file) if connection_file else None)
        self._handover = Handover(keeper)
        self.registry = Registry(
            keeper,
            notebook=this_notebook(),
            on_background=lambda name, event: self._publisher.forward(event),
            handover=self._handover,
        )
        self._magics = LocalMagics(self.registry)
        self._history = History(parent=self, profile_dir=self.profile_dir)
        self._runner = CellRunner(
            registry=self.registry,
            handover=self._handover,
            magics=self._magics,
            publisher=self._publisher,
            interrupts=self._interrupts,
            show_progress=self.show_progress,
        )
        self._register_answers()

    def _register_answers(self) -> None:
        introspection = Introspection(self.registry, self._magics)
        comms = Comms(registry=self.registry, publisher=self._publisher, interrupts=self._interrupts)
        usage = Usage(self.registry)
        on_both: dict[str, Answer] = {
            "complete_request": introspection.complete,
            "inspect_request": introspection.inspect,
            "is_complete_request": introspection.is_complete,
            "history_request": self._history.answer,
            "comm_info_request": comms.info,
            "kernel_info_request": self._answer_kernel_info,
        }
        on_control: dict[str, Answer] = {
            "usage_request": usage.report,
            "debug_request": _refuse("There is no debugger for code in a sandbox."),
            "create_subshell_request": _refuse("This kernel has no subshells."),
            "delete_subshell_request": _refuse("This kernel has no subshells."),
            "list_subshell_request": _refuse("This kernel has no subshells."),
        }
        for msg_type, answer in on_both.items():
            self.shell_handlers[msg_type] = self._replying(msg_type, answer)
        for msg_type, answer in (on_both | on_control).items():
            self.control_handlers[msg_type] = self._replying(msg_type, self._from_control(answer))
        self.control_handlers["execute_request"] = self._execute_from_control

        async def receive(stream: Any, identities: list[bytes], message: dict[str, Any]) -> None:
            await comms.receive(Request(message, identities))

        for msg_type in ("comm_open", "comm_msg", "comm_close"):
            self.shell_handlers[msg_type] = receive

    def start(self) -> None:
        super().start()
        self.main_loop.call_later(UNASKED_SECONDS, self._begin_background)

    def _begin_background(self) -> None:
        """Do what takes a while, once the front end has been told that the kernel is there."""
        if self._in_background:
            return
        self._in_background = True
        self._handover.claim_soon()
        if self.eager_start:
            self.spawn(self._open_soon())
        self.spawn(asyncio.to_thread(lambda: self._history.manager))

    async def _open_soon(self) -> None:
        (await self.registry.default()).open_soon()

    @property
    def kernel_info(self) -> dict[str, Any]:
        return {
            "protocol_version": kernel_protocol_version,
            "implementation": self.implementation,
            "implementation_version": self.implementation_version,
            "language_info": self.language_info,
            "banner": self.banner,
            "help_links": self.help_links,
            "supported_features": [],
        }

    async def _answer_kernel_info(self, request: Request) -> dict[str, Any]:
        self.main_loop.call_soon(self._begin_background)  # and so after the reply
        return {"status": "ok", **self.kernel_info}

    # Execution

    async def execute_request(self, stream: Any, ident: list[bytes], parent: dict[str, Any]) -> None:
        """Run a cell from the shell channel. The base class' way publishes a count that it cannot know yet."""
        assert self.session is not None
        metadata = self.init_metadata(parent)
        cell, reply = await self._execute(Request(parent, ident))
        self.session.send(stream, "execute_reply", reply, parent, metadata=metadata, ident=ident)
        if cell is not None:
            if reply["status"] == "error" and cell.stop_on_error and not cell.silent:
                self._abort_queues()
            self._history.store(cell)
        await self.registry.note_current()

    async def _execute(self, request: Request) -> tuple[Cell | None, dict[str, Any]]:
        try:
            cell = Cell(request, publisher=self._publisher, stdin=self._stdin)
        except BadRequestError as error:
            return None, {**Failure.of(error).reply, "execution_count": self._runner.execution_count}
        return cell, await self._runner.run(cell)

    async def _execute_from_control(self, stream: Any, ident: list[bytes], parent: dict[str, Any]) -> None:
        assert self.session is not None
        metadata = self.init_metadata(parent)

        async def run(request: Request) -> dict[str, Any]:
            async with self._main_asyncio_lock:
                return (await self._execute(request))[1]

        reply = await self._from_control(run)(Request(parent, ident))
        self.session.send(stream, "execute_reply", reply, parent, metadata=metadata, ident=ident)

    # Interrupts and the end

    async def interrupt_request(self, stream: Any, ident: list[bytes], parent: dict[str, Any]) -> None:
        """Pass the interrupt on and reply at once. Runs in the control thread."""
        assert self.session is not None
        self.interrupt()
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    def interrupt(self) -> None:
        """Interrupt what runs now. Callable from any thread and from a signal handler."""
        self.main_loop.call_soon_threadsafe(self._interrupts.request)

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:
        """End the use of the sandbox: leave it to the next kernel, or delete it. Runs in the control thread."""
        ending = asyncio.run_coroutine_threadsafe(self._end(restart=restart), self.main_loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(ending), SHUTDOWN_SECONDS + 0.2)
        except Exception:
            log.warning("the sandbox was not left in order", exc_info=True)
        return {"status": "ok", "restart": restart}

    def terminate(self) -> None:
        """Shut down because somebody asked by signal. Callable from a signal handler."""
        self.main_loop.call_soon_threadsafe(lambda: self.spawn(self._terminate()))

    async def _terminate(self) -> None:
        await self._end(restart=False)
        self.io_loop.stop()

    async def _end(self, *, restart: bool) -> None:
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await self.registry.end(restart=restart)
        except TimeoutError:
            log.warning("a sandbox could not be left in order within %s s", SHUTDOWN_SECONDS)
        except Exception:
            log.warning("a sandbox was not left in order", exc_info=True)
        try:
            self._history.close()
        except Exception:
            log.warning("the history was not closed in order", exc_info=True)

    # Replies

    def _replying(self, msg_type: str, answer: Answer) -> Handler:
        reply_type = msg_type.removesuffix("_request") + "_reply"

        async def handle(stream: Any, identities: list[bytes], message: dict[str, Any]) -> None:
            assert self.session is not None
            try:
                content = await answer(Request(message, identities))
            except Exception as error:
                log.warning("a %s was not answered", msg_type, exc_info=True)
                content = Failure.of(error).reply
            self.session.send(stream, reply_type, content, message, ident=identities)

        return handle

    def _from_control(self, answer: Answer) -> Answer:
        """The same answer for requests on the control channel, whose handlers run in a thread of their own."""

        async def hop(request: Request) -> dict[str, Any]:
            return await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(answer(request), self.main_loop)
            )

        return hop


def _refuse(reason: str) -> Answer:
    async def refuse(request: Request) -> dict[str, Any]:
        return Failure(ename="NotSupportedError", evalue=reason).reply

    return refuse
