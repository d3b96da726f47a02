"""One session's PicoD, through the Router: commands, files, health."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..arguments import check_timeout, remote_file_path, remote_path
from ..config import check_segment, check_url
from ..errors import AgentCubeError, ArgumentTypeError, ConfigurationError
from ..limits import DEFAULT_LIMITS
from ..wire import answers
from ..wire.auth import explicit_auth
from ..wire.endpoints import SESSION_HEADER, InvocationEndpoint
from ..wire.http import DEFAULT_CONNECT_TIMEOUT, DEFAULT_LIMIT, Connections, HttpAnswer
from ..wire.multipart import form
from ..wire.picod import PicoD, execute_body
from ..wire.retry import RetryPolicy
from ..wire.server_connection import JSON, Link
from .commands import Commands
from .heartbeat import INTERVAL as HEARTBEAT_INTERVAL
from .heartbeat import Heartbeat
from .operations import Operations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType

    from ..results import CommandResult, FileInfo, Health
    from ..wire.auth import AuthProvider
    from ..wire.http import AsyncTransport

logger = logging.getLogger("agentcube_kernel.data_plane")

DEFAULT_TIMEOUT = 120.0
# PicoD answers a command that was stopped only when every holder of its output is gone, so it gets a while more.
GRACE = 10.0
_LONGEST_ERROR = 64 * 1024
_JSON = (JSON,)


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
        transport: AsyncTransport | None = None,
    ) -> None:
        self.endpoint = _endpoint(router_url, namespace, cr_name, base_url, picod_url)
        if session_id is None and not self.endpoint.bare:
            raise ConfigurationError("session_id must be given.", name="session_id")
        self.session_id = None if session_id is None else check_segment(session_id, name="session_id")
        self.timeout = check_timeout(timeout, default=DEFAULT_TIMEOUT)
        connections = Connections(
            self.endpoint.base,
            limit=max_connections,
            connect_timeout=check_timeout(
                connect_timeout, name="connect_timeout", default=DEFAULT_CONNECT_TIMEOUT
            ),
            transport=transport,
        )
        headers = () if self.session_id is None else ((SESSION_HEADER, self.session_id),)
        self._auth = explicit_auth(auth, None)
        self._transport = transport
        self._link = Link(connections, self._auth, headers=headers)
        self._picod = PicoD(self.endpoint, self.session_id)
        self._control: AsyncCodeInterpreterDataPlaneClient | None = None
        self._removals: set[asyncio.Task[None]] = set()
        self.commands = Commands(self)
        self._execute_url = self.endpoint.url("api/execute")
        self._files_url = self.endpoint.url("api/files")

    @property
    def _plane(self) -> AsyncCodeInterpreterDataPlaneClient:
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} session={self.session_id} {self._link.connections!r}>"

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
        return await self.execute_with(
            command, timeout=timeout, env=env, working_dir=working_dir, retry=retry
        )

    async def execute_with(
        self,
        command: Sequence[str],
        *,
        timeout: float | None,
        env: Mapping[str, str] | None,
        working_dir: str | None,
        retry: RetryPolicy,
        on_abandon: Callable[[asyncio.Task[HttpAnswer]], None] | None = None,
    ) -> CommandResult:
        """As `execute`; `on_abandon` is called when the call ends before its exchange does."""
        seconds = check_timeout(timeout, default=self.timeout)
        body = execute_body(command, seconds, env, working_dir)
        call = self._link.send(
            "POST",
            self._execute_url,
            read=self._picod.read_result,
            body=body,
            headers=_JSON,
            timeout=None if math.isinf(seconds) else seconds + GRACE,
            retry=retry,
            on_abandon=on_abandon,
        )
        if seconds <= HEARTBEAT_INTERVAL or self.endpoint.bare:
            return await call
        async with Heartbeat(self.check_health):
            return await call

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
        await self._write(path, data, mode=mode, retry=RetryPolicy.IDEMPOTENT)

    async def write_once(self, path: str, data: memoryview, *, mode: str) -> None:
        """As `upload_bytes`, but sent once."""
        await self._write(path, data, mode=mode, retry=RetryPolicy.NONE)

    async def _write(self, path: str, data: bytes | memoryview, *, mode: str, retry: RetryPolicy) -> None:
        target = remote_file_path(path, name="path", session_id=self.session_id)
        content_type, body = form(target, data, mode)
        await self._link.send(
            "POST",
            self._files_url,
            read=lambda answer: self._picod.check_file(answer, target),
            body=body,
            headers=(content_type,),
            timeout=self.timeout,
            retry=retry,
        )

    async def read_bytes(self, path: str) -> bytes:
        """A whole file of the workspace, up to 1 GiB. For large files use `download_file`.

        Raises:
            RemoteFileError: there is no such file, or it cannot be read.
        """
        target = remote_file_path(path, name="path", session_id=self.session_id)
        answer = await self._link.send(
            "GET",
            self.endpoint.file_url(target),
            read=lambda answer: self._picod.check_file(answer, target),
            timeout=self.timeout,
            retry=RetryPolicy.IDEMPOTENT,
        )
        return answer.body

    async def list_entries(self, path: str) -> list[FileInfo]:
        """The entries of a folder; more than 200,000 or 64 MiB of them are a `ResponseError`."""
        target = remote_path(path, name="path", session_id=self.session_id)
        return await self._link.send(
            "GET",
            f"{self._files_url}?path={quote(target)}",
            read=lambda answer: self._picod.read_listing(answer, path, DEFAULT_LIMITS.listing_entries),
            timeout=self.timeout,
            retry=RetryPolicy.IDEMPOTENT,
            largest=DEFAULT_LIMITS.listing_bytes,
        )

    async def check_health(self) -> Health:
        """PicoD's report."""
        return await self._link.send(
            "GET",
            self.endpoint.url("health"),
            read=self._picod.read_health,
            timeout=min(self.timeout, 10.0),
            retry=RetryPolicy.NONE,
        )

    @contextlib.asynccontextmanager
    async def open_file(
        self, path: str, headers: tuple[tuple[str, str], ...] = (), *, timeout: float
    ) -> AsyncIterator[tuple[HttpAnswer, AsyncIterator[bytes]]]:
        """The head and the pieces of a file, or of the rest of it that a Range header asks for.

        `timeout` is the longest pause between two pieces, in seconds.
        """
        url = self.endpoint.file_url(path)
        async with self._link.stream("GET", url, headers=headers, timeout=timeout) as (head, pieces):
            if head.status in (200, 206) and answers.from_sandbox(head, self.endpoint):
                yield head, pieces
                return
            body = b""
            async for piece in pieces:
                body += piece
                if len(body) > _LONGEST_ERROR:
                    break
            whole = HttpAnswer(head.status, head.headers, body, head.url)
            self._picod.check_file(whole, path)
            raise answers.wrong_shape(whole, "a file", session_id=self.session_id)

    @property
    def control(self) -> AsyncCodeInterpreterDataPlaneClient:
        """A second way to the same session, for what must not wait behind the calls it is to stop or tidy up."""
        if self._control is None:
            self._control = AsyncCodeInterpreterDataPlaneClient(
                self.session_id,
                base_url=None if self.endpoint.bare else self.endpoint.base,
                picod_url=self.endpoint.base if self.endpoint.bare else None,
                timeout=self.timeout,
                auth=self._auth,
                max_connections=4,
                transport=self._transport,
            )
        return self._control

    async def remove_soon(self, *paths: str) -> None:
        """Remove files of our own from the workspace. Failing is no error, and cancelling does not stop it."""
        task = asyncio.get_running_loop().create_task(self._remove(paths))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
        await asyncio.wait({task}, timeout=5.0)

    async def _remove(self, paths: tuple[str, ...]) -> None:
        command = ["rm", "-rf", "--", *(name for path in paths for name in (f"./{path}", f"./{path}.d"))]
        try:
            await self.control.execute(command, timeout=10.0, retry=RetryPolicy.IDEMPOTENT)
        except AgentCubeError as error:
            logger.debug("removing %s failed: %s", paths, error)

    async def close(self) -> None:
        """Close the connections; the session lives on. Idempotent.

        Commands whose calls were cancelled are given up to three seconds to be stopped. Other calls that are
        still in flight end with `ClientStateError`.
        """
        await self.commands.stopper.aclose()
        if self._removals:
            await asyncio.wait(set(self._removals), timeout=3.0)
        for task in self._removals:
            task.cancel()
        await self._link.aclose()
        if self._control is not None:
            await self._control.close()

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
