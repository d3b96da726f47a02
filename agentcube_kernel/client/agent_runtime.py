"""An agent-runtime session: its life and its invocations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..errors import ClientStateError, ConfigurationError
from ..wire.data_plane import DEFAULT_TIMEOUT
from ..wire.http import DEFAULT_LIMIT
from .agent_data_plane import AsyncAgentRuntimeDataPlaneClient, json_or_text
from .session import AsyncSessionClient, Creation

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Awaitable, Callable, Mapping

    from ..config import Settings
    from ..results import SessionInfo
    from ..sessions.creation import SessionNotes
    from ..sessions.keeper import Keeper
    from ..wire.auth import AuthProvider
    from ..wire.endpoints import Kind
    from ..wire.http import AsyncTransport
    from .agent_data_plane import InvocationStream

P = ParamSpec("P")
C = TypeVar("C", bound="AsyncAgentRuntimeClient")


class AsyncAgentRuntimeClient(AsyncSessionClient):
    """One session of an AgentRuntime.

    ::

        async with AsyncAgentRuntimeClient("my-agent") as agent:
            answer = await agent.invoke({"prompt": "Hello"})

    The Router creates the session. Deleting it needs the WorkloadManager: its URL is `workload_manager_url` or
    `WORKLOAD_MANAGER_URL` and never guessed; without it an owned session cannot be deleted, which a
    `SessionLeakWarning` reports; everything else works. The stock SDK never deletes these sessions. With `session_id`
    it attaches, and never deletes that session unless told `stop(force=True)`.

    Args:
        agent_name: the AgentRuntime.
        namespace: its Kubernetes namespace; default `AGENTCUBE_NAMESPACE`, then `default`.
        router_url: default `ROUTER_URL`.
        verbose: log this client's steps at INFO instead of DEBUG.
        session_id: attach to this session.
        timeout: default of every call, in seconds.
        connect_timeout: for one connection, in seconds; default `AGENTCUBE_CONNECT`, then 5.
        auth_token, auth: the credential for both servers; `auth` is any object with `get_token()`.
        workload_manager_auth: another credential for the WorkloadManager.
        settings: use these instead of reading the environment; other arguments win over them.
        on_session: called the moment the id of a created session is known; when it raises, the session is deleted.
        keeper: sees to it that a created session does not outlive this process, however that ends; `notes` is what
            the ledger says of it.
        max_connections: requests in flight at once; more wait.
        transport: takes the place of the network.

    Raises:
        ConfigurationError: an argument or a setting has a bad type or value.
    """

    kind: Kind = "agent-runtime"
    _data_plane: AsyncAgentRuntimeDataPlaneClient | None = None

    def __init__(
        self,
        agent_name: str,
        namespace: str | None = None,
        router_url: str | None = None,
        verbose: bool = False,
        session_id: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float | None = None,
        auth_token: str | None = None,
        auth: AuthProvider | None = None,
        *,
        workload_manager_url: str | None = None,
        workload_manager_auth: AuthProvider | None = None,
        settings: Settings | None = None,
        on_session: Callable[[SessionInfo], Awaitable[None] | None] | None = None,
        keeper: Keeper | None = None,
        notes: SessionNotes | None = None,
        max_connections: int = DEFAULT_LIMIT,
        transport: AsyncTransport | None = None,
    ) -> None:
        super().__init__(
            name=agent_name,
            namespace=namespace,
            ttl=None,
            workload_manager_url=workload_manager_url,
            router_url=router_url,
            picod_url=None,
            auth_token=auth_token,
            auth=auth,
            workload_manager_auth=workload_manager_auth,
            session_id=session_id,
            settings=settings,
            create_through="auto",
            on_session=on_session,
            keeper=keeper,
            notes=notes,
            timeout=timeout,
            connect_timeout=connect_timeout,
            max_connections=max_connections,
            transport=transport,
            verbose=verbose,
        )
        self.agent_name = agent_name
        if self.settings.picod_url is not None:
            raise ConfigurationError(
                "A bare PicoD (AGENTCUBE_PICOD_URL) has no agent runtimes: set ROUTER_URL or give router_url.",
                name="router_url",
            )

    @classmethod
    def create(cls: Callable[P, C], *args: P.args, **kwargs: P.kwargs) -> Creation[C]:
        """Construct and open: `agent = await Client.create(…)`, or `async with Client.create(…) as agent`.

        Takes what the constructor takes. Awaited, the caller has to await `stop()` or `close()` at the end.
        """
        return Creation(cls(*args, **kwargs))

    @property
    def data_plane(self) -> AsyncAgentRuntimeDataPlaneClient:
        """The client for invocations.

        Raises:
            ClientStateError: not open yet.
        """
        if self._data_plane is None:
            raise ClientStateError("The client is not open. Use `async with`, or await open() first.")
        return self._data_plane

    async def invoke(self, payload: Mapping[str, Any], timeout: float | None = None, path: str = "") -> Any:
        """POST `payload` as JSON to a path of the agent; the JSON it answers with, or its text if it is not JSON.

        `timeout` is in seconds; None is the client's default and `NO_TIMEOUT` no limit. A call that is cancelled
        or times out does not stop the agent.

        Raises:
            InvocationError: the agent answered with an error status; `content` is what it said.
            SessionNotFoundError: the session is gone.
            ExchangeError: the agent could not be asked; `delivery` tells whether it may have been.
        """
        session_id = self._session()
        answer = await self.data_plane.invoke(session_id, payload, timeout, path)
        return json_or_text(answer, session_id)

    def invoke_stream(
        self, payload: Mapping[str, Any], timeout: float | None = None, path: str = ""
    ) -> contextlib.AbstractAsyncContextManager[InvocationStream]:
        """As `invoke`, with the answer as it arrives.

        ::

            async with agent.invoke_stream({"prompt": "Hello"}) as stream:
                async for text in stream:
                    print(text, end="")

        `timeout` is the longest pause between two pieces, in seconds. Leaving the `async with` hangs up.

        Raises:
            ResponseError: while reading, when the answer is cut short.
            AgentCubeError: as `invoke`.
        """
        return self.data_plane.invoke_stream(self._session(), payload, timeout, path)

    def _session(self) -> str:
        if self.session_id is None:
            raise ClientStateError("The client has no session. Use `async with`, or await open() first.")
        return self.session_id

    def _make_data_plane(self, router_url: str | None) -> AsyncAgentRuntimeDataPlaneClient:
        if self._data_plane is None:
            self._data_plane = AsyncAgentRuntimeDataPlaneClient(
                str(router_url),
                self.namespace,
                self.agent_name,
                timeout=self.timeout,
                connect_timeout=self.connect_timeout,
                auth=self._router_auth,
                max_connections=self._max_connections,
                timings=self.settings.timings,
                transport=self._transport,
            )
        return self._data_plane
