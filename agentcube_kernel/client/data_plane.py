"""One session's PicoD, through the Router: commands, files, health."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agentcube_kernel.client import answers
from agentcube_kernel.client.arguments import (
    check_command,
    check_env,
    check_timeout,
    go_duration,
    remote_file_path,
    remote_path,
)
from agentcube_kernel.client.auth import explicit_auth
from agentcube_kernel.client.endpoints import SESSION_HEADER, InvocationEndpoint
from agentcube_kernel.client.heartbeat import INTERVAL as HEARTBEAT_INTERVAL
from agentcube_kernel.client.heartbeat import Heartbeat
from agentcube_kernel.client.http import DEFAULT_CONNECT_TIMEOUT, DEFAULT_LIMIT, Connections
from agentcube_kernel.client.link import JSON, Link
from agentcube_kernel.client.multipart import form
from agentcube_kernel.client.results import CommandResult, FileInfo, Health
from agentcube_kernel.client.retry import RetryPolicy
from agentcube_kernel.client.sandbox_errors import execute_error, file_error
from agentcube_kernel.config import check_segment, check_url
from agentcube_kernel.errors import ArgumentTypeError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from agentcube_kernel.client.auth import AuthProvider
    from agentcube_kernel.client.http import AsyncTransport, HttpAnswer

DEFAULT_TIMEOUT = 120.0
# PicoD answers a command that was stopped only when every holder of its output is gone, so it gets a while more.
GRACE = 10.0
MAX_BODY_BYTES = 32 * 1024 * 1024
_JSON = (JSON,)


class AsyncCodeInterpreterDataPlaneClient:
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
        self._link = Link(connections, explicit_auth(auth, None), headers=headers)
        self._execute_url = self.endpoint.url("api/execute")
        self._files_url = self.endpoint.url("api/files")

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
        seconds = check_timeout(timeout, default=self.timeout)
        body = _execute_body(command, seconds, env, working_dir)
        call = self._link.send(
            "POST",
            self._execute_url,
            read=self._read_result,
            body=body,
            headers=_JSON,
            timeout=None if math.isinf(seconds) else seconds + GRACE,
            retry=retry,
        )
        if seconds <= HEARTBEAT_INTERVAL or self.endpoint.bare:
            return await call
        async with Heartbeat(self.health):
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
        target = remote_file_path(path, name="path", session_id=self.session_id)
        content_type, body = form(target, data, mode)
        await self._link.send(
            "POST",
            self._files_url,
            read=lambda answer: self._check_file_answer(answer, target),
            body=body,
            headers=(content_type,),
            timeout=self.timeout,
            retry=RetryPolicy.IDEMPOTENT,
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
            read=lambda answer: self._check_file_answer(answer, target),
            timeout=self.timeout,
            retry=RetryPolicy.IDEMPOTENT,
        )
        return answer.body

    async def list_files(self, path: str = ".") -> list[FileInfo]:
        """The entries of one folder, sorted by name.

        Raises:
            RemoteFileNotFoundError, RemoteNotADirectoryError, OutsideWorkspaceError: as their names say.
        """
        target = remote_path(path, name="path", session_id=self.session_id)
        return await self._link.send(
            "GET",
            f"{self._files_url}?path={quote(target)}",
            read=lambda answer: self._read_listing(answer, path),
            timeout=self.timeout,
            retry=RetryPolicy.IDEMPOTENT,
        )

    async def health(self) -> Health:
        """The sandbox daemon's report. It also counts as activity, so it keeps an idle session alive.

        Raises:
            SessionNotFoundError: the session is gone.
            ExchangeError: the sandbox cannot be reached.
        """
        return await self._link.send(
            "GET",
            self.endpoint.url("health"),
            read=self._read_health,
            timeout=min(self.timeout, 10.0),
            retry=RetryPolicy.NONE,
        )

    async def close(self) -> None:
        """Close the connections; the session lives on. Idempotent."""
        await self._link.aclose()

    aclose = close

    def _read_result(self, answer: HttpAnswer) -> CommandResult:
        if answer.status != 200 or not answers.from_sandbox(answer, self.endpoint):
            raise execute_error(answer, self.endpoint, self.session_id)
        content = answers.json_object(answer, session_id=self.session_id)
        exit_code = content.get("exit_code")
        if not isinstance(exit_code, int) or isinstance(exit_code, bool):
            raise answers.wrong_shape(
                answer, "an object with 'exit_code' as integer", session_id=self.session_id
            )
        duration = content.get("duration")
        return CommandResult(
            stdout=answers.text(content, "stdout", answer, session_id=self.session_id),
            stderr=answers.text(content, "stderr", answer, session_id=self.session_id),
            exit_code=exit_code,
            duration=float(duration) if isinstance(duration, (int, float)) else 0.0,
        )

    def _check_file_answer(self, answer: HttpAnswer, path: str) -> HttpAnswer:
        if answer.status not in (200, 201) or not answers.from_sandbox(answer, self.endpoint):
            raise file_error(answer, self.endpoint, self.session_id, path)
        return answer

    def _read_listing(self, answer: HttpAnswer, path: str) -> list[FileInfo]:
        content = answers.json_object(self._check_file_answer(answer, path), session_id=self.session_id)
        entries = content.get("files")
        if entries is None:
            entries = []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise answers.wrong_shape(answer, "an object with a list of 'files'", session_id=self.session_id)
        return [self._file_info(entry, answer) for entry in entries]

    def _file_info(self, entry: dict[str, Any], answer: HttpAnswer) -> FileInfo:
        size, is_dir = entry.get("size"), entry.get("is_dir")
        if not isinstance(size, int) or not isinstance(is_dir, bool):
            raise answers.wrong_shape(answer, "files with 'size' and 'is_dir'", session_id=self.session_id)
        name, modified, mode = (
            answers.text(entry, key, answer, session_id=self.session_id)
            for key in ("name", "modified", "mode")
        )
        return FileInfo(name=name, size=size, modified=modified, mode=mode, is_dir=is_dir)

    def _read_health(self, answer: HttpAnswer) -> Health:
        if answer.status != 200 or not answers.from_sandbox(answer, self.endpoint):
            raise execute_error(answer, self.endpoint, self.session_id)
        content = answers.json_object(answer, session_id=self.session_id)
        service, status, uptime, version = (
            answers.printable(str(content.get(key, ""))) for key in ("service", "status", "uptime", "version")
        )
        return Health(service=service, status=status, uptime=uptime, version=version)


def _execute_body(
    command: Sequence[str], seconds: float, env: Mapping[str, str] | None, working_dir: str | None
) -> bytes:
    content: dict[str, Any] = {"command": check_command(command), "timeout": go_duration(seconds)}
    if env:
        content["env"] = check_env(env)
    if working_dir is not None:
        content["working_dir"] = remote_path(working_dir, name="working_dir")
    try:
        return json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"command cannot be encoded as UTF-8: {error.reason}.", name="command"
        ) from None


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
