"""One session's PicoD through the Router, raw: commands, files, health. Every call is one exchange."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..arguments import check_timeout, remote_file_path, remote_path
from ..limits import DEFAULT_LIMITS
from ..timings import Timings
from . import answers
from .endpoints import SESSION_HEADER, InvocationEndpoint
from .heartbeat import Heartbeat
from .http import DEFAULT_LIMIT, Connections, HttpAnswer
from .picod_messages import PicoD, execute_body, upload_form
from .server_connection import JSON, ServerConnection

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from ..results import CommandResult, FileInfo, Health
    from .auth import AuthProvider
    from .http import AsyncTransport

DEFAULT_TIMEOUT = 120.0
# PicoD answers a command that was stopped only when every holder of its output is gone, so it gets a while more.
_GRACE = 10.0
_LONGEST_ERROR = 64 * 1024


class DataPlane:
    """PicoD's requests for one session, each sent once: whoever may repeat one does so with `RetryPolicy.call`.

    `timeout` (seconds) is the default of every call. At most `max_connections` requests are in flight at once; more
    wait. It belongs to the event loop it is first used on.
    """

    def __init__(
        self,
        endpoint: InvocationEndpoint,
        session_id: str | None,
        *,
        auth: AuthProvider | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float | None = None,
        timings: Timings | None = None,
        max_connections: int = DEFAULT_LIMIT,
        transport: AsyncTransport | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.session_id = session_id
        self.timeout = timeout
        self._timings = timings or Timings()
        self._connect_timeout = connect_timeout or self._timings.connect
        self._auth = auth
        self._transport = transport
        connections = Connections(
            endpoint.base,
            limit=max_connections,
            connect_timeout=self._connect_timeout,
            transport=transport,
        )
        headers = () if session_id is None else ((SESSION_HEADER, session_id),)
        self._server = ServerConnection(connections, auth, headers=headers)
        self._picod = PicoD(endpoint, session_id)
        self._execute_url = endpoint.url("api/execute")
        self._files_url = endpoint.url("api/files")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} session={self.session_id} {self._server.connections!r}>"

    def separate(self, max_connections: int) -> DataPlane:
        """The same session over a connection pool of its own, which the caller closes."""
        return DataPlane(
            self.endpoint,
            self.session_id,
            auth=self._auth,
            timeout=self.timeout,
            connect_timeout=self._connect_timeout,
            timings=self._timings,
            max_connections=max_connections,
            transport=self._transport,
        )

    async def execute(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        on_abandon: Callable[[asyncio.Task[HttpAnswer]], None] | None = None,
    ) -> CommandResult:
        """Run one command, without a shell, and return its output when it has ended; any exit code is a result.

        `timeout` (seconds) is enforced in the sandbox, where the command then ends with exit code 124; None is the
        default and `NO_TIMEOUT` no limit. The session is kept from idling out while this waits. `on_abandon` is
        called with the exchange's task when the call ends before the exchange does.

        A cancelled call, and one whose answer does not come, leaves the command running in the sandbox.

        Raises:
            DataPlaneError: the sandbox refused the request.
            ExchangeError: as its subclasses say; `delivery` tells whether the command may have been started.
            ConfigurationError: an argument has a bad type or value.
        """
        seconds = check_timeout(timeout, default=self.timeout)
        call = self._server.send(
            "POST",
            self._execute_url,
            read=self._picod.read_result,
            body=execute_body(command, seconds, env, working_dir),
            headers=(JSON,),
            timeout=None if math.isinf(seconds) else seconds + _GRACE,
            on_abandon=on_abandon,
        )
        if seconds <= self._timings.keep_awake or self.endpoint.bare:
            return await call
        async with Heartbeat(self.health, interval=self._timings.keep_awake):
            return await call

    async def write(self, path: str, data: bytes | memoryview, *, mode: str = "0600") -> None:
        """Write a file of at most 32 MiB with its path; parent folders are created. Idempotent, and not atomic.

        `mode` is octal and holds for new files only. A call that fails or is cancelled may have written all or a
        part of the file.

        Raises:
            RemoteFileError: the sandbox could not write the file.
            RequestTooLargeError: `data` is too long.
        """
        target = remote_file_path(path, name="path", session_id=self.session_id)
        content_type, body = upload_form(target, data, mode)
        await self._server.send(
            "POST",
            self._files_url,
            read=lambda answer: self._picod.check_file(answer, target),
            body=body,
            headers=(content_type,),
            timeout=self.timeout,
        )

    async def read(self, path: str) -> bytes:
        """A whole file of the workspace, up to 1 GiB.

        Raises:
            RemoteFileError: there is no such file, or it cannot be read.
        """
        target = remote_file_path(path, name="path", session_id=self.session_id)
        answer = await self._server.send(
            "GET",
            self.endpoint.file_url(target),
            read=lambda answer: self._picod.check_file(answer, target),
            timeout=self.timeout,
        )
        return answer.body

    async def list(self, path: str) -> list[FileInfo]:
        """The entries of one folder of the workspace, sorted by name.

        Raises:
            RemoteFileError: there is no such folder, or it cannot be read.
            ResponseError: the listing has more than 200,000 entries or 64 MiB.
        """
        target = remote_path(path, name="path", session_id=self.session_id)
        return await self._server.send(
            "GET",
            f"{self._files_url}?path={quote(target)}",
            read=lambda answer: self._picod.read_listing(answer, path, DEFAULT_LIMITS.listing_entries),
            timeout=self.timeout,
            largest=DEFAULT_LIMITS.listing_bytes,
        )

    @contextlib.asynccontextmanager
    async def open(
        self, path: str, headers: tuple[tuple[str, str], ...] = (), *, timeout: float
    ) -> AsyncIterator[tuple[HttpAnswer, AsyncIterator[bytes]]]:
        """The head and the pieces of a file, or of the rest of it that a Range header asks for.

        `timeout` is the longest pause between two pieces, in seconds.

        Raises:
            RemoteFileError: there is no such file, or it cannot be read.
            ResponseError: while reading, when the answer is cut short.
        """
        url = self.endpoint.file_url(path)
        async with self._server.stream("GET", url, headers=headers, timeout=timeout) as (head, pieces):
            if head.status in (200, 206) and answers.from_sandbox(head, self.endpoint):
                yield head, pieces
                return
            whole = await answers.with_body(head, pieces, limit=_LONGEST_ERROR)
            self._picod.check_file(whole, path)
            raise answers.wrong_shape(whole, "a file", session_id=self.session_id)

    async def health(self) -> Health:
        """The sandbox daemon's report. Counts as activity of the session.

        Raises:
            SessionNotFoundError: the session is gone.
            ExchangeError: the sandbox cannot be reached.
        """
        return await self._server.send(
            "GET",
            self.endpoint.url("health"),
            read=self._picod.read_health,
            timeout=min(self.timeout, 10.0),
        )

    async def aclose(self) -> None:
        """Close the connections; the session lives on. Idempotent."""
        await self._server.aclose()
