"""PicoD's words: what its requests look like, and what its answers say. No I/O."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..arguments import check_command, check_env, go_duration, remote_path
from ..errors import ConfigurationError
from ..results import CommandResult, FileInfo, Health
from ..text import one_line
from . import answers
from .sandbox_errors import execute_error, file_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .endpoints import InvocationEndpoint
    from .http import HttpAnswer


@dataclass(frozen=True, slots=True)
class PicoD:
    """Reads the answers of one session's PicoD."""

    endpoint: InvocationEndpoint
    session_id: str | None

    def read_result(self, answer: HttpAnswer) -> CommandResult:
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

    def check_file(self, answer: HttpAnswer, path: str) -> HttpAnswer:
        if answer.status not in (200, 201) or not answers.from_sandbox(answer, self.endpoint):
            raise file_error(answer, self.endpoint, self.session_id, path)
        return answer

    def read_listing(self, answer: HttpAnswer, path: str, most: int) -> list[FileInfo]:
        content = answers.json_object(self.check_file(answer, path), session_id=self.session_id)
        entries = content.get("files")
        if entries is None:
            entries = []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise answers.wrong_shape(answer, "an object with a list of 'files'", session_id=self.session_id)
        if len(entries) > most:
            raise answers.wrong_shape(answer, f"at most {most} files", session_id=self.session_id)
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

    def read_health(self, answer: HttpAnswer) -> Health:
        if answer.status != 200 or not answers.from_sandbox(answer, self.endpoint):
            raise execute_error(answer, self.endpoint, self.session_id)
        content = answers.json_object(answer, session_id=self.session_id)
        service, status, uptime, version = (
            one_line(str(content.get(key, ""))) for key in ("service", "status", "uptime", "version")
        )
        return Health(service=service, status=status, uptime=uptime, version=version)


def execute_body(
    command: Sequence[str], seconds: float, env: Mapping[str, str] | None, working_dir: str | None
) -> bytes:
    """The body of a request to run a command, checked."""
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


def upload_form(
    path: str, data: bytes | memoryview, mode: str
) -> tuple[tuple[str, str], tuple[bytes | memoryview, ...]]:
    """The content-type header and the parts of a body that uploads a file; `data` is not copied.

    PicoD's JSON upload cannot carry an empty file, and costs a third more.
    """
    boundary = secrets.token_hex(16)
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("path", path), ("mode", mode))
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return (
        ("content-type", f"multipart/form-data; boundary={boundary}"),
        (head.encode(), *_slices(data), f"\r\n--{boundary}--\r\n".encode()),
    )


def _slices(data: bytes | memoryview, size: int = 256 * 1024) -> list[memoryview]:
    """Pieces small enough that the event loop gets its turn between them."""
    view = memoryview(data).cast("B")
    return [view[start : start + size] for start in range(0, len(view), size)]
