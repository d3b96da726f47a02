"""The agent-runtime client for programs without an event loop, or in the middle of somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...wire.data_plane import DEFAULT_TIMEOUT
from ...wire.http import DEFAULT_LIMIT
from ..agent_runtime import AsyncAgentRuntimeClient
from .session import SyncSessionClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from ...config import Settings
    from ...results import SessionInfo
    from ...sessions.creation import SessionNotes
    from ...sessions.keeper import Keeper
    from ...wire.auth import AuthProvider
    from ...wire.http import AsyncTransport


class AgentRuntimeClient(SyncSessionClient[AsyncAgentRuntimeClient]):
    """`AsyncAgentRuntimeClient`, waiting for every result; see there for arguments and promises.

    ::

        with AgentRuntimeClient("my-agent") as agent:
            answer = agent.invoke({"prompt": "Hello"})

    Unlike with the stock SDK, constructing does no I/O, and the end of `with` deletes a session that the client
    created.
    """

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
            AsyncAgentRuntimeClient,
            agent_name=agent_name,
            namespace=namespace,
            router_url=router_url,
            verbose=verbose,
            session_id=session_id,
            timeout=timeout,
            connect_timeout=connect_timeout,
            auth_token=auth_token,
            auth=auth,
            workload_manager_url=workload_manager_url,
            workload_manager_auth=workload_manager_auth,
            settings=settings,
            on_session=on_session,
            keeper=keeper,
            notes=notes,
            max_connections=max_connections,
            transport=transport,
        )

    def invoke(self, payload: Mapping[str, Any], timeout: float | None = None, path: str = "") -> Any:
        """See `AsyncAgentRuntimeClient.invoke`."""
        return self._run(lambda c: c.invoke(payload, timeout, path))

    def invoke_stream(
        self, payload: Mapping[str, Any], timeout: float | None = None, path: str = ""
    ) -> Iterator[str]:
        """The answer as it comes, as pieces of text; see `AsyncAgentRuntimeClient.invoke_stream`.

        Closing the iterator before its end hangs up.
        """

        async def texts(client: AsyncAgentRuntimeClient) -> AsyncIterator[str]:
            async with client.invoke_stream(payload, timeout, path) as stream:
                async for text in stream:
                    yield text

        return self._iterate(texts)
