"""Invocations are routed as by AgentCube's Router."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from .conftest import BASE, Server, Session

HEADER = "x-agentcube-session-id"


def test_answers_of_a_sandbox_carry_its_id(session: Session) -> None:
    """Every answer that comes from the sandbox, errors too, names the session."""
    for answer in (
        session.request("GET", "/health"),
        session.request("POST", "/api/execute", json={"command": []}),
        session.request("GET", "/nowhere"),
        session.request("GET", "/api/files/missing"),
    ):
        assert answer.headers[HEADER] == session.id


def test_a_request_without_a_session_creates_one(server: Server) -> None:
    """The Router's lazy creation: the answer names the new session, which then goes on."""
    first = server.http.post(f"{BASE}/api/execute", json={"command": ["sh", "-c", "echo 1 > f"]})
    session = Session(server, first.headers[HEADER], {})
    assert session.execute("cat", "f")["stdout"] == "1\n"
    assert session.delete().status_code == 200


@pytest.mark.parametrize(
    ("resource", "words"),
    [("code-interpreters", "codeinterpreters"), ("agent-runtimes", "agentruntimes")],
)
def test_lazy_creation_of_something_unknown(server: Server, resource: str, words: str) -> None:
    """A name that is no resource's gives the Router's own 404, without a session id."""
    answer = server.http.get(f"/v1/namespaces/default/{resource}/No_Such/invocations/health")
    assert answer.status_code == 404
    assert answer.json() == {"error": f'{words}.agentcube.volcano.sh "default/No_Such" not found'}
    assert HEADER not in answer.headers


def test_unknown_session(server: Server) -> None:
    """An id that no session has is told apart from every 404 of a sandbox by its code and the missing header."""
    answer = Session(server, "nobody", {}).request("GET", "/health")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": 'sessions.agentcube.volcano.sh "nobody" not found',
        "code": "SESSION_NOT_FOUND",
    }
    assert HEADER not in answer.headers


def test_unknown_session_in_the_older_dialect(start: Any) -> None:
    """The gateway can speak as AgentCube did before it had that code."""
    with start(AGENTCUBE_GATEWAY_LEGACY_NOT_FOUND="1") as server:
        answer = Session(server, "nobody", {}).request("GET", "/health")
        assert answer.json() == {"error": 'sessions.agentcube.volcano.sh "nobody" not found'}


def test_name_and_namespace_of_an_existing_session_are_not_looked_at(
    server: Server, session: Session
) -> None:
    """The session alone decides where a request goes."""
    path = "/v1/namespaces/other/code-interpreters/another/invocations/health"
    assert server.http.get(path, headers={HEADER: session.id}).headers[HEADER] == session.id


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"])
def test_only_get_and_post(session: Session, method: str) -> None:
    """Other methods are not routed."""
    answer = session.request(method, "/health")
    assert answer.status_code == 404
    assert HEADER not in answer.headers


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("POST", 307)])
def test_missing_slash_redirects(server: Server, method: str, status: int) -> None:
    """Without its last slash the route redirects, as gin does."""
    answer = server.http.request(method, BASE, params={"a": "b"})
    assert (answer.status_code, answer.headers["location"]) == (status, BASE + "/?a=b")


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (None, "missing authorization header"),
        ("Token abc", "invalid authorization header format"),
        ("Bearer", "empty bearer token"),
        ("Bearer nonsense", "invalid or expired token"),
    ],
)
def test_the_token_is_required_to_create(server: Server, header: str | None, error: str) -> None:
    """A request that would create a session needs the token."""
    answer = server.anonymous("GET", BASE + "/health", headers={"authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.json() == {"error": error, "code": "UNAUTHORIZED"}


def test_a_session_id_is_enough_under_serve(server: Server, session: Session) -> None:
    """The stock SDK shows its token to the WorkloadManager only; its invocations are known by their session."""
    answer = server.anonymous("GET", BASE + "/health", headers={HEADER: session.id})
    assert answer.status_code == 200
    wrong = {HEADER: session.id, "authorization": "Bearer wrong"}
    assert server.anonymous("GET", BASE + "/health", headers=wrong).status_code == 401
    assert server.anonymous("GET", BASE + "/health", headers={HEADER: "guess"}).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:99", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("", 403),
    ],
)
def test_host_header(server: Server, session: Session, host: str, status: int) -> None:
    """A page that made its own name point at this machine gets nowhere, with or without the token."""
    answer = session.request("GET", "/health", headers={"host": host})
    assert answer.status_code == status
    assert (HEADER in answer.headers) == (status == 200)


def test_gzip_only_where_asked(session: Session) -> None:
    """Answers are compressed for who accepts it, the daemon's health never, and otherwise have a length."""
    plain = session.request("GET", "/api/files", params={"path": "."})
    packed = session.request(
        "GET", "/api/files", params={"path": "."}, headers={"accept-encoding": "gzip, deflate"}
    )
    assert "content-encoding" not in plain.headers
    assert int(plain.headers["content-length"]) == len(plain.content)
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    health = session.request("GET", "/health", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in health.headers


def test_health_of_the_daemon(session: Session) -> None:
    """The sandbox's own health route."""
    value = session.request("GET", "/health").json()
    assert value.pop("uptime").endswith("s")
    assert value == {"service": "PicoD", "status": "ok", "version": "0.0.1"}


def test_body_over_the_limit(session: Session) -> None:
    """More than 32 MiB: 413 when the length was announced, 400 when it was not."""
    body = b" " * ((32 << 20) + 1)
    announced = session.request("POST", "/api/execute", content=body)
    assert announced.status_code == 413
    assert announced.json() == {
        "error": "request body too large",
        "detail": "maximum allowed size is 33554432 bytes",
    }
    chunked = session.request("POST", "/api/execute", content=iter([body[: 16 << 20], body[16 << 20 :]]))
    assert (chunked.status_code, chunked.json()["code"]) == (400, 400)
    assert announced.headers[HEADER] == chunked.headers[HEADER] == session.id


def test_body_at_the_limit(session: Session) -> None:
    """Exactly 32 MiB are still taken."""
    body = b'{"command":["true"]}'.ljust(32 << 20)
    assert session.request("POST", "/api/execute", content=body).json()["exit_code"] == 0


def test_garbage_on_the_wire(server: Server) -> None:
    """What is not HTTP is refused, and the gateway goes on."""
    url = httpx.URL(server.endpoint.data_url)
    with socket.create_connection((url.host, url.port or 80), timeout=5) as connection:
        connection.sendall(b"\x16\x03\x01 garbage\r\n\r\n")
        assert b"400" in connection.recv(4096)
    assert server.http.get("/health").status_code == 200
