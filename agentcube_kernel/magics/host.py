"""Where a `%sandbox` line was typed: what it can show there, and what "here" means for variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .variables import Variables


class Host(Protocol):
    """The front end of one cell, as seen from the event loop that the command runs on."""

    quiet: bool
    """Whether passing progress should not be shown, since outputs are compared or nobody looks."""
    allow_stdin: bool

    def publish(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] | None = None,
    ) -> None:
        """Show an output: the type and content of a Jupyter message."""

    async def drain(self) -> None:
        """Wait until what was published has been shown, as far as it is far behind."""

    async def ask(self, prompt: str, *, password: bool = False) -> str | None:
        """Ask the user for a line; None is end of file."""

    @property
    def variables(self) -> Variables:
        """The variables of plain cells: this process's own in IPython, the current sandbox's in the kernel."""
