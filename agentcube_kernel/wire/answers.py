"""What an answer means: who sent it, and which error it stands for.

The Router puts the session header on every answer that comes from a sandbox and on none of its own, so the
header's presence says who spoke. Its own errors are `{"error": …, "code": …}`, the WorkloadManager's
`{"message": …}`, PicoD's `{"error": …, "code": int, "detail": …}`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import (
    AuthenticationError,
    ConnectionFailedError,
    Delivery,
    ExchangeError,
    InterpreterNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ResponseError,
    ServerError,
    SessionError,
    SessionNotFoundError,
)
from ..text import one_line
from .endpoints import SESSION_HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from .endpoints import InvocationEndpoint
    from .http import HttpAnswer

_SHOWN = 500


def json_object(answer: HttpAnswer, *, session_id: str | None = None) -> dict[str, Any]:
    """The answer's JSON object.

    Raises:
        ResponseError: it is HTML, is cut short, or is not an object.
    """
    try:
        content = json.loads(answer.body)
    except ValueError:
        raise not_json(answer, session_id=session_id) from None
    except RecursionError:
        content = None
    if not isinstance(content, dict):
        raise wrong_shape(answer, "a JSON object", session_id=session_id)
    return content


def not_json(answer: HttpAnswer, *, session_id: str | None = None) -> ResponseError:
    """The error for an answer that had to be JSON and is not."""
    details: dict[str, Any] = {
        "session_id": session_id,
        "status": answer.status,
        "delivery": Delivery.DELIVERED,
        "url": answer.url,
    }
    if looks_like_html(answer):
        return ResponseError(
            f"{answer.url} answered with a web page instead of JSON. Check that the URL is AgentCube's, and that no "
            "proxy or login page stands in between.",
            **details,
        )
    if answer.body.lstrip()[:1] in (b"{", b"["):
        return ResponseError(
            f"The answer from {answer.url} was cut short after {len(answer.body)} bytes.",
            transient=True,
            **details,
        )
    if not answer.body:
        return ResponseError(f"The answer from {answer.url} is empty.", transient=True, **details)
    return ResponseError(f"The answer from {answer.url} is not JSON: {excerpt(answer)!r}.", **details)


def wrong_shape(answer: HttpAnswer, expected: str, *, session_id: str | None = None) -> ResponseError:
    """The error for JSON that is not what AgentCube sends."""
    return ResponseError(
        f"The answer from {answer.url} is JSON of an unexpected shape; expected: {expected}. "
        "Check that the URL is AgentCube's and that this version of AgentCube is supported.",
        session_id=session_id,
        status=answer.status,
        delivery=Delivery.DELIVERED,
        url=answer.url,
    )


def looks_like_html(answer: HttpAnswer) -> bool:
    """True when the body is a web page, whatever its content type says."""
    start = answer.body[:200].lstrip().lower()
    return start.startswith((b"<!doctype", b"<html")) or (
        answer.headers.get("content-type", "").startswith("text/html") and start.startswith(b"<")
    )


def error_text(answer: HttpAnswer) -> tuple[str, str]:
    """The server's own words and its code, each possibly empty; printable and bounded."""
    try:
        content = json.loads(answer.body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return "" if looks_like_html(answer) else excerpt(answer), ""
    words = next((content[key] for key in ("error", "message") if isinstance(content.get(key), str)), "")
    detail = content.get("detail")
    if isinstance(detail, str) and detail:
        words = f"{words} ({detail})"
    code = content.get("code")
    return _quoted(answer, words), _quoted(answer, code) if isinstance(code, str) else ""


def excerpt(answer: HttpAnswer) -> str:
    """The beginning of an answer's body, safe to show."""
    return _quoted(answer, answer.body[: 8 * _SHOWN].decode("utf-8", "replace"))


def _quoted(answer: HttpAnswer, text: str) -> str:
    """Words of a server, printable and bounded, without the credential that the request was authorised with."""
    return one_line(text if answer.credential is None else answer.credential.scrub(text), _SHOWN)


async def with_body(head: HttpAnswer, pieces: AsyncIterator[bytes], *, limit: int) -> HttpAnswer:
    """The answer with the beginning of its body, at least `limit` bytes if there are so many."""
    body = b""
    async for piece in pieces:
        body += piece
        if len(body) > limit:
            break
    return replace(head, body=body)


def text(content: Mapping[str, Any], key: str, answer: HttpAnswer, *, session_id: str | None = None) -> str:
    """A str member of an answer's JSON object.

    Raises:
        ResponseError: it is missing or of another type.
    """
    value = content.get(key)
    if not isinstance(value, str):
        raise wrong_shape(answer, f"an object with {key!r} as text", session_id=session_id)
    return value


def from_sandbox(answer: HttpAnswer, endpoint: InvocationEndpoint) -> bool:
    """True when the sandbox gave the answer, and not the Router or something before it."""
    return endpoint.bare or SESSION_HEADER in answer.headers


def router_error(answer: HttpAnswer, endpoint: InvocationEndpoint, session_id: str | None) -> ExchangeError:
    """The error for an answer that the Router, or something between, gave instead of a sandbox."""
    words, code = error_text(answer)
    status = answer.status
    details: dict[str, Any] = {"session_id": session_id, "status": status, "url": answer.url}
    never = {**details, "delivery": Delivery.NEVER}
    if status < 300:
        return (
            not_json(answer, session_id=session_id)
            if looks_like_html(answer)
            else not_a_router(answer, details)
        )
    if status < 400:
        return redirected(answer, details)
    if status == 401:
        return unauthorised("the Router", never)
    if status == 403:
        return _forbidden(words, never)
    if status == 404:
        return _not_found(words, code, endpoint, never, answer)
    if status == 409 or code == "SESSION_TARGET_MISMATCH":
        return SessionError(
            f"Session {session_id} is of another kind than {endpoint.kind} {endpoint.namespace}/{endpoint.name}"
            f"{_said(words)}. Use the client for its kind, with the name it was created with.",
            **never,
        )
    if status == 429:
        return overloaded(answer, words, never)
    if status >= 500:
        return _server_failed(answer, words, code, details)
    return ResponseError(f"{answer.url} answered {status}{_said(words)}.", **details)


def _forbidden(words: str, never: Mapping[str, Any]) -> ExchangeError:
    session_id = never["session_id"]
    if "no owner record" in words:
        reason = (
            f"session {session_id} has no owner. The Router wants one for every session, and this one was created at "
            "the WorkloadManager. Create sessions through the Router: create_through='router'."
        )
    elif "own" in words:
        reason = f"session {session_id} belongs to somebody else. Use the credential of its owner."
    else:
        reason = "the credential lacks a role. Ask the cluster's administrator for access."
    return PermissionDeniedError(f"The Router refused access: {reason}", **never)


def _not_found(
    words: str, code: str, endpoint: InvocationEndpoint, never: Mapping[str, Any], answer: HttpAnswer
) -> ExchangeError:
    if code == "SESSION_NOT_FOUND" or words.startswith("sessions.agentcube"):
        return session_not_found(never["session_id"], **{k: v for k, v in never.items() if k != "session_id"})
    if words.startswith(("codeinterpreters.", "agentruntimes.")):
        return interpreter_not_found(endpoint.kind, endpoint.name, endpoint.namespace, never)
    if words.startswith(("no entry point found", "invalid upstream endpoint")):
        return ServerError(
            f"Session {never['session_id']} has no usable entry point{_said(words)}. It may still be starting.",
            **{**never, "transient": True},
        )
    return not_a_router(answer, never)


def session_not_found(session_id: str | None, **details: Any) -> SessionNotFoundError:
    """The error for a session that is unknown, expired or deleted."""
    return SessionNotFoundError(
        f"Session {session_id} does not exist (any more). It was deleted, or expired while idle, and its files and "
        "state are lost. Create a new session.",
        session_id=session_id,
        **details,
    )


def interpreter_not_found(
    kind: str, name: str, namespace: str, details: Mapping[str, Any]
) -> InterpreterNotFoundError:
    """The error for a CodeInterpreter or AgentRuntime that the cluster does not have."""
    resource = "CodeInterpreter" if kind == "code-interpreter" else "AgentRuntime"
    return InterpreterNotFoundError(
        f"There is no {resource} {name!r} in namespace {namespace!r}. Check the name and the namespace "
        f"(kubectl get {resource.lower()}s -A), or set AGENTCUBE_INTERPRETER and AGENTCUBE_NAMESPACE.",
        kind=resource,
        name=name,
        namespace=namespace,
        **details,
    )


def unauthorised(server: str, details: Mapping[str, Any]) -> AuthenticationError:
    """The error for a 401. The server's words are not quoted: some echo what they were sent."""
    return AuthenticationError(
        f"{server[0].upper()}{server[1:]} does not accept the credential. It may be missing, expired or "
        "meant for another server: set AGENTCUBE_TOKEN or AGENTCUBE_TOKEN_FILE, or give auth=.",
        **details,
    )


def overloaded(answer: HttpAnswer, words: str, details: Mapping[str, Any]) -> OverloadedError:
    """The error for a 429; a Retry-After in seconds becomes its `retry_after`."""
    error = OverloadedError(
        f"AgentCube is overloaded{_said(words)}. Try again later, or send fewer requests at once.",
        **{**details, "transient": True},
    )
    try:
        error.retry_after = max(0.0, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):
        error.retry_after = None
    return error


def redirected(answer: HttpAnswer, details: Mapping[str, Any]) -> ResponseError:
    """The error for a redirect, which is never followed: it would carry the credential elsewhere."""
    target = _quoted(answer, answer.headers.get("location", "an unnamed place"))
    return ResponseError(
        f"{answer.url} redirects to {target}. Redirects are not followed; use the final URL in the settings.",
        **details,
    )


def not_a_router(answer: HttpAnswer, details: Mapping[str, Any]) -> ResponseError:
    """The error for a server that does not behave as AgentCube's Router."""
    words, _ = error_text(answer)
    return ResponseError(
        f"{answer.url} answered {answer.status}{_said(words)} and not as AgentCube's Router does. "
        "Check that ROUTER_URL is the Router's base URL.",
        **details,
    )


def _server_failed(answer: HttpAnswer, words: str, code: str, details: Mapping[str, Any]) -> ExchangeError:
    status = answer.status
    if status == 502 and words == "sandbox unreachable":
        # The Router says 502 only when the sandbox refused the TCP connection.
        return ServerError(
            f"The sandbox of session {details['session_id']} refuses connections. It may be starting or be gone.",
            **{**details, "delivery": Delivery.NEVER, "transient": True},
        )
    if code == "JWT_SIGNING_FAILED":
        return ServerError(
            f"The Router could not sign the request{_said(words)}. Ask the cluster's administrator.",
            **{**details, "delivery": Delivery.NEVER},
        )
    if status == 504:
        return ConnectionFailedError(
            f"The sandbox of session {details['session_id']} did not answer the Router in time{_said(words)}.",
            **{**details, "delivery": Delivery.UNKNOWN, "transient": True},
        )
    return ServerError(
        f"AgentCube failed with status {status}{_said(words)}. The request may or may not have been carried out.",
        **{**details, "delivery": Delivery.UNKNOWN, "transient": True},
    )


def _said(words: str) -> str:
    return f" ({words})" if words else ""
