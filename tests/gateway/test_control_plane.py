"""Sessions are created and deleted as at AgentCube's WorkloadManager."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from .conftest import Server, Session


def test_create_answers_with_the_managers_shape(server: Server) -> None:
    """A created session is told in the fields and types that the WorkloadManager uses, with status 200."""
    created = server.create().created
    assert set(created) == {"kind", "sessionId", "sandboxId", "sandboxName", "entryPoints"}
    assert created["kind"] == "Sandbox"
    assert uuid.UUID(created["sessionId"]).version == 4
    assert re.fullmatch(r"my-interpreter-[a-z0-9]{8}", created["sandboxName"])
    (entry,) = created["entryPoints"]
    assert entry["path"] == "/"
    assert entry["protocol"] == "HTTP"
    assert entry["endpoint"] in server.endpoint.data_url


def test_unknown_fields_of_a_create_request_are_ignored(server: Server) -> None:
    """What the stock SDK sends beside name and namespace does no harm."""
    assert server.create(metadata={"a": 1}, ttl=3600, kind="Nonsense", color="red").id


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "Invalid request body"),
        (b"[]", 400, "Invalid request body"),
        (b'{"name": 1, "namespace": "default"}', 400, "Invalid request body"),
        (b'{"name": "a", "namespace": "default", "ttl": "1h"}', 400, "Invalid request body"),
        (b'{"name": "a"}', 400, "namespace is required"),
        (b'{"namespace": "default"}', 400, "name is required"),
        (b'{"name": "Not A Name", "namespace": "default"}', 404, "code interpreter not found"),
    ],
)
def test_create_refuses_bad_requests(server: Server, body: bytes, status: int, message: str) -> None:
    """Each bad request gets the WorkloadManager's status and message."""
    answer = server.http.post("/v1/code-interpreter", content=body)
    assert (answer.status_code, answer.json()) == (status, {"message": message})


def test_unknown_agent_runtime(server: Server) -> None:
    """An agent runtime that cannot exist is not found."""
    answer = server.http.post("/v1/agent-runtime", json={"name": "_", "namespace": "default"})
    assert (answer.status_code, answer.json()) == (404, {"message": "agent runtime not found"})


def test_delete_says_so_once(server: Server) -> None:
    """The first delete succeeds, the second finds nothing."""
    session = server.create()
    first, second = session.delete(), session.delete()
    assert (first.status_code, first.json()) == (200, {"message": "Sandbox deleted successfully"})
    assert second.status_code == 404
    assert second.json() == {"message": f"Session ID {session.id} not found, maybe already deleted"}


def test_either_route_deletes_either_kind(server: Server) -> None:
    """The WorkloadManager does not look at the kind when it deletes, and neither does the gateway."""
    session = server.create()
    assert server.http.delete(f"/v1/agent-runtime/sessions/{session.id}").status_code == 200


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "Missing authorization header"),
        ("Digest abc", "Invalid authorization header format"),
        ("Bearer wrong", "Invalid or expired token"),
        ("Basic d3Jvbmc6d3Jvbmc=", "Invalid or expired token"),
    ],
)
def test_the_token_is_required(server: Server, session: Session, header: str | None, message: str) -> None:
    """Nothing is created or deleted without the token, whatever else is shown."""
    headers = {"authorization": header} if header else {}
    body = {"name": "my-interpreter", "namespace": "default"}
    created = server.anonymous("POST", "/v1/code-interpreter", json=body, headers=headers)
    deleted = server.anonymous("DELETE", f"/v1/code-interpreter/sessions/{session.id}", headers=headers)
    for answer in (created, deleted):
        assert (answer.status_code, answer.json()) == (401, {"message": message})
    assert session.execute("true")["exit_code"] == 0


def test_token_in_the_url(server: Server) -> None:
    """A client that knows nothing of tokens may carry it as the URL's password."""
    body = {"name": "my-interpreter", "namespace": "default"}
    answer = server.anonymous("POST", "/v1/code-interpreter", json=body, auth=("agentcube", server.token))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/health", {"status": "healthy"}),
        ("/health/live", {"status": "alive"}),
        ("/health/ready", {"status": "ready"}),
    ],
)
def test_health_needs_no_token(server: Server, path: str, value: dict[str, Any]) -> None:
    """Health is for everyone."""
    answer = server.anonymous("GET", path)
    assert (answer.status_code, answer.json()) == (200, value)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/code-interpreter"),
        ("POST", "/v1/something"),
        ("POST", "/v1/code-interpreters"),
        ("GET", "/v1/code-interpreter/sessions/x"),
        ("DELETE", "/v1/code-interpreters/sessions/x"),
        ("POST", "/health"),
    ],
)
def test_what_is_not_routed(server: Server, method: str, path: str) -> None:
    """Unknown paths and methods get gin's plain text."""
    answer = server.http.request(method, path)
    assert (answer.status_code, answer.text) == (404, "404 page not found")
    assert answer.headers["content-type"] == "text/plain"


ROUTES = [
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/gateway?nonce=nnnnnnnnnnnnnnnnnnnn"),
    ("POST", "/v1/code-interpreter"),
    ("DELETE", "/v1/code-interpreter/sessions/x"),
    ("GET", "/v1/namespaces/default/code-interpreters/x/invocations/health"),
    ("GET", "/nothing"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:80"},
        {"host": ""},
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"origin": "null"},
        {"origin": "file://localhost"},
    ],
    ids=str,
)
def test_web_pages_of_other_machines(server: Server, method: str, path: str, headers: dict[str, str]) -> None:
    """A foreign Host or Origin is turned away on every route, with the token too."""
    answer = server.http.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize("origin", ["http://localhost:8888", "http://127.0.0.1", "https://[::1]:1"])
def test_web_pages_of_this_machine(server: Server, origin: str) -> None:
    """An Origin of this machine is no reason to refuse."""
    assert server.http.get("/health", headers={"origin": origin}).status_code == 200


def test_restricted_names(start: Any) -> None:
    """A gateway can be told which interpreters exist."""
    with start(AGENTCUBE_GATEWAY_INTERPRETERS="my-interpreter, team/other") as server:
        for namespace, name, status in (
            ("default", "my-interpreter", 200),
            ("team", "other", 200),
            ("default", "other", 404),
        ):
            body = {"name": name, "namespace": namespace}
            assert server.http.post("/v1/code-interpreter", json=body).status_code == status
