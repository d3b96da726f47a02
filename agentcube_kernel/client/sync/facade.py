"""What everything synchronous is: an asynchronous object that does the work, and the way to it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from .portal import portal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from types import TracebackType
    from typing import Self

T = TypeVar("T")


class Core(Protocol):
    """What a facade needs of the asynchronous object behind it."""

    @property
    def closed(self) -> bool: ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def open(self) -> Coroutine[Any, Any, None]: ...

    def close(self) -> Coroutine[Any, Any, None]: ...

    def stop(self, *, force: bool = False) -> Coroutine[Any, Any, None]: ...

    def detach(self) -> str: ...


A = TypeVar("A", bound=Core)

# Objects of the parent process, kept in a forked child so that their sockets are not touched there.
_inherited: list[object] = []


class SyncFacade(ABC, Generic[A]):
    """An object whose methods wait for their results, over an asynchronous one on the background event loop.

    It may be used by many threads. In a forked child process `_in_child` takes the place of the parent's object. At the
    interpreter's exit the object is closed, and sessions are kept.
    """

    def __init__(self, core: A) -> None:
        self._core = core
        self._pid = os.getpid()

    @abstractmethod
    def _in_child(self, parent: A) -> A:
        """An object for a forked process, on the same session as the parent's and with connections of its own."""

    def __repr__(self) -> str:
        return repr(self._core).replace("<Async", "<", 1)

    def __enter__(self) -> Self:
        self._call(lambda core: core.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call(lambda core: core.__aexit__(kind, error, traceback))

    def open(self) -> None:
        """Create the session, or attach to the one whose id was given. Idempotent; the first call does it too.

        Raises:
            InterpreterNotFoundError, SessionCreateError: no session could be created; none is left behind, unless
                the error says so.
            AuthenticationError, PermissionDeniedError, ConnectionFailedError: as their names say.
            ClientStateError: it is closed.
        """
        self._call(lambda core: core.open())

    def close(self) -> None:
        """Close this side: connections and tasks. The session lives on, until it idles out. Idempotent."""
        self._call(lambda core: core.close())

    def stop(self, *, force: bool = False) -> None:
        """Delete the session if this object created it, and close.

        An attached session is deleted only with `force`. A session that is gone already counts as deleted. When
        the session cannot be deleted its id is kept and `stop()` can be called again; without access to a
        WorkloadManager a `SessionLeakWarning` says which session lives on. Idempotent.

        Raises:
            SessionDeleteError: the session may still be running; its message has the command that deletes it.
        """
        self._call(lambda core: core.stop(force=force))

    def detach(self) -> str:
        """Give the session up without deleting it, and return its id for somebody else.

        The object can go on using the session, but will not delete it any more. It still has to be closed.

        Raises:
            SessionError: there is no session.
        """
        return self._async().detach()

    def _async(self) -> A:
        """The asynchronous object of this process."""
        if self._pid != os.getpid():
            _inherited.append(self._core)
            self._pid = os.getpid()
            self._core = self._in_child(self._core)
        return self._core

    def _call(self, call: Callable[[A], Awaitable[T]]) -> T:
        """Await a call on the object, and see to its closing at the interpreter's exit as long as that is needed."""
        core = self._async()
        if not core.closed:
            portal().at_exit(core.close)
        try:
            return portal().run(lambda: call(core))
        finally:
            if not self._needs_closing(core):
                portal().not_at_exit(core.close)

    def _run(self, call: Callable[[A], Awaitable[T]]) -> T:
        """As `_call`, for what needs the session."""
        return self._call(call)

    def _iterate(self, iterate: Callable[[A], AsyncIterator[T]]) -> Iterator[T]:
        """The items of an asynchronous iterator of the object."""
        core = self._async()
        self._run(_nothing)
        return portal().iterate(lambda: iterate(core))

    def _needs_closing(self, core: A) -> bool:
        return not core.closed


async def _nothing(core: object) -> None:
    return None
