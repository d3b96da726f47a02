"""The seam to what runs on the user's side: `%sandbox` lines at the top of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .cell import Cell


class LocalMagics(Protocol):
    """Runs the `%sandbox` and `%%sandbox` lines of cells."""

    async def run(self, code: str, cell: Cell) -> str | None:
        """Run the lines of ours at the top of `code` and return what remains to be run in the sandbox.

        None says that nothing remains. Output goes through `cell.publish`; an AgentCubeError ends the cell with that
        error. A cancelled call has been interrupted by the user and leaves things as they were.
        """


def may_concern(code: str) -> bool:
    """Whether it is worth loading the magics for this cell."""
    return "%sandbox" in code
