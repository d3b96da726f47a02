"""The process that outlives its owners: it creates their sessions, and deletes those that they leave behind.

A kernel cannot be relied on to clean up: Jupyter kills it 2.5 s after asking it to end, or at once, or dies itself and
takes the kernel along, perhaps in the middle of a creation whose session nobody would ever hear of. So one reaper per
user, in a session (of the operating system) of its own, does both. Processes that own sessions connect to it:

* an *owner* says who it is and stays connected. When it is gone, however it went, the reaper deletes at once what it
  owned, if its connection file is gone (it was shut down), it never had one, or it said so; else it waits for the next
  kernel on the same connection file to take the sandboxes over, and deletes what nobody took.
* a *creation* is carried out here. Its session is in the ledger before the owner hears of it; if the owner does not
  confirm that it heard, the session is deleted again.

Kept sessions stay. Which sessions there are stands in the ledger; credentials come over the socket and are held in
memory alone. The reaper ends a moment after its last owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError, LedgerError
from ..wire.auth import TokenAuth
from .access import Access
from .cleanup import Outcome, delete_sessions, delete_there
from .creation import SessionNotes, SessionRequest, create_session
from .ledger import CreationRecord, Ledger, SessionRecord
from .process_identity import Liveness, ProcessIdentity
from .reaper_address import ReaperAddress
from .reaper_messages import NOW, TAKEN, error_to_dict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from ..wire.auth import AuthProvider

LINGER_SECONDS = 2.0
"""The reaper stays this long without an owner, for the next one that starts right after."""

_OWNER_CHECK_SECONDS = 3.0
_TAKEOVER_CHECK_SECONDS = 0.3
_CONFIRM_SECONDS = 30.0
_RETRY_SECONDS = (0.0, 1.0, 3.0, 10.0, 30.0)
LONGEST_LINE = 1024 * 1024


class _Owner:
    """One process that owns sessions, as it has introduced itself."""

    def __init__(self, hello: dict[str, Any]) -> None:
        self.identity = ProcessIdentity(**hello["owner"])
        self.connection_file: str | None = hello.get("connection_file")
        self.takeover_seconds = float(hello["takeover_seconds"])
        self.access: dict[str, Access] = {}
        """Where its sessions are, by the WorkloadManager's address."""
        self.at_once = False
        self.unrecorded: dict[str, SessionRecord] = {}
        """Sessions that the ledger did not take."""


class Reaper:
    """Serves the owners of one user. `run` returns when nothing is left to do."""

    def __init__(self, ledger: Ledger, *, token: str) -> None:
        self._ledger = ledger
        self._token = token
        self._owners: dict[ProcessIdentity, _Owner] = {}
        self._connected: list[_Owner] = []
        self._connections = 0
        self._work: set[asyncio.Task[None]] = set()
        self._busy = asyncio.Condition()
        self._sweeping = False

    async def run(self, server: asyncio.Server) -> None:
        """Serve until there has been no owner and no work for a while."""
        async with server:
            while True:
                async with self._busy:
                    await self._busy.wait_for(lambda: not self._connections and not self._work)
                await asyncio.sleep(LINGER_SECONDS)
                if not self._connections and not self._work:
                    return

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what one connection is for."""
        self._connections += 1
        try:
            request = json.loads(await reader.readline())
            if not hmac.compare_digest(str(request.pop("reaper_token", "")).encode(), self._token.encode()):
                return
            if request["for"] == "owner":
                await self._attend(request, reader, writer)
            elif request["for"] == "creation":
                await self._create(request, reader, writer)
        except (OSError, ValueError, KeyError, TypeError, asyncio.IncompleteReadError):
            return  # whoever it was has gone, or is none of ours
        finally:
            writer.close()
            self._connections -= 1
            await self._wake()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            finally:
                task = asyncio.current_task()
                assert task is not None
                self._work.discard(task)
                await self._wake()

        self._work.add(asyncio.get_running_loop().create_task(run()))

    async def _wake(self) -> None:
        async with self._busy:
            self._busy.notify_all()

    # Owners

    async def _attend(
        self, hello: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        owner = _Owner(hello)
        if (before := self._owners.get(owner.identity)) is not None:
            owner.access |= before.access
        _learn(owner, hello["access"])
        self._owners[owner.identity] = owner
        await _answer(writer, {"ok": True})
        self._connected.append(owner)
        self._spawn(self._sweep(owner))
        reading = asyncio.ensure_future(reader.readline())
        # A child that the owner has forked may hold the connection open, so its end alone tells nothing.
        while not (await asyncio.wait({reading}, timeout=_OWNER_CHECK_SECONDS))[0]:
            if owner.identity.liveness() is Liveness.DEAD:
                reading.cancel()
                break
        if reading.done() and not reading.cancelled() and reading.exception() is None:
            owner.at_once = reading.result().strip() == NOW
        self._connected.remove(owner)
        self._leave_to_another(owner)
        self._spawn(self._bury(owner))

    def _leave_to_another(self, owner: _Owner) -> None:
        """One of several that a process has connected with is gone: what the process owns is left to the next."""
        others = [other for other in self._connected if other.identity == owner.identity]
        if others and self._owners.get(owner.identity) is owner:
            heir = self._owners[owner.identity] = others[-1]
            heir.access |= owner.access
            heir.unrecorded |= owner.unrecorded
            owner.unrecorded = {}

    async def _bury(self, owner: _Owner) -> None:
        """Delete what an owner has left, unless somebody takes it over in time."""
        deadline = time.monotonic() + owner.takeover_seconds
        try:
            while self._owners.get(owner.identity) is owner and await self._left(owner):
                if await self._nobody_will_come(owner) or time.monotonic() > deadline:
                    await self._delete(lambda: self._left(owner), owner.access.values())
                    break
                await asyncio.sleep(_TAKEOVER_CHECK_SECONDS)
            for session in [s for s in owner.unrecorded.values() if not s.keep]:
                await self._delete_unrecorded(owner, session)
        finally:
            if self._owners.get(owner.identity) is owner:
                del self._owners[owner.identity]

    async def _left(self, owner: _Owner) -> list[SessionRecord]:
        """The sessions to delete unless someone takes them over. The ledger may be locked for a while."""
        for pause in (0.5, 1.0, 2.0, 0.0):
            try:
                sessions = await asyncio.to_thread(self._ledger.sessions)
                return [s for s in sessions if s.owner == owner.identity and not s.keep]
            except LedgerError:
                await asyncio.sleep(pause)
        return []

    async def _nobody_will_come(self, owner: _Owner) -> bool:
        connection_file = owner.connection_file
        if owner.at_once or connection_file is None:
            return True
        if not await asyncio.to_thread(os.path.exists, connection_file):
            return True
        with contextlib.suppress(LedgerError):
            await asyncio.to_thread(self._hand_over, owner.identity, connection_file)
        return False

    def _hand_over(self, identity: ProcessIdentity, connection_file: str) -> None:
        """A next kernel on the connection file, once it has said that it is there, owns all that was used with it."""
        record = self._ledger.get_kernel(connection_file)
        successor = None if record is None else ProcessIdentity.of(record.pid)
        if successor is None or successor == identity:
            return
        for session in self._ledger.sessions():
            if session.owner == identity and session.connection_file == connection_file:
                self._ledger.adopt(session.session_id, owner=successor)

    async def _delete(
        self, left: Callable[[], Awaitable[list[SessionRecord]]], access: Iterable[Access]
    ) -> None:
        """Delete what `left()` gives, again for a while as long as that may help."""
        known = list(access)
        for pause in _RETRY_SECONDS:
            await asyncio.sleep(pause)
            try:
                done = await delete_sessions(await left(), self._ledger, known)
            except LedgerError:
                continue
            # A command that has claimed a session may fail and give it back, so what was taken is looked at again.
            if not any(d.worth_repeating or d.outcome is Outcome.TAKEN for d in done):
                return

    async def _sweep(self, owner: _Owner) -> None:
        """Delete what owners have left that had no reaper, or one that ended with them (power loss)."""
        if self._sweeping:
            return
        self._sweeping = True
        try:
            # The owners of some may have died just now, and their own reapers give the next kernels their time.
            seen = {session.session_id for session in await self._orphans()}
            if seen:
                async with self._busy:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(owner.takeover_seconds + 2.0):
                            await self._busy.wait_for(lambda: not self._owners)

            async def left() -> list[SessionRecord]:
                return [session for session in await self._orphans() if session.session_id in seen]

            if seen and self._owners:
                access = {url: place for o in self._owners.values() for url, place in o.access.items()}
                await self._delete(left, access.values())
        finally:
            self._sweeping = False

    async def _orphans(self) -> list[SessionRecord]:
        try:
            orphans = await asyncio.to_thread(self._ledger.orphans)
        except LedgerError:
            return []
        return [session for session in orphans if session.owner not in self._owners]

    # Creations

    async def _create(
        self, order: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Create a session. It goes on whatever becomes of its owner, and ends in a session that somebody has."""
        owner = self._owners[ProcessIdentity(**order["owner"])]
        _learn(owner, order["access"])
        request, notes = SessionRequest.from_dict(order["request"]), SessionNotes(**order["notes"])
        creation = _creation(request, owner)
        with contextlib.suppress(LedgerError):
            await asyncio.to_thread(self._ledger.begin_creation, creation)
        try:
            session_id = await create_session(request, auth=_auth(order["token"]))
        except AgentCubeError as error:
            await self._end_creation(creation, None)
            await _answer(writer, {"error": error_to_dict(error)})
            return
        session = notes.record(session_id, request, owner=owner.identity)
        trouble = await self._end_creation(creation, session)
        if trouble is not None:
            owner.unrecorded[session_id] = session
        if not await _confirmed({"session_id": session_id, "trouble": trouble}, reader, writer):
            await self._discard(owner, session)

    async def _end_creation(self, creation: CreationRecord, session: SessionRecord | None) -> str | None:
        try:
            await asyncio.to_thread(self._ledger.end_creation, creation.creation_id, session)
        except LedgerError as error:
            return str(error)
        return None

    async def _discard(self, owner: _Owner, session: SessionRecord) -> None:
        """Delete a session whose owner never heard of it."""

        async def left() -> list[SessionRecord]:
            found = await asyncio.to_thread(self._ledger.session, session.session_id)
            return [] if found is None or found.owner != owner.identity else [found]

        if session.session_id in owner.unrecorded:
            await self._delete_unrecorded(owner, session)
        else:
            await self._delete(left, owner.access.values())

    async def _delete_unrecorded(self, owner: _Owner, session: SessionRecord) -> None:
        owner.unrecorded.pop(session.session_id, None)
        for pause in _RETRY_SECONDS:
            await asyncio.sleep(pause)
            with contextlib.suppress(AgentCubeError):
                await delete_there(session, list(owner.access.values()))
                return


def _learn(owner: _Owner, access: dict[str, Any] | None) -> None:
    if access is not None:
        owner.access[access["url"]] = Access.from_dict(access)


def _auth(token: str | None) -> AuthProvider | None:
    return None if token is None else TokenAuth(token)


def _creation(request: SessionRequest, owner: _Owner) -> CreationRecord:
    through_router = request.through == "router"
    return CreationRecord(
        creation_id=uuid.uuid4().hex,
        server_url=request.router_url if through_router else request.workload_manager_url,
        namespace=request.namespace,
        interpreter=request.name,
        owner=owner.identity,
        begun=time.time(),
    )


async def _answer(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()


async def _confirmed(
    answer: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Hand a session out; True when its owner says that it has it."""
    try:
        await _answer(writer, answer)
        async with asyncio.timeout(_CONFIRM_SECONDS):
            return (await reader.readline()).strip() == TAKEN
    except (OSError, TimeoutError):
        return False


async def _serve(ledger_path: Path, state: Path) -> None:
    reaper = Reaper(Ledger(ledger_path), token=(token := secrets.token_hex(16)))
    with tempfile.TemporaryDirectory(prefix="agentcube-reaper-") as folder:
        if os.name == "posix":
            path = os.path.join(folder, "socket")
            server = await asyncio.start_unix_server(reaper.serve, path, limit=LONGEST_LINE)
            address = ReaperAddress(path=path, token=token, pid=os.getpid())
        else:
            server = await asyncio.start_server(reaper.serve, "127.0.0.1", 0, limit=LONGEST_LINE)
            port = server.sockets[0].getsockname()[1]
            address = ReaperAddress(port=port, token=token, pid=os.getpid())
        address.write(state)
        os.close(1)  # whoever started us waits for this
        try:
            await reaper.run(server)
        finally:
            address.withdraw(state)


def main(ledger_path: str, state: str) -> None:
    """Be the reaper of a ledger, in a process of its own that is nobody's child."""
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):  # a machine that shuts down ends the owners, and so us
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if os.name == "posix" and os.fork():
        os._exit(0)
    asyncio.run(_serve(Path(ledger_path), Path(state)))


if __name__ == "__main__":
    main(*sys.argv[1:])
