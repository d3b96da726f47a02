"""A code-interpreter session: its life, its commands and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ..errors import ClientStateError
from ..wire.data_plane import DEFAULT_TIMEOUT
from ..wire.http import DEFAULT_LIMIT
from .data_plane import AsyncCodeInterpreterDataPlaneClient
from .operations import Operations
from .session import AsyncSessionClient, Creation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..config import Settings
    from ..results import SessionInfo
    from ..sessions.creation import SessionNotes
    from ..sessions.keeper import Keeper
    from ..wire.auth import AuthProvider
    from ..wire.endpoints import Kind
    from ..wire.http import AsyncTransport
    from .housekeeping import SessionTools
    from .session import CreateThrough

P = ParamSpec("P")
C = TypeVar("C", bound="AsyncCodeInterpreterClient")


class AsyncCodeInterpreterClient(Operations, AsyncSessionClient):
    """One code-interpreter session.

    ::

        async with AsyncCodeInterpreterClient() as client:
            print(await client.run_code("python", "print('hello')"))

    Without arguments the settings come from the environment, and with nothing set there either, from the embedded
    gateway on this machine. Constructing does no I/O. `async with` opens the client and stops it at the end;
    `await AsyncCodeInterpreterClient.create(...)` opens it and leaves stopping to the caller. With `session_id`
    it attaches to a session that exists, and never deletes it unless told `stop(force=True)`.

    Args:
        name: the CodeInterpreter to create the session from; default `AGENTCUBE_INTERPRETER`, then
            `my-interpreter`.
        namespace: its Kubernetes namespace; default `AGENTCUBE_NAMESPACE`, then `default`.
        ttl: the session's longest lifetime in seconds, capped by the cluster. The stock SDK sends 3600 when it is
            not given, which servers before August 2026 ignored; None leaves it to the cluster.
        workload_manager_url, router_url: where AgentCube is; default `WORKLOAD_MANAGER_URL`, `ROUTER_URL`.
        auth_token, auth: the credential for both servers; `auth` is any object with `get_token()`.
        verbose: log this client's steps at INFO instead of DEBUG.
        session_id: attach to this session.
        workload_manager_auth: another credential for the WorkloadManager.
        picod_url: one PicoD and nothing else; no session is created or deleted.
        settings: use these instead of reading the environment; other arguments win over them.
        create_through: who creates the session. `auto` asks the WorkloadManager where one is configured, and
            the Router otherwise or when it serves only sessions with an owner.
        on_session: called the moment the id of a created session is known; when it raises, the session is deleted.
        keeper: sees to it that a created session does not outlive this process, however that ends; `notes` is what
            the ledger says of it.
        timeout: default of every call, in seconds.
        connect_timeout: for one connection, in seconds; default `AGENTCUBE_CONNECT`, then 5.
        max_connections: requests in flight at once; more wait.
        transport: takes the place of the network.

    Raises:
        ConfigurationError: an argument or a setting has a bad type or value.
    """

    kind: Kind = "code-interpreter"
    _data_plane: AsyncCodeInterpreterDataPlaneClient | None = None

    def __init__(
        self,
        name: str | None = None,
        namespace: str | None = None,
        ttl: float | None = None,
        workload_manager_url: str | None = None,
        router_url: str | None = None,
        auth_token: str | None = None,
        verbose: bool = False,
        session_id: str | None = None,
        auth: AuthProvider | None = None,
        *,
        workload_manager_auth: AuthProvider | None = None,
        picod_url: str | None = None,
        settings: Settings | None = None,
        create_through: CreateThrough = "auto",
        on_session: Callable[[SessionInfo], Awaitable[None] | None] | None = None,
        keeper: Keeper | None = None,
        notes: SessionNotes | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float | None = None,
        max_connections: int = DEFAULT_LIMIT,
        transport: AsyncTransport | None = None,
    ) -> None:
        super().__init__(
            name=name,
            namespace=namespace,
            ttl=ttl,
            workload_manager_url=workload_manager_url,
            router_url=router_url,
            picod_url=picod_url,
            auth_token=auth_token,
            auth=auth,
            workload_manager_auth=workload_manager_auth,
            session_id=session_id,
            settings=settings,
            create_through=create_through,
            on_session=on_session,
            keeper=keeper,
            notes=notes,
            timeout=timeout,
            connect_timeout=connect_timeout,
            max_connections=max_connections,
            transport=transport,
            verbose=verbose,
        )

    @classmethod
    def create(cls: Callable[P, C], *args: P.args, **kwargs: P.kwargs) -> Creation[C]:
        """Construct and open: `client = await Client.create(…)`, or `async with Client.create(…) as client`.

        Takes what the constructor takes. Awaited, the caller has to await `stop()` or `close()` at the end.
        """
        return Creation(cls(*args, **kwargs))

    @property
    def data_plane(self) -> AsyncCodeInterpreterDataPlaneClient:
        """The client for this session's commands and files.

        Raises:
            ClientStateError: not open yet.
        """
        if self._data_plane is None:
            raise ClientStateError("The client is not open. Use `async with`, or await open() first.")
        return self._data_plane

    @property
    def _tools(self) -> SessionTools:
        return self.data_plane._tools

    def _make_data_plane(self, router_url: str | None) -> AsyncCodeInterpreterDataPlaneClient:
        self._data_plane = AsyncCodeInterpreterDataPlaneClient(
            self.session_id,
            router_url,
            self.namespace,
            self.name,
            picod_url=self.settings.picod_url,
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
            auth=self._router_auth,
            max_connections=self._max_connections,
            timings=self.settings.timings,
            transport=self._transport,
        )
        return self._data_plane

    async def _probe(self) -> None:
        await self.data_plane.health()
