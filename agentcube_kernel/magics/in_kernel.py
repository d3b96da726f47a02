"""The magics in the AgentCube kernel, where plain cells run in the current sandbox."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError
from .completion import candidates, local_paths, remote_names
from .dispatch import Context, run_cell_magic, run_line
from .usage import UsageError
from .variables import SandboxVariables

if TYPE_CHECKING:
    from ..frontend.host import Host
    from ..registry.registry import Registry

_LINE = re.compile(r"[ \t]*%sandbox(?![\w%])(?P<rest>[^\n]*)(?:\n|$)")
_CELL = re.compile(r"\s*%%sandbox(?!\w)(?P<line>[^\n]*)(?:\n(?P<body>.*))?$", re.DOTALL)
_HELP = re.compile(r"\s*(\?{1,2}%{1,2}sandbox|%{1,2}sandbox\?{1,2})\s*$")
_NOTHING = re.compile(r"[ \t]*(#[^\n]*)?(?:\n|$)")
# The magics are here already; in a sandbox there is no such extension.
_LOAD = re.compile(r"[ \t]*%(re)?load_ext[ \t]+agentcube_kernel[ \t]*(?:\n|$)")


class KernelMagics:
    """Runs the `%sandbox` lines at the top of a cell, and `%%sandbox` cells."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def run(self, code: str, host: Host) -> str | None:
        """Run our lines and return the code that remains for the current sandbox, or None for nothing.

        A cancelled call has been interrupted by the user, and leaves things as they were.

        Raises:
            UsageError: a line cannot be done as it stands.
            AgentCubeError: what a command or a `%%sandbox` cell raises.
        """
        ours, rest = parse(code)
        for line, body in ours:
            # An earlier line may have changed which sandbox is the current one.
            variables = SandboxVariables(await self._registry.default())
            context = Context(registry=self._registry, host=host, variables=variables)
            if body is None:
                await self._answer(line, context)
            else:
                await run_cell_magic(line, body, context)
        return rest if rest.strip() else None

    async def _answer(self, line: str, context: Context) -> None:
        answer = await run_line(line, context)
        if answer is not None:
            context.host.publish("display_data", {"data": answer.bundle(), "metadata": {}, "transient": {}})

    async def complete(self, code: str, position: int) -> dict[str, Any] | None:
        """The content of a complete_reply for a position in one of our lines, or None elsewhere."""
        start = code.rfind("\n", 0, position) + 1
        match = re.match(r"[ \t]*(%%?)sandbox(\s.*)$", code[start:position])
        if match is None:
            return None
        word, found, kind = candidates(match[2], cell=match[1] == "%%", names=self._registry.names)
        if kind == "local":
            found = await asyncio.to_thread(local_paths, word)
        elif kind:
            wanted = "remote-variable" if kind == "variable" else kind
            try:
                found = await remote_names(self._registry, word, wanted)
            except (AgentCubeError, TimeoutError):
                found = []
        return {
            "status": "ok",
            "matches": found,
            "cursor_start": position - len(word),
            "cursor_end": position,
            "metadata": {},
        }


def parse(code: str) -> tuple[list[tuple[str, str | None]], str]:
    """Our lines at the top of a cell, and what remains. A `%%sandbox` line has a body, which is all of the rest.

    Raises:
        UsageError: one of our lines stands where it cannot be run.
    """
    if _HELP.match(code):
        return [("help", None)], ""
    ours: list[tuple[str, str | None]] = []
    rest = code
    while rest:
        if match := _CELL.match(rest):
            return [*ours, (match["line"], match["body"] or "")], ""
        if match := _LINE.match(rest):
            ours.append((match["rest"], None))
            rest = code = rest[match.end() :]
        elif match := _LOAD.match(rest):
            rest = code = rest[match.end() :]
        elif (match := _NOTHING.match(rest)) and match.end():
            rest = rest[match.end() :]
        else:
            break
    _refuse_elsewhere(code)
    return ours, code


def _refuse_elsewhere(code: str) -> None:
    """Our magics run on the user's side, so they cannot run in the middle of code that runs in the sandbox."""
    if "%sandbox" not in code:
        return
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        python = TransformerManager().transform_cell(code)  # type: ignore[no-untyped-call]
    except SyntaxError:
        return
    if re.search(r"run_(line|cell)_magic\('sandbox'", python):
        raise UsageError(
            "In this kernel `%sandbox` lines run on your side, before the rest of the cell runs in the sandbox: put "
            "them at the top of the cell, each on a line of its own, not in a loop, a function or an assignment. "
            "Nothing was run."
        )
