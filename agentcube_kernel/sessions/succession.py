"""What the kernel on one connection file leaves to the next one there."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import LedgerError
from .ledger import KernelRecord

if TYPE_CHECKING:
    from .keeper import Keeper

RESTART = "restart"
_RUNNING = "running_cell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """What the kernel before this one, on the same connection file, has left."""

    session_id: str | None
    endpoint: str
    guest: dict[str, Any] | None
    running: str | None
    """The cell that it was waiting for, if it had been for long enough to write that down."""
    restarted: bool
    """It was told to restart. Otherwise it died without a word."""


class Succession:
    """This kernel's page in the ledger, under its connection file.

    All methods block for some milliseconds, and are to be called in a thread. None raises: what cannot be written is
    told by the keeper's `trouble`. Without a connection file there is no next kernel, and nothing is written.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._connection_file = keeper.connection_file
        self._kernel: KernelRecord | None = None
        self._writing = threading.Lock()
        self._left = False

    def claim(self) -> Predecessor | None:
        """Take over what the last kernel on this connection file used, before anybody cleans it up."""
        try:
            return self._claim()
        except (LedgerError, OSError) as error:
            self._keeper.complain(str(error))
            return None

    def _claim(self) -> Predecessor | None:
        ledger, file = self._keeper.ledger, self._connection_file
        if file is None:
            return None
        left = [session.session_id for session in ledger.sessions() if session.connection_file == file]
        adopted = [session_id for session_id in left if ledger.adopt(session_id)]
        if adopted:
            self._keeper.guard()
        record = ledger.get_kernel(file)
        if record is None:
            return None
        self._kernel = replace(record, pid=os.getpid())
        ledger.put_kernel(self._kernel)
        guest = dict(record.guest or {})
        running = guest.pop(_RUNNING, None)
        return Predecessor(
            session_id=record.session_id or None,
            endpoint=record.endpoint,
            guest=guest or None,
            running=running if isinstance(running, str) else None,
            restarted=record.ended == RESTART,
        )

    def use(self, *, session_id: str | None, endpoint: str, guest: dict[str, Any] | None) -> None:
        """Note which sandbox this kernel uses now."""
        if self._connection_file is not None:
            with self._writing:
                self._put(
                    KernelRecord(
                        connection_file=self._connection_file,
                        session_id=session_id or "",
                        endpoint=endpoint,
                        guest=guest,
                        pid=os.getpid(),
                    )
                )

    def wait_for(self, cell_id: str | None) -> None:
        """Note which cell is being waited for; None when there is none any more."""
        with self._writing:
            if self._kernel is None or self._kernel.guest is None:
                return
            guest = {name: value for name, value in self._kernel.guest.items() if name != _RUNNING}
            if cell_id is not None:
                guest[_RUNNING] = cell_id
            self._put(replace(self._kernel, guest=guest))

    def leave_for_next(self) -> None:
        """This kernel ends to be started again: its sandbox stays, for a fresh interpreter in it."""
        with self._writing:
            if self._kernel is not None:
                self._put(replace(self._kernel, ended=RESTART))
            self._left = True

    def leave(self) -> None:
        """This kernel ends for good. What it owns and has not deleted, the reaper deletes now."""
        with self._writing:
            self._left = True
            self._drop()

    def use_nothing(self) -> None:
        """This kernel uses no sandbox any more."""
        with self._writing:
            self._kernel = None
            self._drop()

    def _drop(self) -> None:
        if self._connection_file is not None:
            try:
                self._keeper.ledger.delete_kernel(self._connection_file)
            except LedgerError as error:
                self._keeper.complain(str(error))

    def _put(self, record: KernelRecord) -> None:
        if self._left:  # a cell may end after the last word was written
            return
        self._kernel = record
        try:
            self._keeper.ledger.put_kernel(record)
        except LedgerError as error:
            self._keeper.complain(str(error))
