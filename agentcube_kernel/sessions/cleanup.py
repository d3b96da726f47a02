"""Deleting sessions by their records, when the process that made them is not there to do it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ..config import Settings
from ..errors import AgentCubeError, LedgerError, SessionDeleteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..wire.auth import AuthProvider
    from .ledger import Ledger, SessionRecord

LONGEST_LIFE_SECONDS = 7 * 24 * 3600.0
"""A record not used for so long is dropped even when nobody can be asked about its session: AgentCube ends
sessions after 8 hours unless the cluster says otherwise."""

_AT_ONCE = 8


class Outcome(Enum):
    """What became of one session that was to be deleted."""

    DELETED = "deleted"
    GONE = "gone"
    """It had ended before."""
    TAKEN = "taken"
    """Another process took it over or deletes it."""
    FAILED = "failed"
    """It may still run; its record is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """How the deletion of one session went. `error` is set when it failed."""

    session: SessionRecord
    outcome: Outcome
    error: AgentCubeError | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do about it."""
        return self.outcome is not Outcome.FAILED


@dataclass(frozen=True, slots=True)
class _Place:
    """A WorkloadManager that we may talk to, and with which credential."""

    url: str
    auth: AuthProvider | None = None


async def delete_sessions(
    sessions: Iterable[SessionRecord], ledger: Ledger, *, settings: Settings | None = None
) -> list[Deletion]:
    """Delete sessions where they were made, and drop the records of those that are gone.

    Only the WorkloadManager of `settings` (the environment's, unless given) and the user's own embedded
    gateways are asked: a credential never goes to a server because a record names it. Raises LedgerError when
    the ledger cannot be used and ConfigurationError for bad settings; everything else is told by session.
    """
    settings = settings or Settings.load()
    wanted = list(sessions)
    gateways = await asyncio.to_thread(_gateways) if any(session.embedded for session in wanted) else {}
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(session: SessionRecord) -> Deletion:
        async with limit:
            return await _delete(session, ledger, settings, gateways)

    return list(await asyncio.gather(*(one(session) for session in wanted)))


async def _delete(
    session: SessionRecord, ledger: Ledger, settings: Settings, gateways: Mapping[str, _Place]
) -> Deletion:
    if not await asyncio.to_thread(ledger.claim, session):
        return Deletion(session=session, outcome=Outcome.TAKEN)
    try:
        outcome = await _delete_there(session, settings, gateways)
    except AgentCubeError as error:
        if time.time() - session.last_used < LONGEST_LIFE_SECONDS:
            await asyncio.to_thread(_give_back, ledger, session)
            return Deletion(session=session, outcome=Outcome.FAILED, error=error)
        outcome = Outcome.GONE
    await asyncio.to_thread(ledger.forget, session.session_id)
    return Deletion(session=session, outcome=outcome)


async def _delete_there(
    session: SessionRecord, settings: Settings, gateways: Mapping[str, _Place]
) -> Outcome:
    from ..wire.control_plane import AsyncControlPlaneClient

    if session.embedded:
        place = gateways.get(session.workload_manager_url or "")
        if place is None:  # its sandboxes ended with it
            return Outcome.GONE
    else:
        place = _Place(_workload_manager(session, settings))
    async with AsyncControlPlaneClient(
        place.url, auth=place.auth, credentials=settings.credentials
    ) as client:
        return Outcome.DELETED if await client.delete_session(session.session_id) else Outcome.GONE


def _workload_manager(session: SessionRecord, settings: Settings) -> str:
    url = session.workload_manager_url
    if url is None:
        raise SessionDeleteError(
            f"Session {session.session_id} was made through the Router, which cannot delete sessions. It "
            "ends by its idle timeout. To delete such sessions, set WORKLOAD_MANAGER_URL when you make them.",
            session_id=session.session_id,
        )
    if settings.workload_manager_url != url:
        raise SessionDeleteError(
            f"Session {session.session_id} is at another AgentCube. Run with WORKLOAD_MANAGER_URL={url} and "
            f"its credential: agentcube-kernel sessions stop {session.session_id}",
            session_id=session.session_id,
        )
    return url


def _gateways() -> dict[str, _Place]:
    from ..gateway.launcher import running_gateways
    from ..wire.auth import TokenAuth

    return {
        gateway.workload_manager_url: _Place(gateway.workload_manager_url, TokenAuth(gateway.token))
        for gateway in running_gateways()
    }


def _give_back(ledger: Ledger, session: SessionRecord) -> None:
    try:
        ledger.update(session.session_id, owner=session.owner)
    except LedgerError:
        return
