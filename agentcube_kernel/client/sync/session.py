"""What the synchronous clients of both kinds of session share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ..session import AsyncSessionClient, State
from .facade import SyncFacade

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...config import Settings
    from ...results import Ownership

T = TypeVar("T")
A = TypeVar("A", bound=AsyncSessionClient)


class SyncSessionClient(SyncFacade[A]):
    """A client whose methods wait for their results.

    The first call that needs it opens the session, as does `with`, which also stops it at the end. The client may be
    used by many threads. A child process that is forked while the client is open uses the session as an attached one,
    with connections of its own. At the interpreter's exit connections are closed and sessions are kept.
    """

    def __init__(self, make: Callable[..., A], **arguments: Any) -> None:
        super().__init__(make(**arguments))
        self._make = make
        self._arguments = arguments

    def _in_child(self, parent: A) -> A:
        return self._make(**{**self._arguments, "session_id": parent.session_id})

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

    def _run(self, call: Callable[[A], Awaitable[T]]) -> T:
        """Await a call on the client, opening it first if need be."""

        async def opened(core: A) -> T:
            await core.open()
            return await call(core)

        return self._call(opened)

    def _needs_closing(self, core: A) -> bool:
        return core.state is State.OPEN
