"""Running a cell in one or several named sandboxes, and showing which output is whose."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError, CellTimeoutError, GuestLostError
from ..frontend.waiting import told_of_waiting
from .usage import remote_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..channel.protocol import Event
    from ..sandbox import AsyncSandbox
    from .host import Host
    from .sandboxes import Entry

log = logging.getLogger("agentcube_kernel.magics")

"""Seconds that an interrupted cell gets to end, before it is no longer waited for."""

_EXIT_CODE = re.compile(r"exit (?:status|code) (-?\d+)")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_SHOWN = frozenset({"display_data", "update_display_data", "execute_result", "error", "clear_output"})


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
class CellRun:
    """One cell in one sandbox, on its way."""

    entry: Entry
    code: str
    display: Display
    timeout: float | None = None
    script: bool = False
    """Whether the code is a shell script."""
    on_start: Callable[[], None] = lambda: None
    """Called when the sandbox is there and the cell is sent."""
    cell_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def run(self) -> CellEnd:
        """Run to the cell's end. What goes wrong is in the result; only a cancellation is raised.

        A cancelled call has interrupted the cell and waited for its end, or for as long as it is worth.
        """
        try:
            sandbox = await self.entry.open(self.display.step)
            self.on_start()
            pump = asyncio.get_running_loop().create_task(self._pump(sandbox))
            return await self._attend(sandbox, pump)
        except AgentCubeError as error:
            return CellEnd(name=self.entry.name, session_id=self.entry.session_id, error=error)
        finally:
            self.display.finish()

    async def _attend(self, sandbox: AsyncSandbox, pump: asyncio.Task[CellEnd]) -> CellEnd:
        try:
            done, _ = await asyncio.wait({pump}, timeout=self.timeout)
        except asyncio.CancelledError:
            await self._stop(sandbox, pump)
            raise
        if done:
            return pump.result()
        stopped = await self._stop(sandbox, pump)
        what = "was interrupted" if stopped else "does not react to an interrupt; `%sandbox restart` ends it"
        assert self.timeout is not None
        return CellEnd(
            name=self.entry.name,
            session_id=sandbox.session_id,
            error=CellTimeoutError(
                f"The cell did not end within {self.timeout:g} s and {what}. Variables are kept.",
                timeout=self.timeout,
                session_id=sandbox.session_id,
            ),
        )

    async def _stop(self, sandbox: AsyncSandbox, pump: asyncio.Task[CellEnd]) -> bool:
        """Interrupt the cell and show what it still says; whether it has ended."""
        with contextlib.suppress(AgentCubeError, TimeoutError):
            async with asyncio.timeout(sandbox.timings.interrupt):
                await sandbox.interrupt()
        done, _ = await asyncio.wait({pump}, timeout=sandbox.timings.interrupt)
        if not done:
            pump.cancel()
            await asyncio.wait({pump})
        elif not pump.cancelled():
            pump.exception()
        return bool(done)

    async def _pump(self, sandbox: AsyncSandbox) -> CellEnd:
        reply: dict[str, Any] | None = None
        has_result = False
        answers: set[asyncio.Task[None]] = set()
        stream = sandbox.stream_cell(
            self.code, cell_id=self.cell_id, allow_stdin=self.display.host.allow_stdin
        )
        try:
            async with (
                told_of_waiting(sandbox, self.cell_id, self.display.note) as started,
                aclosing(stream) as events,
            ):
                async for event in events:
                    started()
                    if event.type == "execute_reply":
                        reply = event.content
                    elif event.type == "input_request":
                        answers.add(asyncio.create_task(self._answer(sandbox, event)))
                    else:
                        has_result = has_result or event.type == "execute_result"
                        self.display.show(event)
                        await self.display.host.drain()
        finally:
            for task in answers:
                task.cancel()
        self.entry.used()
        if reply is None:
            raise GuestLostError(
                "The sandbox stopped talking in the middle of the cell.", session_id=sandbox.session_id
            )
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

    async def _answer(self, sandbox: AsyncSandbox, event: Event) -> None:
        prompt, password = str(event.content.get("prompt", "")), event.content.get("password") is True
        label = f"[{self.entry.name}] " if self.display.label else ""
        value = await self.display.host.ask(label + prompt, password=password)
        try:
            await sandbox.send_input(value, cell_id=self.cell_id)
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
        if event.type == "stream":
            self._stream(event.content["name"], event.content["text"])
        elif event.type in _SHOWN and event.type != "error":
            self._rich(event)

    def _stream(self, name: str, text: str) -> None:
        if self.label:
            *lines, rest = (self._partial.pop(name, "") + text).split("\n")
            if rest:
                self._partial[name] = rest
            text = "".join(f"[{self.name}] {line}\n" for line in lines)
        if text:
            self.host.publish("stream", {"name": name, "text": text})

    def _rich(self, event: Event) -> None:
        content = dict(event.content)
        if event.type == "clear_output":
            if not self.label:  # it would clear what others have put out
                self.host.publish("clear_output", content)
            return
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


async def run_everywhere(runs: Sequence[CellRun]) -> list[CellEnd]:
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
