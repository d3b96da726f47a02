"""A running cell as a handle, for programs without an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .client.sync.portal import portal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .channel.cell_result import CellResult
    from .channel.cell_run import CellRun
    from .channel.protocol import Event


class SyncCellRun:
    """`CellRun`, waiting for every result; see there for what the methods promise.

    Ctrl-C ends a wait and leaves the cell running.
    """

    def __init__(self, run: CellRun) -> None:
        self._run = run

    def __repr__(self) -> str:
        return repr(self._run).replace("<", "<Sync", 1)

    @property
    def id(self) -> str:
        """What the cell is called in the sandbox."""
        return self._run.id

    @property
    def count(self) -> int | None:
        """The cell's execution count; None until it is known."""
        return self._run.count

    @property
    def started(self) -> bool:
        """Whether the cell is known to have begun: it no longer waits behind other cells."""
        return self._run.started

    @property
    def ended(self) -> bool:
        """Whether the cell has ended, or is lost."""
        return self._run.ended

    @property
    def left(self) -> bool:
        """Whether `leave` was called before the cell's end."""
        return self._run.left

    def begun(self) -> None:
        """See `CellRun.begun`."""
        portal().run(self._run.begun)

    def events(self) -> Iterator[Event]:
        """See `CellRun.events`."""
        return portal().iterate(self._run.events)

    def answer(self, text: str | None) -> None:
        """See `CellRun.answer`."""
        portal().run(lambda: self._run.answer(text))

    def interrupt(self) -> None:
        """See `CellRun.interrupt`."""
        portal().run(self._run.interrupt)

    def result(self) -> CellResult:
        """See `CellRun.result`."""
        return portal().run(self._run.result)

    def leave(self) -> None:
        """See `CellRun.leave`."""

        async def leave() -> None:
            self._run.leave()

        portal().run(leave)
