"""Keeping the ledger and the reaper in step with the sessions that this process makes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ..errors import LedgerError
from ..sessions.kept_sessions import this_notebook
from ..sessions.ledger import Ledger, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..results import SessionInfo
    from ..sessions.reaper import Reaper

log = logging.getLogger("agentcube_kernel.magics")


class Custody:
    """Records every owned session before its first cell runs, and has it deleted when this process dies.

    Nothing here fails an operation: without a ledger sessions can be used all the same, and `warn` is told, once,
    what then does not work. All methods belong to one event loop; what blocks runs in a thread.
    """

    def __init__(
        self,
        *,
        warn: Callable[[str], None],
        connection_file: str | None = None,
        notebook: str | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.ledger = ledger or Ledger()
        self.connection_file = connection_file
        self.notebook = notebook if notebook is not None else this_notebook()
        self._warn = warn
        self._warned = False
        self._reaper: Reaper | None = None

    async def take(self, session: SessionInfo, *, name: str, keep: bool, embedded: bool) -> None:
        """Write an owned session down and see to its end."""
        record = SessionRecord.new(
            session.session_id,
            workload_manager_url=session.workload_manager_url,
            router_url=session.router_url,
            embedded=embedded,
            namespace=session.namespace,
            interpreter=session.name,
            connection_file=self.connection_file,
            notebook=self.notebook,
            name=name,
            keep=keep,
        )
        await self._do(self.ledger.record, record)
        await self.guard()

    async def guard(self) -> None:
        """Have a reaper."""
        if self._reaper is not None and self._reaper.alive:
            return
        from ..sessions import reaper

        try:
            self._reaper = await asyncio.to_thread(
                reaper.start, connection_file=self.connection_file, ledger_path=self.ledger.path
            )
        except OSError as error:
            self._complain(f"No process could be started to clean up after a crash ({error}).")

    async def known(self) -> list[SessionRecord]:
        """The sessions of the ledger, none when it cannot be read."""
        return await self._do(self.ledger.sessions) or []

    async def adopt(self, session_id: str) -> bool:
        """Own a session of ours that an earlier process left, if it is there for the taking."""
        adopted = bool(await self._do(self.ledger.adopt, session_id))
        if adopted:
            await self.guard()
        return adopted

    async def note(self, session_id: str, **changes: Any) -> bool:
        """Change a session's record; says whether there is one."""
        return bool(await self._do(self.ledger.update, session_id, **changes))

    async def forget(self, session_id: str) -> None:
        """Drop the record of a session that is gone."""
        await self._do(self.ledger.forget, session_id)

    async def forget_kernel(self, connection_file: str) -> None:
        """Drop what was noted for the next kernel on a connection file."""
        await self._do(self.ledger.delete_kernel, connection_file)

    def close(self, *, takeover: bool = False) -> None:
        """This process ends: what it still owns is deleted by the reaper. Callable from any thread; at once.

        With `takeover` the next kernel on the connection file gets the time to take it over first.
        """
        if self._reaper is not None:
            self._reaper.close(takeover=takeover)

    async def _do(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return await asyncio.to_thread(action, *arguments, **options)
        except LedgerError as error:
            log.warning("%s", error)
            self._complain(str(error))
            return None

    def _complain(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"{reason} Sandboxes work, but after a crash they are left to their idle timeout, and "
                "`agentcube-kernel sessions list` does not show them."
            )
