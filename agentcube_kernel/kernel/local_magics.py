"""The seam to what runs on the user's side: `%sandbox` lines at the top of a cell."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .cell import Cell
    from .lifecycle import Lifecycle


class LocalMagics(Protocol):
    """Runs the `%sandbox` and `%%sandbox` lines of cells."""

    async def run(self, code: str, cell: Cell) -> str | None:
        """Run the lines of ours at the top of `code` and return what remains to be run in the sandbox.

        None says that nothing remains. Output goes through `cell.publish`; an AgentCubeError ends the cell with that
        error. A cancelled call has been interrupted by the user and leaves things as they were.
        """

    async def complete(self, code: str, position: int) -> dict[str, Any] | None:
        """The content of a complete_reply for a position in one of our lines; None where it is not in one."""

    async def end(self, *, restart: bool) -> None:
        """The kernel ends: give up every sandbox but the current one, which is the kernel's to end."""


async def load(lifecycle: Lifecycle) -> LocalMagics | None:
    """The magics, imported only where they are used; None where they are not installed."""
    try:
        module = await asyncio.to_thread(import_module, "agentcube_kernel.magics.in_kernel")
    except ModuleNotFoundError:
        return None
    magics: LocalMagics = module.load_magics(lifecycle)
    return magics


def may_concern(code: str) -> bool:
    """Whether it is worth loading the magics for this cell."""
    return "%sandbox" in code or "load_ext agentcube_kernel" in code
