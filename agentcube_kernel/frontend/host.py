"""The front end of one cell: what can be shown to its user, and asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Host(Protocol):
    """The front end of one cell, as seen from the event loop."""

    allow_stdin: bool

    @property
    def quiet(self) -> bool:
        """True where passing progress should not be shown, since outputs are compared or nobody looks."""

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
