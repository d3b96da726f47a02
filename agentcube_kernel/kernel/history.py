"""The user's input history, kept on this machine between runs."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShellABC

from .requests import Request, field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from IPython.core.history import HistoryManager
    from traitlets.config import Configurable

    from .cell import Cell

log = logging.getLogger("agentcube_kernel.kernel")

MOST_MISSING = 10_000
"""Cells that may have run in a sandbox before this kernel, for the history to number lines as the sandbox does."""


class _NoShell:
    """As much of a shell as IPython's history wants to know: there is none in this process."""

    def __init__(self, profile_dir: Any) -> None:
        self.profile_dir = profile_dir

    def push(self, variables: Any, interactive: bool = True) -> None:
        """The variables `_i`, `_ii`, … are the sandbox's."""


InteractiveShellABC.register(_NoShell)


class History:
    """IPython's own history file, written and searched by IPython's own code.

    It is the file that IPython and ipykernel use, unless the option `HistoryManager.hist_file` says otherwise, so that
    a console of this kernel recalls what was typed in any of them.
    """

    def __init__(self, *, parent: Configurable, profile_dir: Any) -> None:
        self._parent = parent
        self._profile_dir = profile_dir
        self._manager: HistoryManager | None = None
        self._making = threading.Lock()

    @property
    def manager(self) -> HistoryManager:
        """IPython's history manager. The first use opens the file, from whichever thread comes first."""
        with self._making:
            if self._manager is None:
                from IPython.core.history import HistoryManager

                self._manager = HistoryManager(shell=_NoShell(self._profile_dir), parent=self._parent)  # type: ignore[arg-type]
            return self._manager

    def store(self, cell: Cell) -> None:
        """Add a cell that has run. Cells that the sandbox did not count, or not to be stored, are left out."""
        if cell.number is None or not cell.store_history:
            return
        try:
            self._store(cell, cell.number)
        except Exception:
            log.warning("a cell could not be added to the history", exc_info=True)

    def _store(self, cell: Cell, number: int) -> None:
        from IPython.core.inputtransformer2 import TransformerManager

        manager = self.manager
        missing = number - len(manager.input_hist_raw)
        if missing < 0:
            manager.reset()  # the sandbox's interpreter has been replaced and counts from 1 again
            missing = number - len(manager.input_hist_raw)
        if missing > MOST_MISSING:
            # A sandbox can claim any number; nothing here is as large as it says.
            number, missing = len(manager.input_hist_raw), 0
        for lines in (manager.input_hist_raw, manager.input_hist_parsed):
            lines.extend([""] * missing)  # cells that ran before this kernel
        manager.store_inputs(number, TransformerManager().transform_cell(cell.code), cell.code)
        if cell.result is not None:
            manager.output_hist_reprs[number] = cell.result
            manager.store_output(number)

    async def answer(self, request: Request) -> dict[str, Any]:
        """The content of a `history_reply`."""
        kind = field(request, "hist_access_type", str)
        raw, output = field(request, "raw", bool, True), field(request, "output", bool, False)
        found: Iterable[Any] = ()
        if kind == "tail":
            n = field(request, "n", int, None)
            found = self.manager.get_tail(n, raw=raw, output=output, include_latest=True)
        elif kind == "range":
            found = self._range(request, raw=raw, output=output)
        elif kind == "search":
            found = self.manager.search(
                field(request, "pattern", str, "*"),
                raw=raw,
                output=output,
                n=field(request, "n", int, None),
                unique=field(request, "unique", bool, False),
            )
        return {"status": "ok", "history": list(found)}

    def _range(self, request: Request, *, raw: bool, output: bool) -> Iterable[Any]:
        found = self.manager.get_range(
            field(request, "session", int, 0),
            field(request, "start", int, 1),
            field(request, "stop", int, None),
            raw=raw,
            output=output,
        )
        # IPython calls the current session 0 here, and by its number everywhere else.
        return [(session or self.manager.session_number, *rest) for session, *rest in found]

    def close(self) -> None:
        """Write what is pending and close the file."""
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.end_session()
            manager.close()
