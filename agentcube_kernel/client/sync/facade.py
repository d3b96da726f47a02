"""What the synchronous clients share: the asynchronous client that does the work, and the way to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..session import AsyncSessionClient, State
from .portal import portal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType
    from typing import Self

    from ...config import Settings
    from ...results import Ownership

T = TypeVar("T")
A = TypeVar("A", bound=AsyncSessionClient)

# Clients of the parent process, kept in a forked child so that their sockets are not touched there.
_inherited: list[object] = []


class SyncSessionClient(Generic[A]):
    """A client whose methods wait for their results.

    The first call that needs it opens the session, as does ``with``, which also stops it at the end. The client may
    be used by many threads. A child process that is forked while the client is open uses the session as an attached
    one, with connections of its own. At the interpreter's exit connections are closed and sessions are kept.
    """

    def __init__(self, make: Callable[..., A], **arguments: Any) -> None:
        self._make = make
        self._arguments = arguments
        self._core = make(**arguments)
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return repr(self._core).replace("<Async", "<", 1)

    def __enter__(self) -> Self:
        portal().run(self._async().__aenter__)
        self._register()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        core = self._async()
        portal().run(lambda: core.__aexit__(kind, error, traceback))
        self._unregister()

    @property
    def session_id(self) -> str | None:
        """The session's id. A client that is to create its session does so when this is first asked for."""
        core = self._async()
        if core.session_id is None and core.state is State.NEW:
            self.open()
        return core.session_id

    @property
    def ownership(self) -> Ownership:
        """Who is to delete the session."""
        return self._core.ownership

    @property
    def state(self) -> State:
        """Where the client is in its life."""
        return self._core.state

    @property
    def closed(self) -> bool:
        """True after `close()` or `stop()`."""
        return self._core.closed

    @property
    def settings(self) -> Settings:
        """The settings in force, and where they came from."""
        return self._core.settings

    def open(self) -> None:
        """Create the session, or attach to the one whose id was given. Idempotent; the first call does it too.

        Raises:
            InterpreterNotFoundError, SessionCreateError: no session could be created; none is left behind, unless
                the error says so.
            AuthenticationError, PermissionDeniedError, ConnectionFailedError: as their names say.
            ClientStateError: the client is closed.
        """
        portal().run(self._async().open)
        self._register()

    def close(self) -> None:
        """Close this side: connections and tasks. The session lives on, until it idles out. Idempotent."""
        portal().run(self._async().close)
        self._unregister()

    def stop(self, *, force: bool = False) -> None:
        """Delete the session if this client created it, and close.

        An attached session is deleted only with `force`. A session that is gone already counts as deleted. When
        the session cannot be deleted its id is kept and `stop()` can be called again; without access to a
        WorkloadManager a `SessionLeakWarning` says which session lives on. Idempotent.

        Raises:
            SessionDeleteError: the session may still be running; its message has the command that deletes it.
        """
        core = self._async()
        portal().run(lambda: core.stop(force=force))
        self._unregister()

    def detach(self) -> str:
        """Give the session up without deleting it, and return its id for somebody else.

        The client can go on using the session, but will not delete it any more. It still has to be closed.

        Raises:
            SessionError: there is no session.
        """
        return self._async().detach()

    def _async(self) -> A:
        if self._pid != os.getpid():
            _inherited.append(self._core)
            session_id = self._core.session_id
            self._pid = os.getpid()
            self._core = self._make(**{**self._arguments, "session_id": session_id})
        return self._core

    def _run(self, call: Callable[[A], Awaitable[T]]) -> T:
        """Await a call on the client, opening it first if need be."""
        core = self._async()

        async def opened() -> T:
            await core.open()
            return await call(core)

        fresh = core.state is State.NEW
        try:
            return portal().run(opened)
        finally:
            if fresh and core.state is State.OPEN:
                self._register()

    def _iterate(self, iterate: Callable[[A], AsyncIterator[T]]) -> Iterator[T]:
        """The items of an asynchronous iterator of the client."""
        core = self._async()
        self._run(_nothing)
        return portal().iterate(lambda: iterate(core))

    def _register(self) -> None:
        portal().at_exit(self._core.close)

    def _unregister(self) -> None:
        if self._core.closed:
            portal().not_at_exit(self._core.close)


async def _nothing(core: object) -> None:
    return None
