"""What one process does about the sessions that it owns: it notes them in the ledger and sees to the reaper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import Settings
from ..errors import AuthenticationError, ConfigurationError, LedgerError
from ..wire.auth import Authorizer
from .access import Access, revealed
from .creation import SessionNotes, create_session
from .ledger import Ledger, SessionRecord
from .process_identity import ProcessIdentity
from .reaper_address import connect
from .reaper_messages import NOW, TAKEN, error_from_dict

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..secret import Secret
    from ..wire.auth import AuthProvider
    from .creation import SessionRequest
    from .reaper_address import ReaperConnection

T = TypeVar("T")

log = logging.getLogger("agentcube_kernel.sessions")


class Keeper:
    """Keeps the ledger and the reaper in step with the sessions that this process owns.

    Nothing here fails because of the ledger or the reaper: sessions can be used without them, and `trouble` says what
    then does not work. Methods that are no coroutines block for some milliseconds; all are safe to call from any
    thread. A forked child starts without a reaper of its own until it owns something.

    Args:
        connection_file: the kernel's, by whose absence a shutdown is told from a crash. None where no other process
            can take a sandbox over.
        settings: where adopted sessions are, with which credential they are deleted, and how long the reaper waits for
            the next kernel while the connection file is there; by default those of the environment. Sessions that are
            created say themselves where they are.
    """

    def __init__(
        self,
        *,
        connection_file: str | None = None,
        settings: Settings | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.ledger = ledger or Ledger()
        self.connection_file = connection_file
        self.trouble: str | None = None
        """What does not work as it should, for the user; None when all does."""
        self._settings = settings
        self._lock = threading.Lock()
        self._connection: ReaperConnection | None = None
        self._pid = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Keeper {str(self.ledger.path)!r}{'' if self._connection is None else ', with a reaper'}>"

    # Sessions

    async def create(
        self,
        request: SessionRequest,
        *,
        auth: AuthProvider | None,
        access: Access | None,
        notes: SessionNotes,
    ) -> str:
        """Create a session that does not outlive this process unwanted, and return its id.

        The reaper creates it and has written it down when this returns. Whatever becomes of this process meanwhile,
        and when the call is cancelled, the session is deleted as soon as its id is known. Without a reaper it is
        created from here, as well as that goes.

        Raises:
            what `create_session` raises.
        """
        authorizer = Authorizer(auth)
        token = await authorizer.token()
        order = {
            "for": "creation",
            "request": request.to_dict(),
            "notes": notes.to_dict(),
        }
        try:
            return await self._order(order, token, access)
        except AuthenticationError as error:
            if error.status != 401 or not authorizer.invalidate(token):
                raise
            return await self._order(order, await authorizer.token(), access)
        except OSError as error:
            self.complain(f"The process that cleans up after crashes cannot be reached ({error}).")
        session_id = await create_session(request, auth=auth)
        record = notes.record(session_id, request, owner=ProcessIdentity.current())
        await self._do(lambda: self.ledger.record(record))
        return session_id

    async def _order(self, order: dict[str, Any], token: Secret | None, access: Access | None) -> str:
        await asyncio.to_thread(self.guard)
        connection = await self._connect()
        reader, writer = await asyncio.open_connection(sock=connection.release(), limit=1024 * 1024)
        try:
            order = {
                **order,
                "reaper_token": connection.token.reveal(),
                "owner": asdict(ProcessIdentity.current()),
            }
            writer.write(_with_secrets(order, token, access))
            answer: dict[str, Any] = json.loads(await reader.readline() or b"{}")
            if "error" in answer:
                raise error_from_dict(answer["error"])
            session_id = answer.get("session_id")
            if not isinstance(session_id, str):
                raise ConnectionResetError("it ended in the middle of a creation")
            # From here on the session is ours: nothing is awaited that a cancellation could cut off.
            writer.write(TAKEN + b"\n")
        finally:
            writer.close()
        if answer.get("trouble"):
            self.complain(str(answer["trouble"]))
        return session_id

    async def _connect(self) -> ReaperConnection:
        connecting = asyncio.ensure_future(asyncio.to_thread(connect, self.ledger.path))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_hang_up)
            raise

    def guard(self) -> None:
        """Be connected to a reaper. Raises OSError when there can be none."""
        with self._lock:
            if self._pid != os.getpid():
                self._connection, self._pid = None, os.getpid()
            if self._connection is not None and self._connection.alive():
                return
            settings = self._settings or _settings()
            access = Access.of(settings)
            self._connection = connect(self.ledger.path)
            hello = {
                "for": "owner",
                "reaper_token": self._connection.token.reveal(),
                "owner": asdict(ProcessIdentity.current()),
                "connection_file": self.connection_file,
                "takeover_seconds": settings.timings.takeover,
            }
            self._connection.ask(_with_secrets(hello, None, access))

    async def adopt(self, session_id: str) -> bool:
        """Own a session that an earlier process of this machine has left, if it is there for the taking."""
        if not await self._do(lambda: self.ledger.adopt(session_id)):
            return False
        try:
            await asyncio.to_thread(self.guard)
        except OSError as error:
            self.complain(f"The process that cleans up after crashes cannot be reached ({error}).")
        return True

    async def known(self) -> list[SessionRecord]:
        """The sessions of the ledger, none when it cannot be read."""
        return await self._do(self.ledger.sessions) or []

    async def find(self, session_id: str) -> SessionRecord | None:
        """What the ledger knows of a session, None when it knows nothing."""
        return await self._do(lambda: self.ledger.session(session_id))

    async def note(self, session_id: str, **changes: Any) -> bool:
        """Change a session's record; False when there is none."""
        return bool(await self._do(lambda: self.ledger.update(session_id, **changes)))

    async def forget(self, session_id: str) -> None:
        """Drop the record of a session that is gone."""
        await self._do(lambda: self.ledger.forget(session_id))

    # The end

    def close(self, *, takeover: bool = False) -> None:
        """This process ends, or owns nothing more: the reaper deletes what it still owns, without holding anybody up.

        With `takeover` the next kernel on the connection file gets the time to take it over first. Closing twice does
        nothing more.
        """
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is None or self._pid != os.getpid():
                return
            with contextlib.suppress(OSError):  # it was killed; the next reaper does its work
                if not takeover:
                    connection.say(NOW)
            connection.close()

    async def _do(self, action: Callable[[], T]) -> T | None:
        try:
            return await asyncio.to_thread(action)
        except LedgerError as error:
            self.complain(str(error))
            return None

    def complain(self, reason: str) -> None:
        log.warning("%s", reason)
        self.trouble = (
            f"{reason} Sandboxes work, but after a crash they are not found again and are left to their idle timeout, "
            "and `agentcube-kernel sessions list` does not show them."
        )


def _settings() -> Settings:
    """The settings of the environment; the defaults where they are bad, which whoever needs them says."""
    try:
        return Settings.load()
    except ConfigurationError:
        return Settings()


def _with_secrets(message: dict[str, Any], token: Secret | None, access: Access | None) -> bytes:
    """A message to the reaper as a line. What is secret in it is in no other frame, for tracebacks show variables."""
    told = None if access is None else access.to_dict()
    return json.dumps({**message, "token": revealed(token), "access": told}).encode() + b"\n"


def _hang_up(connecting: asyncio.Future[ReaperConnection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
