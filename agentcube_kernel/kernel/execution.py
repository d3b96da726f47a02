"""Running a cell: from an execute request to its reply."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError, GuestStartError
from ..frontend.progress import Progress
from ..frontend.waiting import told_of_waiting
from .failures import Failure
from .local_magics import may_concern

if TYPE_CHECKING:
    from ..channel.cell_run import CellRun
    from ..channel.protocol import Event
    from ..registry.handover import Handover
    from ..registry.registry import Registry
    from ..sandbox import AsyncSandbox
    from .cell import Cell
    from .interrupts import Execution, Interrupts
    from .local_magics import LocalMagics
    from .publishing import Publisher

log = logging.getLogger("agentcube_kernel.kernel")

START_PATIENCE = 3.0
"""Seconds for which a start shows nothing: most are over by then."""


class CellRunner:
    """Runs cells in the kernel's current sandbox, one at a time."""

    def __init__(
        self,
        *,
        registry: Registry,
        handover: Handover,
        magics: LocalMagics,
        publisher: Publisher,
        interrupts: Interrupts,
        show_progress: bool,
    ) -> None:
        self._registry = registry
        self._handover = handover
        self._magics = magics
        self._publisher = publisher
        self._interrupts = interrupts
        self._show_progress = show_progress
        self.execution_count = 0

    async def run(self, cell: Cell) -> dict[str, Any]:
        """Run the cell, publish what it puts out, and return the content of its `execute_reply`.

        Whatever goes wrong becomes an `error` message and a reply that says the same. Only a cancellation that no
        interrupt asked for is raised.
        """
        self._publisher.remember(cell.request)
        with self._interrupts.watch() as execution:
            try:
                return await self._run(cell, execution)
            except asyncio.CancelledError:
                if execution.failure is None:
                    raise
                execution.task.uncancel()
                failure = execution.failure
            except AgentCubeError as error:
                failure = Failure.of(error)
            except Exception as error:
                log.exception("a cell could not be run")
                failure = Failure.of(error)
        return self._fail(cell, failure)

    async def _run(self, cell: Cell, execution: Execution) -> dict[str, Any]:
        code: str | None = cell.code
        if may_concern(cell.code):
            execution.dropped = ""
            code = await self._magics.run(cell.code, cell)
        if code is None or (not cell.user_expressions and not code.strip()):
            return self._nothing_to_run(cell)
        execution.dropped = "nothing was run in a sandbox"
        sandbox = self._registry.ready or await self._start(cell, code)
        execution.target = sandbox
        if self._handover.has_news:
            await self._tell_news(cell, execution, sandbox)
        with self._handover.waiting_for(cell.id):
            return await self._follow(cell, execution, sandbox, code)

    async def _start(self, cell: Cell, code: str) -> AsyncSandbox:
        progress = Progress(
            cell,
            "Waiting for the sandbox",
            patience=START_PATIENCE if self._show_progress else math.inf,
            done="The sandbox is ready",
            failed="The sandbox did not start",
        )
        entry = await self._registry.default()
        try:
            async with progress:
                return await entry.open(progress.step)
        except GuestStartError:
            from ..channel.shell_cells import shell_command

            if entry.sandbox is None or shell_command(code) is None:
                raise
            return entry.sandbox  # without an interpreter, but a shell is all that this cell needs

    async def _tell_news(self, cell: Cell, execution: Execution, sandbox: AsyncSandbox) -> None:
        """Say what became of the kernel before this one, and show what its last cell has put out since."""
        for line in self._handover.take_news():
            if not cell.silent:
                cell.note(line)
        async with aclosing(self._handover.stream_unseen(sandbox)) as events:
            async for event in events:
                self._publisher.forward(event, cell.request.message)
        if execution.interrupted:
            # It was meant for the cell that still ran, and that is over now; the user wants to see it stop here.
            execution.abandon(Failure(ename="KeyboardInterrupt", evalue="this cell was not run"))
            await asyncio.sleep(0)

    async def _follow(
        self, cell: Cell, execution: Execution, sandbox: AsyncSandbox, code: str
    ) -> dict[str, Any]:
        run = await sandbox.start_cell(
            code,
            cell_id=cell.id,
            silent=cell.silent,
            store_history=cell.store_history,
            user_expressions=cell.user_expressions,
            allow_stdin=cell.allow_stdin,
        )
        execution.target = run
        if execution.interrupted:  # before there was a cell to interrupt
            self._interrupts.forward(execution, run)
        try:
            async with told_of_waiting(sandbox, run, tell=cell.note_unless_silent):
                reply = await self._read(cell, run)
        finally:
            run.leave()
        cell.announce(self.execution_count + 1)  # a cell without an interpreter has not been counted
        return self._reply(cell, reply)

    async def _read(self, cell: Cell, run: CellRun) -> dict[str, Any]:
        """Show what the cell puts out until its end, and return the content of its reply."""
        answering: asyncio.Task[None] | None = None
        reply: dict[str, Any] = {}
        try:
            async with aclosing(run.events()) as events:
                async for event in events:
                    if event.type == "execute_reply":
                        reply = event.content
                    elif event.type == "execute_input":
                        cell.number = event.content["execution_count"]
                        cell.announce(cell.number)
                    elif event.type == "input_request":
                        if answering is not None:
                            answering.cancel()  # an interrupt took the question back
                        answering = asyncio.create_task(self._answer(cell, run, event))
                    else:
                        self._output(cell, event)
        finally:
            if answering is not None:
                answering.cancel()
        return reply

    def _output(self, cell: Cell, event: Event) -> None:
        if event.type == "error":
            cell.failed = True
            if not event.content["traceback"]:
                cell.publish("error", _visible(event.content))
                return
        if event.type == "execute_result":
            text = event.content.get("data", {}).get("text/plain")
            cell.result = text if isinstance(text, str) else None
        self._publisher.forward(event, cell.request.message)

    async def _answer(self, cell: Cell, run: CellRun, event: Event) -> None:
        content = event.content
        value = await cell.ask(str(content.get("prompt", "")), password=bool(content.get("password")))
        try:
            await run.answer(value)
        except AgentCubeError as error:
            log.warning("an answer could not be delivered: %s", error)
            cell.note(f"What you typed could not be delivered: {error}")

    def _reply(self, cell: Cell, content: dict[str, Any]) -> dict[str, Any]:
        self.execution_count = content["execution_count"]
        reply = {
            "status": content["status"],
            "execution_count": self.execution_count,
            "user_expressions": content.get("user_expressions", {}),
            "payload": content.get("payload", []),
        }
        if content["status"] == "error":
            reply |= (error := _visible(content))
            if not (cell.failed or cell.silent):  # an interrupt can hit between a cell and its error
                cell.publish("error", error)
        return reply

    def _nothing_to_run(self, cell: Cell) -> dict[str, Any]:
        # Nothing was counted in the sandbox; the number shown is the one that the next cell gets, as in IPython.
        cell.announce(self.execution_count + 1)
        return {
            "status": "ok",
            "execution_count": self.execution_count,
            "user_expressions": {},
            "payload": [],
        }

    def _fail(self, cell: Cell, failure: Failure) -> dict[str, Any]:
        cell.announce(self.execution_count + 1)
        if not cell.silent:
            cell.publish("error", failure.content)
        return {
            **failure.reply,
            "execution_count": cell.announced or self.execution_count,
            "user_expressions": {},
            "payload": [],
        }


def _visible(error: dict[str, Any]) -> dict[str, Any]:
    """The content of an error with a traceback in any case: that is all that front ends show of it."""
    return Failure(
        ename=error["ename"], evalue=error["evalue"], traceback=tuple(error.get("traceback", ()))
    ).content
