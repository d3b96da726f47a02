"""The magics in the AgentCube kernel, where plain cells run in the current sandbox."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import AgentCubeError
from ..results import Ownership
from .completion import candidates, local_paths, remote_names
from .custody import Custody
from .dispatch import Context, run_cell_magic, run_line
from .kernel_sandboxes import KernelSandboxes
from .usage import UsageError
from .variables import SandboxVariables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..kernel.cell import Cell
    from ..kernel.lifecycle import Lifecycle
    from .sandboxes import Entry
    from .variables import Variables

_LINE = re.compile(r"[ \t]*%sandbox(?![\w%])(?P<rest>[^\n]*)(?:\n|$)")
_CELL = re.compile(r"\s*%%sandbox(?!\w)(?P<line>[^\n]*)(?:\n(?P<body>.*))?$", re.DOTALL)
_HELP = re.compile(r"\s*(\?{1,2}%{1,2}sandbox|%{1,2}sandbox\?{1,2})\s*$")
_NOTHING = re.compile(r"[ \t]*(#[^\n]*)?(?:\n|$)")
# The magics are here already; in a sandbox there is no such extension.
_LOAD = re.compile(r"[ \t]*%(re)?load_ext[ \t]+agentcube_kernel[ \t]*(?:\n|$)")


class KernelHost:
    """One cell of the kernel."""

    def __init__(self, cell: Cell, sandboxes: KernelSandboxes) -> None:
        self._cell = cell
        self._sandboxes = sandboxes
        self.allow_stdin = cell.allow_stdin
        self.quiet = cell.silent or cell.compares_outputs

    def publish(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] | None = None,
    ) -> None:
        self._cell.publish(msg_type, content, metadata=metadata, buffers=buffers)

    async def drain(self) -> None:
        return None

    async def ask(self, prompt: str, *, password: bool = False) -> str | None:
        return await self._cell.ask(prompt, password=password)

    @property
    def variables(self) -> Variables:
        return SandboxVariables(self._sandboxes.find(None), lambda step: None)


class KernelMagics:
    """Runs the `%sandbox` lines at the top of a cell, and `%%sandbox` cells."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        connection_file = lifecycle.connection_file
        custody = Custody(
            warn=self._warn,
            connection_file=os.path.abspath(connection_file) if connection_file else None,
        )
        self.sandboxes = KernelSandboxes(custody, lifecycle)
        self._warnings: list[str] = []
        self._restored = False

    def _warn(self, text: str) -> None:
        self._warnings.append(text)

    async def run(self, code: str, cell: Cell) -> str | None:
        """Run our lines and return the code that remains for the current sandbox, or None for nothing."""
        ours, rest = parse(code)
        context = Context(sandboxes=self.sandboxes, host=KernelHost(cell, self.sandboxes))
        await self._restore()
        try:
            for line, body in ours:
                if body is None:
                    await self._answer(line, context)
                else:
                    await run_cell_magic(line, body, context)
        finally:
            for text in self._warnings:
                context.note(text)
            self._warnings.clear()
        return rest if rest.strip() else None

    async def _answer(self, line: str, context: Context) -> None:
        answer = await run_line(line, context)
        if answer is not None:
            context.host.publish("display_data", {"data": answer.bundle(), "metadata": {}, "transient": {}})

    async def _restore(self) -> None:
        if not self._restored:
            self._restored = True
            await self.sandboxes.restore()

    async def complete(self, code: str, position: int) -> dict[str, Any] | None:
        """The content of a complete_reply for a position in one of our lines, or None elsewhere."""
        start = code.rfind("\n", 0, position) + 1
        match = re.match(r"[ \t]*(%%?)sandbox(\s.*)$", code[start:position])
        if match is None:
            return None
        word, found, kind = candidates(match[2], cell=match[1] == "%%", names=self.sandboxes.names)
        if kind == "local":
            found = await asyncio.to_thread(local_paths, word)
        elif kind:
            wanted = "remote-variable" if kind == "variable" else kind
            try:
                found = await remote_names(self.sandboxes, word, wanted)
            except (AgentCubeError, TimeoutError):
                found = []
        return {
            "status": "ok",
            "matches": found,
            "cursor_start": position - len(word),
            "cursor_end": position,
            "metadata": {},
        }

    async def end(self, *, restart: bool) -> None:
        """Give up every sandbox but the current one. A restarted kernel finds them again under their names."""
        others = [entry for entry in self.sandboxes if entry is not self.sandboxes.current]
        try:
            await asyncio.gather(
                *(self._end_entry(entry, restart=restart) for entry in others), return_exceptions=True
            )
            current = self.sandboxes.current
            if current is not None:
                await current.end_tasks()
        finally:
            self.sandboxes.custody.close(takeover=restart)

    async def _end_entry(self, entry: Entry, *, restart: bool) -> None:
        await entry.end_tasks()
        sandbox = entry.sandbox
        if sandbox is None:
            return
        session_id = sandbox.session_id
        if restart or entry.keep or entry.ownership is Ownership.ATTACHED:
            await sandbox.close()
            return
        await sandbox.stop()
        if session_id is not None:
            await self.sandboxes.custody.forget(session_id)


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


_loaded: WeakKeyDictionary[Lifecycle, KernelMagics] = WeakKeyDictionary()


def load_magics(lifecycle: Lifecycle) -> KernelMagics:
    """The magics of a kernel; the same ones each time."""
    magics = _loaded.get(lifecycle)
    if magics is None:
        magics = _loaded[lifecycle] = KernelMagics(lifecycle)
    return magics
