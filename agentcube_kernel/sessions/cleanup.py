"""Deleting sessions by their records, when the process that made them is not there to do it."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..config import NO_CREDENTIALS
from ..errors import AgentCubeError, ExchangeError, LedgerError, SessionDeleteError
from ..secret import Secret
from ..wire.control_plane import AsyncControlPlaneClient
from .access import Access

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .ledger import Ledger, SessionRecord

LONGEST_LIFE_SECONDS = 7 * 24 * 3600.0
"""A record not used for so long is dropped even when nobody can be asked about its session: AgentCube ends
sessions after 8 hours unless the cluster says otherwise."""

_AT_ONCE = 8
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


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
        """True when there is nothing left to do about it."""
        return self.outcome is not Outcome.FAILED

    @property
    def worth_repeating(self) -> bool:
        """True when a failed deletion may succeed a little later."""
        return isinstance(self.error, LedgerError) or (
            isinstance(self.error, ExchangeError) and self.error.transient
        )


async def delete_sessions(
    sessions: Iterable[SessionRecord], ledger: Ledger, access: Iterable[Access]
) -> list[Deletion]:
    """Delete sessions where they were made, and drop the records of those that are gone.

    Only the WorkloadManagers of `access` and the user's own embedded gateways are asked: a credential never goes to a
    server because a record names it. A session whose server was on this machine and does not listen any more ended
    with it. A record is claimed only when its session can be deleted from here, and given back when that fails.

    Raises:
        LedgerError: the ledger cannot be used. Everything else is told by session.
    """
    wanted = list(sessions)
    known = {place.url: place for place in access}
    if any(session.embedded for session in wanted):
        known |= {place.url: place for place in await asyncio.to_thread(_embedded_gateways)}
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(session: SessionRecord) -> Deletion:
        async with limit:
            return await _delete(session, ledger, known)

    return list(await asyncio.gather(*(one(session) for session in wanted)))


async def _delete(session: SessionRecord, ledger: Ledger, known: dict[str, Access]) -> Deletion:
    place = known.get(session.workload_manager_url or "")
    if place is None:
        if await asyncio.to_thread(_ended_with_its_server, session):
            await asyncio.to_thread(ledger.forget, session.session_id)
            return Deletion(session=session, outcome=Outcome.GONE)
        return await _failed(session, ledger, _out_of_reach(session))
    if not await asyncio.to_thread(ledger.claim, session):
        return Deletion(session=session, outcome=Outcome.TAKEN)
    try:
        outcome = await _delete_at(place, session)
    except AgentCubeError as error:
        await asyncio.to_thread(_give_back, ledger, session)
        return await _failed(session, ledger, error)
    await asyncio.to_thread(ledger.forget, session.session_id)
    return Deletion(session=session, outcome=outcome)


async def delete_there(session: SessionRecord, access: Iterable[Access]) -> Outcome:
    """Delete one session that is in no ledger.

    Raises:
        SessionDeleteError: it may still be running.
    """
    known = [*access, *(await asyncio.to_thread(_embedded_gateways) if session.embedded else ())]
    place = next((place for place in known if place.url == session.workload_manager_url), None)
    if place is None:
        raise _out_of_reach(session)
    return await _delete_at(place, session)


async def _delete_at(place: Access, session: SessionRecord) -> Outcome:
    try:
        async with AsyncControlPlaneClient(
            place.url, auth=place.auth(), credentials=NO_CREDENTIALS
        ) as client:
            there = await client.delete_session(session.session_id, kind=session.kind)
    except AgentCubeError:
        if await asyncio.to_thread(_ended_with_its_server, session):
            return Outcome.GONE
        raise
    return Outcome.DELETED if there else Outcome.GONE


async def _failed(session: SessionRecord, ledger: Ledger, error: AgentCubeError) -> Deletion:
    if time.time() - session.last_used < LONGEST_LIFE_SECONDS:
        return Deletion(session=session, outcome=Outcome.FAILED, error=error)
    await asyncio.to_thread(ledger.forget, session.session_id)
    return Deletion(session=session, outcome=Outcome.GONE)


def _ended_with_its_server(session: SessionRecord) -> bool:
    """True when the server of the session was on this machine and nobody listens there any more."""
    address = urlsplit(session.workload_manager_url or "")
    if session.embedded and not address.hostname:
        return True
    if address.hostname not in _LOOPBACK:
        return False
    try:
        socket.create_connection((address.hostname, address.port or 80), timeout=2.0).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return session.embedded  # another program listens there now: a gateway of ours would have been found


def _out_of_reach(session: SessionRecord) -> SessionDeleteError:
    url = session.workload_manager_url
    if url is None:
        return SessionDeleteError(
            f"Session {session.session_id} was made through the Router, which cannot delete sessions. It "
            "ends by its idle timeout. To delete such sessions, set WORKLOAD_MANAGER_URL when you make them.",
            session_id=session.session_id,
        )
    return SessionDeleteError(
        f"Session {session.session_id} is at another AgentCube. Run with WORKLOAD_MANAGER_URL={url} and "
        f"its credential: agentcube-kernel sessions stop {session.session_id}. If that AgentCube is gone for good, "
        f"drop the record: agentcube-kernel sessions forget {session.session_id}",
        session_id=session.session_id,
    )


def _embedded_gateways() -> list[Access]:
    from ..gateway.launcher import running_gateways

    return [
        Access(url=gateway.workload_manager_url, token=Secret.of(gateway.token))
        for gateway in running_gateways()
    ]


def _give_back(ledger: Ledger, session: SessionRecord) -> None:
    try:
        ledger.update(session.session_id, owner=session.owner)
    except LedgerError:
        return
