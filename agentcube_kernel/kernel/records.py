"""What this kernel writes down, so that the next one finds its sandbox and nobody has to look for what it leaves."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import LedgerError
from ..sessions.kept_sessions import offers
from ..sessions.ledger import KernelRecord, Ledger, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..results import SessionInfo
    from ..sessions.reaper import Reaper

log = logging.getLogger("agentcube_kernel.kernel")

T = TypeVar("T")

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
    owned: bool
    restarted: bool
    """It was told to restart. Otherwise it died without a word."""


class Records:
    """This kernel's pages in the ledger, and its reaper.

    All methods block, and are to be called in a thread. None raises: a kernel without a ledger works, and `trouble`
    says what then does not.
    """

    def __init__(self, connection_file: str) -> None:
        self._connection_file = os.path.abspath(connection_file) if connection_file else ""
        self._ledger = Ledger()
        self._reaper: Reaper | None = None
        self._kernel: KernelRecord | None = None
        self._writing = threading.Lock()
        self._left = False
        self.trouble: str | None = None

    def claim(self) -> Predecessor | None:
        """Take over what the last kernel on this connection file used, before anybody cleans it up."""
        return self._try(self._claim)

    def _claim(self) -> Predecessor | None:
        if not self._connection_file:
            return None
        record = self._ledger.get_kernel(self._connection_file)
        if record is None:
            return None
        owned = bool(record.session_id) and self._ledger.adopt(record.session_id)
        self._kernel = replace(record, pid=os.getpid())
        self._ledger.put_kernel(self._kernel)
        if owned:
            self._start_reaper()
        guest = dict(record.guest or {})
        running = guest.pop(_RUNNING, None)
        return Predecessor(
            session_id=record.session_id or None,
            endpoint=record.endpoint,
            guest=guest or None,
            running=running if isinstance(running, str) else None,
            owned=owned,
            restarted=record.ended == RESTART,
        )

    def own(self, session: SessionInfo, *, embedded: bool, endpoint: str) -> None:
        """Note a session that was just created, and see to it that it does not outlive us unwanted."""
        self._try(lambda: self._own(session, embedded=embedded))
        self.use(session_id=session.session_id, endpoint=endpoint, guest=None)

    def _own(self, session: SessionInfo, *, embedded: bool) -> None:
        self._ledger.record(
            SessionRecord.new(
                session.session_id,
                workload_manager_url=session.workload_manager_url,
                router_url=session.router_url,
                embedded=embedded,
                namespace=session.namespace,
                interpreter=session.name,
                connection_file=self._connection_file or None,
                notebook=os.environ.get("JPY_SESSION_NAME"),
            )
        )
        self._start_reaper()

    def _start_reaper(self) -> None:
        if self._reaper is None or not self._reaper.alive:
            from ..sessions import reaper

            self._reaper = reaper.start(
                connection_file=self._connection_file or None, ledger_path=self._ledger.path
            )

    def use(self, *, session_id: str | None, endpoint: str, guest: dict[str, Any] | None) -> None:
        """Note which sandbox this kernel uses now."""
        if not self._connection_file:
            return
        record = KernelRecord(
            connection_file=self._connection_file,
            session_id=session_id or "",
            endpoint=endpoint,
            guest=guest,
            pid=os.getpid(),
        )
        with self._writing:
            self._put(record)

    def wait_for(self, cell_id: str | None) -> None:
        """Note which cell is being waited for; None when there is none any more."""
        with self._writing:
            if self._kernel is None or self._kernel.guest is None:
                return
            guest = {name: value for name, value in self._kernel.guest.items() if name != _RUNNING}
            if cell_id is not None:
                guest[_RUNNING] = cell_id
            self._put(replace(self._kernel, guest=guest))

    def _put(self, record: KernelRecord) -> None:
        if not self._left:  # a cell may end after the last word was written
            self._kernel = record
            self._try(lambda: self._ledger.put_kernel(record))

    def offers(self) -> list[str]:
        """What to say of sessions that this notebook kept."""
        return offers(self._ledger)

    def is_kept(self, session_id: str) -> bool:
        """Whether the user asked that this session outlive the kernel."""
        session = self._try(lambda: self._ledger.session(session_id))
        return session is not None and session.keep

    def forget(self, session_id: str) -> None:
        """Drop a session that is gone."""
        self._try(lambda: self._ledger.forget(session_id))

    def leave_for_next(self) -> None:
        """This kernel ends to be started again: its sandbox stays, for a fresh interpreter in it."""
        with self._writing:
            if self._kernel is not None:
                self._put(replace(self._kernel, ended=RESTART))
            self._left = True
        if self._reaper is not None:
            self._reaper.close(takeover=True)

    def leave(self) -> None:
        """This kernel ends for good. What it owns and has not deleted, the reaper deletes now."""
        with self._writing:
            self._left = True
            if self._connection_file:
                self._try(lambda: self._ledger.delete_kernel(self._connection_file))
        if self._reaper is not None:
            self._reaper.close()

    def _try(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except (LedgerError, OSError) as error:
            log.warning("%s", error)
            self.trouble = (
                f"{error} Until then, a sandbox of this kernel is not found again after a crash of the kernel, and is "
                "left to its idle timeout."
            )
            return None
