"""Shell cells for sandboxes without a python3 that would do: run as plain commands, without a guest."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import AgentCubeError, ClientStateError
from .cell_run import CellRun
from .event_stream import EventStream
from .exit import admit
from .protocol import Event
from .trust import Trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..results import CommandResult

_MAGIC = re.compile(r"%%(bash|sh)[ \t]*\n(.*)", re.DOTALL)
_TIMEOUT = 600.0


class _Executes(Protocol):
    async def execute(self, command: Sequence[str], *, timeout: float | None = None) -> CommandResult: ...


def shell_command(code: str) -> list[str] | None:
    """The command of a cell that is all shell, or None: `%%bash`, `%%sh`, or nothing but `!` lines."""
    match = _MAGIC.fullmatch(code.lstrip())
    if match is not None:
        return [match[1], "-c", match[2]]
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    if lines and all(line.startswith("!") and not line.startswith("!!") for line in lines):
        return ["sh", "-c", "\n".join(line[1:] for line in lines)]
    return None


def start_shell_cell(runner: _Executes, command: list[str], cell_id: str, *, silent: bool = False) -> CellRun:
    """Begin to run the command. Output comes when it has ended.

    An interrupted or left cell is no longer waited for; its command may run on in the sandbox.
    """
    stream = EventStream(cell_id)
    return CellRun(stream, _ShellCell(runner, command, stream), silent=silent, started=True)


class _ShellCell:
    """One command whose end is waited for, as the control of its `CellRun`."""

    def __init__(self, runner: _Executes, command: list[str], stream: EventStream) -> None:
        self._runner, self._command, self._stream = runner, command, stream
        self._task = asyncio.get_running_loop().create_task(self._run(), name="agentcube-shell-cell")

    async def answer(self, cell_id: str, text: str | None) -> None:
        raise ClientStateError("A shell command in a sandbox without python3 asks nothing.")

    async def interrupt(self, cell_id: str | None) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._stream.over:
            self._end(
                "KeyboardInterrupt", "The command is no longer waited for; it may run on in the sandbox."
            )

    def leave(self, cell_id: str) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        try:
            result = await self._runner.execute(self._command, timeout=_TIMEOUT)
        except AgentCubeError as error:
            self._stream.fail(error)
            return
        for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
            if text:
                self._put("stream", name=name, text=text)
        if result.exit_code == 0:
            self._end(None, "")
        else:
            self._end("CalledProcessError", f"The command ended with exit code {result.exit_code}.")

    def _end(self, ename: str | None, evalue: str) -> None:
        reply: dict[str, Any] = {"execution_count": 0, "user_expressions": {}, "payload": []}
        if ename is None:
            self._put("execute_reply", status="ok", **reply)
        else:
            failure = {"ename": ename, "evalue": evalue, "traceback": [f"{ename}: {evalue}"]}
            self._put("error", **failure)
            self._put("execute_reply", status="error", **reply, **failure)
        self._stream.finish()

    def _put(self, type: str, **content: Any) -> None:
        # Nothing in it is for a policy: text, and a reply of our own.
        event = admit(Event(type=type, content=content, cell_id=self._stream.id), Trust.OFF)
        assert event is not None
        self._stream.put(event)
