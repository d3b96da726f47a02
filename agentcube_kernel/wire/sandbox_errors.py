"""Errors that a sandbox's PicoD answers with, told apart by what was asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import (
    AuthenticationError,
    ConnectionFailedError,
    DataPlaneError,
    Delivery,
    ExchangeError,
    OutsideWorkspaceError,
    RemoteFileError,
    RemoteFileNotFoundError,
    RemoteIsADirectoryError,
    RemoteNotADirectoryError,
    RemoteStorageError,
    RequestTooLargeError,
    ServerError,
    SessionError,
)
from . import answers

if TYPE_CHECKING:
    from .endpoints import InvocationEndpoint
    from .http import HttpAnswer


def execute_error(answer: HttpAnswer, endpoint: InvocationEndpoint, session_id: str | None) -> ExchangeError:
    """The error in an answer to `/api/execute` or `/health` whose status is not 200."""
    error = _common_error(answer, endpoint, session_id)
    if error is not None:
        return error
    words, details = _words_and_details(answer, session_id)
    if answer.status == 404 or answer.status == 405:
        return _other_kind(answer, endpoint, details)
    if "escapes workspace" in words:
        return OutsideWorkspaceError(
            f"working_dir leads out of the sandbox's workspace ({words}).", path="working_dir", **details
        )
    return DataPlaneError(
        f"The sandbox refused the command: {words or f'status {answer.status}'}.", **details
    )


def file_error(
    answer: HttpAnswer, endpoint: InvocationEndpoint, session_id: str | None, path: str
) -> ExchangeError:
    """The error in an answer to `/api/files` whose status is not a success."""
    error = _common_error(answer, endpoint, session_id)
    if error is not None:
        return error
    words, details = _words_and_details(answer, session_id)
    lower = words.lower()
    if answer.status == 404:
        if "not found" not in lower or "page not found" in lower:
            return _other_kind(answer, endpoint, details)
        return RemoteFileNotFoundError(f"There is no {path!r} in the sandbox.", path=path, **details)
    if "escapes workspace" in lower or "access denied" in lower:
        return OutsideWorkspaceError(
            f"{path!r} leads out of the sandbox's workspace. Give a path inside it.", path=path, **details
        )
    if "not a directory" in lower:
        return RemoteNotADirectoryError(f"{path!r}, or a part of it, is not a folder.", path=path, **details)
    if "is a directory" in lower:
        return RemoteIsADirectoryError(f"{path!r} is a folder, not a file.", path=path, **details)
    if any(
        cause in lower for cause in ("no space left", "read-only file system", "permission denied", "quota")
    ):
        return RemoteStorageError(f"The sandbox cannot store {path!r}: {words}.", path=path, **details)
    if "file name too long" in lower:
        return RemoteFileError(f"The name {path[:80]!r}… is too long for the sandbox.", path=path, **details)
    return RemoteFileError(
        f"The sandbox failed at {path!r}: {words or f'status {answer.status}'}.", path=path, **details
    )


def _common_error(
    answer: HttpAnswer, endpoint: InvocationEndpoint, session_id: str | None
) -> ExchangeError | None:
    if not answers.from_sandbox(answer, endpoint):
        return answers.router_error(answer, endpoint, session_id)
    words, details = _words_and_details(answer, session_id)
    status = answer.status
    if status < 300:
        return answers.not_json(answer, session_id=session_id)
    if status < 400:
        return answers.redirected(answer, details)
    if status == 401:
        return _unauthorised(endpoint, {**details, "delivery": Delivery.NEVER})
    if status == 413:
        return RequestTooLargeError(
            f"The request is larger than the sandbox accepts ({words}). Send it in parts: upload_file does.",
            **details,
        )
    if endpoint.bare and status in (429, 502, 503, 504):
        return _between(answer, words, details)
    return None


def _between(answer: HttpAnswer, words: str, details: dict[str, Any]) -> ExchangeError:
    """A bare PicoD never says these itself: something in between did."""
    if answer.status == 429:
        return answers.overloaded(answer, words, {**details, "delivery": Delivery.NEVER})
    if answer.status == 502 and words == "sandbox unreachable":
        return ServerError(
            "PicoD refuses connections.", **{**details, "delivery": Delivery.NEVER, "transient": True}
        )
    kind = ConnectionFailedError if answer.status == 504 else ServerError
    return kind(
        f"PicoD could not be reached: status {answer.status} ({words}).",
        **{**details, "delivery": Delivery.UNKNOWN, "transient": True},
    )


def _unauthorised(endpoint: InvocationEndpoint, details: dict[str, Any]) -> AuthenticationError:
    if endpoint.bare:
        return answers.unauthorised("PicoD", details)
    return AuthenticationError(
        "The sandbox does not accept the Router's signature. Its key is not this Router's; delete the "
        "session and create a new one.",
        **details,
    )


def _other_kind(answer: HttpAnswer, endpoint: InvocationEndpoint, details: dict[str, Any]) -> SessionError:
    if endpoint.bare:
        return SessionError(
            f"{answer.url} does not exist there. Check that AGENTCUBE_PICOD_URL is PicoD's base URL.",
            **details,
        )
    return SessionError(
        f"Session {details['session_id']} does not answer as a code interpreter does. It may be an agent runtime's: "
        "use AsyncAgentRuntimeClient for those.",
        **details,
    )


def _words_and_details(answer: HttpAnswer, session_id: str | None) -> tuple[str, dict[str, Any]]:
    words, _ = answers.error_text(answer)
    return words, {
        "session_id": session_id,
        "status": answer.status,
        "url": answer.url,
        "delivery": Delivery.DELIVERED,
    }
