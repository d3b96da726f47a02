"""Running a cell in one or several named sandboxes, and showing which output is whose."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..channel.cell_wait import wait_for_cell
from ..channel.events import Form, event_type
from ..errors import AgentCubeError
from ..frontend.waiting import told_of_waiting
from .usage import remote_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..channel.cell_run import CellRun
    from ..channel.protocol import Event
    from ..frontend.host import Host
    from ..registry.entry import Entry
    from ..sandbox import AsyncSandbox

log = logging.getLogger("agentcube_kernel.magics")

_EXIT_CODE = re.compile(r"exit (?:status|code) (-?\d+)")
_WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEnd:
    """How a cell ended in one sandbox."""

    name: str
    session_id: str | None
    execution_count: int = 0
    has_result: bool = False
    error: AgentCubeError | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return self.error is None


@dataclass(slots=True, kw_only=True)
class NamedCell:
    """One cell for one named sandbox."""

    entry: Entry
    code: str
    display: Display
    timeout: float | None = None
    """Seconds from the cell's beginning."""
    script: bool = False
    """Whether the code is a shell script."""
    on_start: Callable[[], None] = lambda: None
    """Called when the sandbox is there and the cell is sent."""

    async def run(self) -> CellEnd:
        """Run to the cell's end. What goes wrong is in the result; only a cancellation is raised.

        A cancelled call has interrupted the cell and waited for its end, or for as long as it is worth.
        """
        try:
            sandbox = await self.entry.open(self.display.step)
            self.on_start()
            run = await sandbox.start_cell(self.code, allow_stdin=self.display.host.allow_stdin)
            return await wait_for_cell(
                run,
                self._show(sandbox, run),
                timeout=self.timeout,
                patience=sandbox.timings.interrupt,
                grace=sandbox.timings.interrupt,
                session_id=sandbox.session_id,
            )
        except AgentCubeError as error:
            return CellEnd(name=self.entry.name, session_id=self.entry.session_id, error=error)
        finally:
            self.display.finish()

    async def _show(self, sandbox: AsyncSandbox, run: CellRun) -> CellEnd:
        reply: dict[str, Any] = {}
        has_result = False
        answers: set[asyncio.Task[None]] = set()
        try:
            async with told_of_waiting(sandbox, run, self.display.note), aclosing(run.events()) as events:
                async for event in events:
                    if event.type == "execute_reply":
                        reply = event.content
                    elif event.type == "input_request":
                        answers.add(asyncio.create_task(self._answer(run, event)))
                    else:
                        has_result = has_result or event.type == "execute_result"
                        self.display.show(event)
                        await self.display.host.drain()
        finally:
            for task in answers:
                task.cancel()
        self.entry.used()
        return CellEnd(
            name=self.entry.name,
            session_id=sandbox.session_id,
            execution_count=reply["execution_count"],
            has_result=has_result,
            error=None if reply["status"] == "ok" else self._failure(reply, sandbox),
        )

    def _failure(self, reply: Mapping[str, Any], sandbox: AsyncSandbox) -> AgentCubeError:
        ename, evalue = str(reply.get("ename")), str(reply.get("evalue"))
        traceback = [str(line) for line in reply.get("traceback") or ()]
        exit_code = _EXIT_CODE.search(evalue) if self.script and ename == "CalledProcessError" else None
        if exit_code is not None:
            # The traceback leads through IPython, and the message quotes the whole script.
            evalue = f"the script ended with exit code {exit_code[1]}"
            traceback = [f"{ename}: {evalue}"]
        return remote_error(ename=ename, evalue=evalue, traceback=traceback, session_id=sandbox.session_id)

    async def _answer(self, run: CellRun, event: Event) -> None:
        prompt, password = str(event.content.get("prompt", "")), event.content.get("password") is True
        label = f"[{self.entry.name}] " if self.display.label else ""
        value = await self.display.host.ask(label + prompt, password=password)
        try:
            await run.answer(value)
        except AgentCubeError as error:
            log.warning("an answer could not be delivered: %s", error)


class Display:
    """The outputs of one sandbox among those of others: where they are mixed, each says whose it is."""

    def __init__(self, host: Host, name: str, *, label: bool, step: Callable[[str], None]) -> None:
        self.host = host
        self.name = name
        self.label = label
        self.step = step
        self._partial: dict[str, str] = {}

    def note(self, text: str) -> None:
        """Say something beside the output."""
        if not self.host.quiet:
            self.host.publish("stream", {"name": "stderr", "text": f"[{self.name}] {text}\n"})

    def show(self, event: Event) -> None:
        """Show one event of the sandbox. Errors are not shown here: they end the cell."""
        row = event_type(event.type)
        if row is None or not row.in_cells:
            return
        if row.form is Form.TEXT:
            self._stream(event.content["name"], event.content["text"])
        elif row.form is Form.BUNDLE:
            self._bundle(event)
        elif row.form is not Form.CLEAR or not self.label:  # it would clear what others have put out
            self.host.publish(event.type, event.content, metadata=event.metadata, buffers=event.buffers)

    def _stream(self, name: str, text: str) -> None:
        if self.label:
            *lines, rest = (self._partial.pop(name, "") + text).split("\n")
            if rest:
                self._partial[name] = rest
            text = "".join(f"[{self.name}] {line}\n" for line in lines)
        if text:
            self.host.publish("stream", {"name": name, "text": text})

    def _bundle(self, event: Event) -> None:
        content = dict(event.content)
        self.finish()
        if self.label and event.type != "update_display_data":
            self.host.publish("stream", {"name": "stdout", "text": f"[{self.name}]\n"})
        # A widget's other half would have to talk to the sandbox, which only plain cells of the kernel can.
        content["data"] = {mime: value for mime, value in content["data"].items() if mime != _WIDGET}
        content["transient"] = self._own_display_id(content.get("transient") or {})
        kind = "display_data" if event.type == "execute_result" else event.type
        content.pop("execution_count", None)
        self.host.publish(kind, content, metadata=event.metadata, buffers=event.buffers)

    def _own_display_id(self, transient: Mapping[str, Any]) -> dict[str, Any]:
        """A sandbox updates its own displays only, not those of others or of the notebook."""
        display_id = transient.get("display_id")
        return {"display_id": f"{self.name}:{display_id}"} if isinstance(display_id, str) else {}

    def finish(self) -> None:
        """Show what has come of lines that have not ended."""
        for name, text in self._partial.items():
            self.host.publish("stream", {"name": name, "text": f"[{self.name}] {text}\n"})
        self._partial.clear()


async def run_everywhere(runs: Sequence[NamedCell]) -> list[CellEnd]:
    """Run the same cell in all sandboxes at once; results are in the order of `runs`.

    A cancelled call has interrupted every one of them.
    """
    tasks = [asyncio.get_running_loop().create_task(run.run()) for run in runs]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
    return [task.result() for task in tasks]
