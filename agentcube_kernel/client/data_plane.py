"""One session's commands and files, for who has its id and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arguments import check_segment, check_timeout, check_url
from ..errors import ArgumentTypeError, ConfigurationError
from ..wire.auth import explicit_auth
from ..wire.data_plane import DEFAULT_TIMEOUT, DataPlane
from ..wire.endpoints import InvocationEndpoint
from ..wire.http import DEFAULT_CONNECT_TIMEOUT, DEFAULT_LIMIT
from ..wire.retry import RetryPolicy
from .housekeeping import Housekeeper, SessionTools
from .operations import Operations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from ..results import CommandResult
    from ..timings import Timings
    from ..wire.auth import AuthProvider
    from ..wire.http import AsyncTransport


class AsyncCodeInterpreterDataPlaneClient(Operations):
    """Commands and files of one code-interpreter session.

    Give either `base_url` (the invocations URL) or all of `router_url`, `namespace` and `cr_name`, as with the
    stock SDK; or `picod_url` for a PicoD without a Router, which has no sessions. `timeout` (seconds) is the
    default of every call. At most `max_connections` requests are in flight at once; more wait.
    """

    def __init__(
        self,
        session_id: str | None,
        router_url: str | None = None,
        namespace: str | None = None,
        cr_name: str | None = None,
        base_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        *,
        auth: AuthProvider | None = None,
        picod_url: str | None = None,
        max_connections: int = DEFAULT_LIMIT,
        timings: Timings | None = None,
        transport: AsyncTransport | None = None,
    ) -> None:
        self.endpoint = _endpoint(router_url, namespace, cr_name, base_url, picod_url)
        if session_id is None and not self.endpoint.bare:
            raise ConfigurationError("session_id must be given.", name="session_id")
        self.session_id = None if session_id is None else check_segment(session_id, name="session_id")
        self.timeout = check_timeout(timeout, default=DEFAULT_TIMEOUT)
        self.wire = DataPlane(
            self.endpoint,
            self.session_id,
            auth=explicit_auth(auth, None),
            timeout=self.timeout,
            connect_timeout=check_timeout(
                connect_timeout, name="connect_timeout", default=DEFAULT_CONNECT_TIMEOUT
            ),
            timings=timings,
            max_connections=max_connections,
            transport=transport,
        )
        """The same requests, each sent once and repeated by whoever calls."""
        self._session_tools = SessionTools(wire=self.wire, housekeeper=Housekeeper(self.wire))

    @property
    def _tools(self) -> SessionTools:
        return self._session_tools

    def __repr__(self) -> str:
        return repr(self.wire).replace(type(self.wire).__name__, type(self).__name__, 1)

    async def __aenter__(self) -> AsyncCodeInterpreterDataPlaneClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def execute(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        retry: RetryPolicy = RetryPolicy.ONCE_DELIVERED,
    ) -> CommandResult:
        """Run one command, without a shell, and return its output when it has ended; any exit code is a result.

        `timeout` (seconds) is enforced in the sandbox, where the command then ends with exit code 124; None is
        the client's default and `NO_TIMEOUT` no limit. The session is kept from idling out while this waits.
        `working_dir` counts from the workspace and is created when missing.

        A cancelled call, and one whose answer does not come, leaves the command running in the sandbox.

        Raises:
            DataPlaneError: the sandbox refused the request.
            ExchangeError: as its subclasses say; `delivery` tells whether the command may have been started.
            ConfigurationError: an argument has a bad type or value.
        """
        return await retry.call(
            lambda: self.wire.execute(command, timeout=timeout, env=env, working_dir=working_dir)
        )

    async def upload_bytes(self, path: str, data: bytes, *, mode: str = "0600") -> None:
        """Write a file in one request: idempotent, retried, and not atomic. At most 32 MiB with its path.

        Parent folders are created. `mode` is octal and holds for new files only. A call that fails or is
        cancelled may have written all or a part of the file.

        Raises:
            RemoteFileError: the sandbox could not write the file.
            RequestTooLargeError: `data` is too long.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise ArgumentTypeError(f"data must be bytes, not {type(data).__name__}.", name="data")
        await RetryPolicy.IDEMPOTENT.call(lambda: self.wire.write(path, data, mode=mode))

    async def remove_soon(self, *paths: str) -> None:
        """Remove temporary files from the workspace, waiting up to five seconds.

        A failure is logged and not raised; a cancelled call does not stop the removal.
        """
        await self._session_tools.housekeeper.remove(*paths)

    async def close(self) -> None:
        """Close the connections; the session lives on. Idempotent.

        Commands whose calls were cancelled are given up to three seconds to be stopped. Other calls that are
        still in flight end with `ClientStateError`.
        """
        await self._session_tools.housekeeper.aclose()
        await self.wire.aclose()

    aclose = close


def _endpoint(
    router_url: str | None,
    namespace: str | None,
    cr_name: str | None,
    base_url: str | None,
    picod_url: str | None,
) -> InvocationEndpoint:
    name, space = cr_name or "", namespace or ""
    if picod_url is not None:
        return InvocationEndpoint.bare_picod(picod_url, name=name, namespace=space)
    if base_url is not None:
        return InvocationEndpoint(
            base=check_url(base_url, name="base_url"), kind="code-interpreter", name=name, namespace=space
        )
    for parameter, value in (("router_url", router_url), ("namespace", namespace), ("cr_name", cr_name)):
        if not value:
            raise ConfigurationError(
                f"{parameter} must be given: either base_url, or all of router_url, namespace and cr_name.",
                name=parameter,
            )
    return InvocationEndpoint.through_router(
        str(router_url), kind="code-interpreter", name=name, namespace=space
    )
