"""The life of a session's client: new, open, closed; and whose session it is.

Opening is one task, however many callers wait for it: a caller that is cancelled stops waiting, the session that is
being created stays the client's, and a later `open()` takes it or `stop()` deletes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import warnings
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ..arguments import check_count, check_timeout
from ..config import Settings
from ..errors import (
    AgentCubeError,
    ClientStateError,
    ConfigurationError,
    PermissionDeniedError,
    SessionCreateError,
    SessionError,
)
from ..results import Ownership, SessionInfo
from ..sessions.access import Access
from ..sessions.creation import SessionNotes, SessionRequest, create_session
from ..shared_attempt import SharedAttempt
from ..wire.auth import (
    Authorizer,
    TokenAuth,
    explicit_auth,
    resolve_router_auth,
    resolve_workload_manager_auth,
)
from ..wire.control_plane import AsyncControlPlaneClient, check_ttl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType
    from typing import Self

    from ..sessions.keeper import Keeper
    from ..wire.auth import AuthProvider
    from ..wire.endpoints import Kind
    from ..wire.http import AsyncTransport

logger = logging.getLogger("agentcube_kernel.client")

CreateThrough = Literal["auto", "workload-manager", "router"]

# How long `stop()` waits for a session that is just being created before it hangs up on the WorkloadManager, which
# then rolls the creation back.
_STOP_PATIENCE = 1.0


class SessionLeakWarning(ResourceWarning):
    """A session that this client created could not be deleted and lives on until it idles out."""


class State(Enum):
    """Where a client is in its life."""

    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class AsyncSessionClient:
    """What the clients of both kinds of session share. Not for direct use."""

    kind: Kind
    _data_plane: Any = None

    def __init__(
        self,
        *,
        name: str | None,
        namespace: str | None,
        ttl: float | None,
        workload_manager_url: str | None,
        router_url: str | None,
        picod_url: str | None,
        auth_token: str | None,
        auth: AuthProvider | None,
        workload_manager_auth: AuthProvider | None,
        session_id: str | None,
        settings: Settings | None,
        create_through: CreateThrough,
        on_session: Callable[[SessionInfo], Awaitable[None] | None] | None,
        keeper: Keeper | None,
        notes: SessionNotes | None,
        timeout: float,
        connect_timeout: float | None,
        max_connections: int,
        transport: AsyncTransport | None,
        verbose: bool,
    ) -> None:
        base = Settings.load() if settings is None else settings
        self.settings = base.override(
            router_url=router_url,
            workload_manager_url=workload_manager_url,
            picod_url=picod_url,
            namespace=namespace,
            interpreter=name,
            session_id=session_id,
        )
        self.name = self.settings.interpreter
        self.namespace = self.settings.namespace
        self.ttl = None if ttl is None else check_ttl(ttl)
        self.timeout = check_timeout(timeout, default=120.0)
        self.connect_timeout = check_timeout(
            connect_timeout, name="connect_timeout", default=self.settings.timings.connect
        )
        if create_through not in ("auto", "workload-manager", "router"):
            raise ConfigurationError(
                f"create_through must be 'auto', 'workload-manager' or 'router', not {create_through!r}.",
                name="create_through",
            )
        self._create_through: CreateThrough = create_through
        self._max_connections = check_count(max_connections, name="max_connections")
        self._transport = transport
        self._on_session = on_session
        self._keeper = keeper
        self._notes = notes or SessionNotes()
        self._level = logging.INFO if verbose else logging.DEBUG
        given = explicit_auth(auth, auth_token)
        self._own_manager_auth = workload_manager_auth is not None or given is not None
        self._router_auth = given or resolve_router_auth(self.settings.credentials)
        self._manager_auth = (
            explicit_auth(workload_manager_auth, None)
            or given
            or resolve_workload_manager_auth(self.settings.credentials)
        )
        self.session_id: str | None = session_id
        self.ownership = Ownership.OWNED if session_id is None else Ownership.ATTACHED
        self.state = State.NEW
        self.control_plane: AsyncControlPlaneClient | None = None
        self._resources = contextlib.AsyncExitStack()
        self._opening = SharedAttempt(self._open, name="agentcube-session")
        self._manager_url: str | None = None

    def __repr__(self) -> str:
        session = f"{self.ownership.value} session {self.session_id}" if self.session_id else "no session"
        return f"<{type(self).__name__} {self.namespace}/{self.name} {self.state.value}, {session}>"

    def __del__(self) -> None:
        if getattr(self, "state", None) is State.OPEN:
            warnings.warn(
                f"{self!r} was never closed. Use `async with`, or await close() or stop().",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException as error:
            await self._clean_up_after(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.stop()
        else:
            await self._clean_up_after(error)

    @property
    def closed(self) -> bool:
        """True after `close()` or `stop()`."""
        return self.state is State.CLOSED

    async def open(self) -> None:
        """Create the session, or attach to the one whose id was given. Idempotent and safe to call from many tasks.

        Attaching sends nothing: whether the session exists shows at the first call. A cancelled call stops waiting
        only: the creation goes on, and its session is this client's.

        Raises:
            InterpreterNotFoundError, SessionCreateError: no session could be created; none is left behind, unless
                the error says so.
            AuthenticationError, PermissionDeniedError, ConnectionFailedError: as their names say.
            ClientStateError: the client is closed.
        """
        if self.state is State.OPEN:
            return
        if self.closed:
            raise ClientStateError(f"{self!r} is closed. Create a new client.", session_id=self.session_id)
        try:
            await self._opening.join()
        except asyncio.CancelledError:
            if self.closed:
                raise ClientStateError("The client was closed while it was being opened.") from None
            raise

    async def close(self) -> None:
        """Close this side: connections and tasks. The session lives on, until it idles out. Idempotent."""
        self.state = State.CLOSED
        await self._opening.cancel()
        await self._resources.aclose()

    aclose = close

    async def stop(self, *, force: bool = False) -> None:
        """Delete the session if this client created it, and close.

        An attached session is deleted only with `force`. A session that is gone already counts as deleted. When
        the session cannot be deleted its id is kept and `stop()` can be called again; without access to a
        WorkloadManager a `SessionLeakWarning` says which session lives on. Idempotent.

        Raises:
            SessionDeleteError: the session may still be running; its message has the command that deletes it.
        """
        if self._opening.running:
            await self._opening.wait(_STOP_PATIENCE)
        elif self.state is State.NEW and self.session_id is not None and force:
            await self.open()
        try:
            if self.session_id is not None and (force or self.ownership is Ownership.OWNED):
                await self._delete()
        finally:
            await self.close()

    def detach(self) -> str:
        """Give the session up without deleting it, and return its id for somebody else.

        The client can go on using the session, but will not delete it any more. It still has to be closed.

        Raises:
            SessionError: there is no session.
        """
        if self.session_id is None:
            raise SessionError(
                "There is no session to detach: the client is not open, or its session was deleted."
            )
        self.ownership = Ownership.ATTACHED
        return self.session_id

    # --- what the two kinds of client fill in ---

    def _make_data_plane(self, router_url: str | None) -> Any:
        raise NotImplementedError

    async def _probe(self) -> None:
        """One cheap request to the session through the Router."""
        raise NotImplementedError

    # --- opening ---

    async def _open(self) -> None:
        try:
            router_url, manager_url = await self._locate()
            self._manager_url = manager_url
            if manager_url is not None:
                self.control_plane = await self._resources.enter_async_context(
                    self._make_control_plane(manager_url)
                )
            if self.session_id is None and self.settings.picod_url is None:
                await self._create(router_url, manager_url)
            await self._enter_data_plane(router_url)
            await self._check_owner(router_url, manager_url)
        except BaseException as error:
            await self._undo(error)
            raise
        self.state = State.OPEN

    async def _locate(self) -> tuple[str | None, str | None]:
        settings = self.settings
        if settings.uses_embedded_gateway:
            settings.check_embedded_allowed()
            return await self._start_gateway()
        if settings.picod_url is None and settings.router_url is None:
            raise ConfigurationError(
                "A WorkloadManager is configured but no Router: set ROUTER_URL or give router_url.",
                name="router_url",
            )
        return settings.router_url, settings.workload_manager_url

    async def _start_gateway(self) -> tuple[str, str]:
        from ..gateway.launcher import ensure_gateway

        try:
            gateway = await asyncio.to_thread(ensure_gateway)
        except AgentCubeError:
            raise
        except Exception as error:
            raise SessionCreateError(
                f"No AgentCube is configured, and the embedded gateway could not be started: {error} "
                "Set ROUTER_URL and WORKLOAD_MANAGER_URL to use a cluster."
            ) from error
        self._router_auth = self._manager_auth = TokenAuth(gateway.token)
        return gateway.router_url, gateway.workload_manager_url

    def _make_control_plane(self, manager_url: str) -> AsyncControlPlaneClient:
        return AsyncControlPlaneClient(
            manager_url,
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
            auth=self._manager_auth,
            transport=self._transport,
            credentials=self.settings.credentials,
        )

    async def _create(self, router_url: str | None, manager_url: str | None) -> None:
        through = self._create_through
        if through == "auto":
            through = "router" if manager_url is None or self.kind == "agent-runtime" else "workload-manager"
        if through == "workload-manager" and manager_url is None:
            raise ConfigurationError(
                "Creating sessions at the WorkloadManager needs WORKLOAD_MANAGER_URL or workload_manager_url.",
                name="workload_manager_url",
            )
        request = SessionRequest(
            kind=self.kind,
            name=self.name,
            namespace=self.namespace,
            ttl=self.ttl,
            through=through,
            router_url=router_url,
            workload_manager_url=manager_url,
            embedded=self.settings.uses_embedded_gateway,
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
        )
        auth = self._router_auth if through == "router" else self._manager_auth
        if self._keeper is None:
            session_id = await create_session(request, auth=auth, transport=self._transport)
        else:
            session_id = await self._keeper.create(
                request, auth=auth, access=await self._access(manager_url), notes=self._notes
            )
        self.session_id = session_id
        logger.log(self._level, "created session %s", session_id)
        await self._announce(router_url, manager_url)

    async def _access(self, manager_url: str | None) -> Access | None:
        """How this client's sessions can be deleted by another process of the user."""
        if manager_url is None or self.settings.uses_embedded_gateway:
            return None
        if self._own_manager_auth:
            return Access(url=manager_url, token=await Authorizer(self._manager_auth).token())
        return Access(url=manager_url, credentials=self.settings.credentials)

    async def _announce(self, router_url: str | None, manager_url: str | None) -> None:
        if self._on_session is None or self.session_id is None:
            return
        told = self._on_session(
            SessionInfo(
                session_id=self.session_id,
                kind=self.kind,
                name=self.name,
                namespace=self.namespace,
                ownership=self.ownership,
                router_url=router_url,
                workload_manager_url=manager_url,
            )
        )
        if inspect.isawaitable(told):
            await told

    async def _enter_data_plane(self, router_url: str | None) -> None:
        await self._resources.enter_async_context(self._make_data_plane(router_url))

    async def _check_owner(self, router_url: str | None, manager_url: str | None) -> None:
        """With OIDC on, the Router serves only sessions that it created itself; only asking shows whether it is."""
        if (
            self._create_through != "auto"
            or self.control_plane is None
            or self.ownership is not Ownership.OWNED
            or self._router_auth is None
            or self.settings.uses_embedded_gateway
            or self.kind == "agent-runtime"
        ):
            return
        try:
            await self._probe()
        except PermissionDeniedError as error:
            if "has no owner" not in str(error):
                raise
            logger.log(
                self._level, "session %s has no owner; creating one through the Router", self.session_id
            )
            await self._delete()
            self._create_through = "router"
            await self._create(router_url, manager_url)
            await self._enter_data_plane(router_url)
        except AgentCubeError as error:
            # The sandbox may still be on its way up; the first real call will say what is wrong.
            logger.debug("probing session %s: %s", self.session_id, error)

    async def _undo(self, error: BaseException) -> None:
        """Leave no session and no socket behind a failed opening; the client may try again."""
        if self.session_id is not None and self.ownership is Ownership.OWNED:
            try:
                await asyncio.shield(self._delete())
            except AgentCubeError as also:
                error.add_note(str(also))
        await self._resources.aclose()
        self._resources = contextlib.AsyncExitStack()
        self.control_plane = None
        self._data_plane = None

    # --- ending ---

    async def _delete(self) -> None:
        session_id = self.session_id
        if session_id is None:
            return
        if self._manager_url is None:
            if self.settings.picod_url is None:
                self._warn_of_leak(session_id)
            return
        if self.control_plane is not None and self.state is not State.CLOSED:
            await self.control_plane.delete_session(session_id, kind=self.kind)
        else:
            async with self._make_control_plane(self._manager_url) as control_plane:
                await control_plane.delete_session(session_id, kind=self.kind)
        logger.log(self._level, "deleted session %s", session_id)
        self.session_id = None
        if self._keeper is not None:
            await self._keeper.forget(session_id)

    def _warn_of_leak(self, session_id: str) -> None:
        logger.warning("session %s cannot be deleted: no WorkloadManager is configured", session_id)
        warnings.warn(
            f"Session {session_id} was created by this client and cannot be deleted, because no WorkloadManager is "
            "configured; it lives on until it idles out. To delete it: WORKLOAD_MANAGER_URL=… agentcube-kernel "
            f"sessions stop {session_id}",
            SessionLeakWarning,
            stacklevel=4,
        )

    async def _clean_up_after(self, error: BaseException) -> None:
        """Stop without ever taking the place of the error that is under way."""
        try:
            await self.stop()
        except AgentCubeError as also:
            error.add_note(str(also))


C = TypeVar("C", bound=AsyncSessionClient, covariant=True)


class Creation(Generic[C]):
    """What `create()` returns: awaited, an open client; in `async with`, a client that is stopped at the end."""

    def __init__(self, client: C) -> None:
        self._client = client

    def __await__(self) -> Generator[Any, None, C]:
        return self._client.__aenter__().__await__()

    async def __aenter__(self) -> C:
        return await self._client.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)
