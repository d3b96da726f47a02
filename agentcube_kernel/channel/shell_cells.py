"""Shell cells for sandboxes without a python3 that would do: run as plain commands, without a guest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from .gate import admit
from .protocol import Event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

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


async def stream_shell_cell(
    runner: _Executes, command: list[str], cell_id: str
) -> AsyncGenerator[Event, None]:
    """Run the command and yield its output and the end of the cell. Output comes when the command has ended.

    Raises what `execute` raises. A cancelled call leaves the command running in the sandbox.
    """

    def event(type: str, **content: Any) -> Event:
        return admit(Event(type=type, content=content, cell_id=cell_id))

    result = await runner.execute(command, timeout=_TIMEOUT)
    for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if text:
            yield event("stream", name=name, text=text)
    reply: dict[str, Any] = {"execution_count": 0, "user_expressions": {}, "payload": []}
    if result.exit_code == 0:
        yield event("execute_reply", status="ok", **reply)
        return
    failure = {
        "ename": "CalledProcessError",
        "evalue": f"The command ended with exit code {result.exit_code}.",
        "traceback": [f"CalledProcessError: the command ended with exit code {result.exit_code}."],
    }
    yield event("error", **failure)
    yield event("execute_reply", status="error", **reply, **failure)
