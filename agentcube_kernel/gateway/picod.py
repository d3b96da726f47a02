"""PicoD's HTTP API for one sandbox: health, execute and files."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from . import files
from .execute import Command, Launch, look_path, run
from .multipart import parse_multipart
from .wire import (
    Answer,
    PicoError,
    RouterError,
    decode_output,
    json_answer,
    not_routed,
    parse_duration,
    rfc3339,
    whole_text,
)

if TYPE_CHECKING:
    from starlette.types import Scope

    from .execute import Outcome
    from .sandboxes import Sandbox, SandboxStore

_DEFAULT_TIMEOUT = 60.0
_LARGE = 1 << 20


class PicoD:
    """Answers what a sandbox's daemon would."""

    def __init__(self, store: SandboxStore) -> None:
        self._store = store

    async def answer(self, sandbox: Sandbox, method: str, path: str, scope: Scope, body: bytes) -> Answer:
        """The daemon's answer. Raises RouterError when the sandbox ends meanwhile."""
        try:
            if path == "/api/execute" and method == "POST":
                return await self._execute(sandbox, body)
            if path == "/api/files" and method == "POST":
                return await self._upload(sandbox, scope, body)
            if path == "/api/files" and method == "GET":
                query = parse_qs(
                    scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="surrogateescape"
                )
                return files.list_folder(sandbox.root, sandbox.workspace, query.get("path", [""])[0])
            if path.startswith("/api/files/") and method == "GET":
                return files.download(
                    sandbox.root, sandbox.workspace, path.removeprefix("/api/files"), dict(scope["headers"])
                )
            if path == "/health" and method == "GET":
                return self._health(sandbox)
        except PicoError as exc:
            return json_answer(exc.status, exc.body)
        return not_routed()

    def _health(self, sandbox: Sandbox) -> Answer:
        uptime = f"{time.monotonic() - sandbox.started:.9f}s"
        answer = json_answer(200, {"service": "PicoD", "status": "ok", "uptime": uptime, "version": "0.0.1"})
        answer.compressible = False
        return answer

    async def _execute(self, sandbox: Sandbox, body: bytes) -> Answer:
        request = _decode(body, "ExecuteRequest")
        argv = _strings(request, "command")
        timeout_text = _string(request, "timeout")
        folder = _string(request, "working_dir")
        overrides = _string_map(request, "env")
        if argv is None:
            raise PicoError(400, _missing("ExecuteRequest", "Command"))
        if not argv:
            raise PicoError(400, "command cannot be empty")
        try:
            timeout = parse_duration(timeout_text) if timeout_text else _DEFAULT_TIMEOUT
        except ValueError as exc:
            raise PicoError(400, f"Invalid timeout format: {exc}") from exc
        cwd = (
            files.working_directory(sandbox.root, sandbox.workspace, folder) if folder else sandbox.workspace
        )
        return await self._run(sandbox, argv, timeout, cwd, overrides)

    async def _run(
        self, sandbox: Sandbox, argv: list[str], timeout: float, cwd: str, overrides: dict[str, str]
    ) -> Answer:
        env = {**sandbox.env, **overrides} if overrides else sandbox.env
        if cwd != sandbox.workspace:
            env = {**env, "PWD": cwd}
        command = Command(self._store.children, max_output=self._store.config.max_output)
        sandbox.commands.add(command)
        try:
            outcome = await run(command, lambda: self._prepare(sandbox, argv, cwd, env), timeout=timeout)
        finally:
            sandbox.commands.discard(command)
        if sandbox.gone.is_set():
            raise RouterError(503, "sandbox unreachable")
        if len(outcome.stdout) + len(outcome.stderr) > _LARGE:
            return await asyncio.to_thread(_report, outcome)
        return _report(outcome)

    def _prepare(self, sandbox: Sandbox, argv: list[str], cwd: str, env: dict[str, str]) -> Launch:
        # Like Go's, the search for the program ignores the request's own PATH.
        executable = look_path(argv[0], sandbox.env["PATH"], cwd)
        launch = Launch(program=executable, argv=argv, executable=executable, cwd=cwd, env=env)
        return sandbox.view.wrap(launch) if sandbox.view else launch

    async def _upload(self, sandbox: Sandbox, scope: Scope, body: bytes) -> Answer:
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        if content_type.strip().lower().startswith(b"multipart/form-data"):
            form = parse_multipart(content_type, body)
            path = form.text("path")
            if not path:
                raise PicoError(400, "Missing 'path' field")
            if form.file is None:
                raise PicoError(400, f"Failed to get file: {form.problem or 'http: no such file'}")
            return await files.upload(sandbox.root, sandbox.workspace, path, form.file, form.text("mode"))
        request = _decode(body, "UploadFileRequest")
        path, content, mode = (_string(request, name) for name in ("path", "content", "mode"))
        missing = [
            _missing("UploadFileRequest", name.title())
            for name in ("path", "content")
            if not request.get(name)
        ]
        if missing:
            raise PicoError(400, "\n".join(missing))
        return await files.upload(sandbox.root, sandbox.workspace, path, files.decode_content(content), mode)


def _report(outcome: Outcome) -> Answer:
    return json_answer(
        200,
        {
            "stdout": decode_output(outcome.stdout),
            "stderr": decode_output(outcome.stderr),
            "exit_code": outcome.exit_code,
            "duration": outcome.duration,
            "start_time": rfc3339(outcome.start),
            "end_time": rfc3339(outcome.end),
        },
    )


class _Request(dict[str, Any]):
    """A decoded request body and the name of the Go type that it stands for in messages."""

    type = ""


_DECODER = json.JSONDecoder()
_KINDS = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


def _decode(body: bytes, type_name: str) -> _Request:
    text = body.decode(errors="replace").lstrip(" \t\r\n")
    if not text:
        raise PicoError(400, "EOF")
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as exc:
        position = getattr(exc, "pos", 0)
        rest = text[position:]
        if not rest or "Unterminated" in str(exc):
            raise PicoError(400, "unexpected EOF") from exc
        raise PicoError(400, f"invalid character '{rest[0]}' looking for beginning of value") from exc
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise PicoError(
            400, f"json: cannot unmarshal {_KINDS[type(value)]} into Go value of type picod.{type_name}"
        )
    # As in Go: the case of a field's name does not matter, and the last of several counts.
    request = _Request({key.lower(): item for key, item in value.items()})
    request.type = type_name
    return request


def _wrong(request: _Request, name: str, value: object, wanted: str) -> PicoError:
    found = _KINDS[type(value)]
    return PicoError(
        400, f"json: cannot unmarshal {found} into Go struct field {request.type}.{name} of type {wanted}"
    )


def _string(request: _Request, name: str) -> str:
    value = request.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(request, name, value, "string")
    return whole_text(value)


def _strings(request: _Request, name: str) -> list[str] | None:
    value = request.get(name)
    if value is None:
        return None
    if not isinstance(value, list):
        raise _wrong(request, name, value, "[]string")
    for item in value:
        if item is not None and not isinstance(item, str):
            raise _wrong(request, name, item, "string")
    return [whole_text(item or "") for item in value]


def _string_map(request: _Request, name: str) -> dict[str, str]:
    value = request.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(request, name, value, "map[string]string")
    for item in value.values():
        if item is not None and not isinstance(item, str):
            raise _wrong(request, name, item, "string")
    return {whole_text(key): whole_text(item or "") for key, item in value.items()}


def _missing(type_name: str, field: str) -> str:
    return f"Key: '{type_name}.{field}' Error:Field validation for '{field}' failed on the 'required' tag"
