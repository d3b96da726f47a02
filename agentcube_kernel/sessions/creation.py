"""Creating one session, as a request that another process can carry out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from ..config import NO_CREDENTIALS
from .ledger import SessionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..wire.auth import AuthProvider
    from ..wire.endpoints import Kind
    from ..wire.http import AsyncTransport
    from .process_identity import ProcessIdentity

# What the Router asks the new sandbox for: PicoD answers to this path, an agent to anything.
_FIRST_PATH: Mapping[Kind, str] = {"code-interpreter": "health", "agent-runtime": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """A session that is wanted, and who is to create it. It carries no credential.

    `ttl` and the timeouts are in seconds. `embedded` says that the servers are the user's embedded gateway.
    """

    kind: Kind
    name: str
    namespace: str
    ttl: float | None = None
    through: Literal["workload-manager", "router"]
    router_url: str | None
    workload_manager_url: str | None
    embedded: bool = False
    timeout: float
    connect_timeout: float

    def to_dict(self) -> dict[str, Any]:
        """The request as JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SessionRequest:
        """The request that `to_dict` has written down."""
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionNotes:
    """What the owner of a session wants to find again in the ledger."""

    name: str | None = None
    keep: bool = False
    connection_file: str | None = None
    notebook: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The notes as JSON data; `SessionNotes(**data)` reads them."""
        return asdict(self)

    def record(self, session_id: str, request: SessionRequest, *, owner: ProcessIdentity) -> SessionRecord:
        """The ledger's record of a session that was just created."""
        return SessionRecord.new(
            session_id,
            workload_manager_url=request.workload_manager_url,
            router_url=request.router_url,
            embedded=request.embedded,
            kind=request.kind,
            namespace=request.namespace,
            interpreter=request.name,
            owner=owner,
            **self.to_dict(),
        )


async def create_session(
    request: SessionRequest, *, auth: AuthProvider | None, transport: AsyncTransport | None = None
) -> str:
    """Create the session and return its id.

    A cancelled call hangs up: AgentCube rolls back what it was creating, unless it had just finished.

    Raises:
        SessionCreateError, InterpreterNotFoundError: there is no session; with `delivery` UNKNOWN a sandbox may exist
            until its idle timeout.
        AuthenticationError, PermissionDeniedError, ConnectionFailedError, ResponseError: as their names say.
    """
    from ..wire.control_plane import AsyncControlPlaneClient
    from ..wire.endpoints import InvocationEndpoint
    from ..wire.router_sessions import create_through_router

    if request.through == "router":
        endpoint = InvocationEndpoint.through_router(
            cast("str", request.router_url),
            kind=request.kind,
            name=request.name,
            namespace=request.namespace,
        )
        return await create_through_router(
            endpoint,
            _FIRST_PATH[request.kind],
            auth=auth,
            connect_timeout=request.connect_timeout,
            transport=transport,
        )
    client = AsyncControlPlaneClient(
        request.workload_manager_url,
        timeout=request.timeout,
        connect_timeout=request.connect_timeout,
        auth=auth,
        credentials=NO_CREDENTIALS,
        transport=transport,
    )
    async with client:
        return await client.create_session(
            request.name, request.namespace, ttl=request.ttl, kind=request.kind
        )
