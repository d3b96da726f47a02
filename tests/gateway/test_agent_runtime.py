"""Agent-runtime sessions: the built-in echo, and a command of the user's own."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import Server, Start, alive, eventually, lines

AGENT = "/v1/namespaces/default/agent-runtimes/my-agent/invocations"
HEADER = "x-agentcube-session-id"

AGENT_SOURCE = """
import http.server, json, os, time

class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {"path": self.path, "pid": os.getpid(), "headers": {k.lower(): v for k, v in
        self.headers.items()}})

    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(3):
                self.wfile.write(b"2\\r\\n%d\\n\\r\\n" % number)
                self.wfile.flush()
                time.sleep(0.3)
            self.wfile.write(b"0\\r\\n\\r\\n")
        elif self.path == "/break":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        elif self.path == "/silent":
            self.close_connection = True
        elif self.path == "/exit":
            os._exit(1)
        else:
            self.answer(418, {"path": self.path, "size": len(body)})

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Agent).serve_forever()
"""


@pytest.fixture(scope="module")
def agent(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A gateway whose agent runtimes are a server of the user's own."""
    source = tmp_path_factory.mktemp("agent") / "my agent.py"
    source.write_text(AGENT_SOURCE)
    with start(AGENTCUBE_GATEWAY_RUNTIME_COMMAND=shlex.join([sys.executable, str(source)])) as running:
        yield running


def test_create_invoke_delete(server: Server) -> None:
    """An agent-runtime session is created, answers JSON with JSON, and is deleted."""
    session = server.create("agent-runtime", name="my-agent")
    headers = {HEADER: session.id}
    answer = server.http.post(f"{AGENT}/", json={"input": "hi", "n": 1}, headers=headers)
    assert answer.headers[HEADER] == session.id
    assert answer.json()["output"] == "echo: hi"
    assert answer.json()["metadata"]["received"] == {"input": "hi", "n": 1}
    path = f"/v1/agent-runtime/sessions/{session.id}"
    assert server.http.delete(path).json() == {"message": "Sandbox deleted successfully"}
    assert server.http.post(f"{AGENT}/", json={}, headers=headers).status_code == 404


def test_bootstrap_through_the_router(server: Server) -> None:
    """A GET without a session creates one and names it."""
    answer = server.http.get(f"{AGENT}/")
    assert answer.status_code == 200
    assert answer.headers[HEADER]


def test_text_and_streams(server: Server) -> None:
    """The echo answers text with text, and streams when it is asked to."""
    headers = {HEADER: server.create("agent-runtime").id}
    text = server.http.post(f"{AGENT}/", content="grüße", headers={**headers, "content-type": "text/plain"})
    assert text.text == "echo: grüße"
    assert text.headers["content-type"].startswith("text/plain")
    stream = server.http.post(f"{AGENT}/", json={"input": "a b c", "stream": True}, headers=headers)
    assert stream.headers["content-type"] == "text/event-stream"
    assert [event["output"] for event in lines(stream)] == ["a", "b", "c"]
    bad = server.http.post(f"{AGENT}/", content="{", headers=headers)
    assert (bad.status_code, bad.headers[HEADER]) == (400, headers[HEADER])


def test_a_command_of_the_users_own(agent: Server) -> None:
    """Requests reach the user's server with path, query and body, but without the gateway's token."""
    headers = {HEADER: agent.create("agent-runtime").id}
    seen = agent.http.get(f"{AGENT}/a%20b/c", params={"q": "1 2"}, headers=headers).json()
    assert seen["path"] in {"/a%20b/c?q=1%202", "/a%20b/c?q=1+2"}
    assert agent.token not in str(seen)
    assert seen["headers"]["x-forwarded-for"] == "127.0.0.1"
    answer = agent.http.post(f"{AGENT}/x", content=b"z" * 5_000_000, headers=headers)
    assert (answer.status_code, answer.json()) == (418, {"path": "/x", "size": 5_000_000})
    chunked = agent.http.post(f"{AGENT}/x", content=iter([b"abc", b"defg"]), headers=headers)
    assert chunked.json()["size"] == 7


def test_streams_come_as_they_are_made(agent: Server) -> None:
    """Parts of an answer arrive when the runtime sends them."""
    import time

    headers = {HEADER: agent.create("agent-runtime").id}
    arrived = []
    with agent.http.stream("POST", f"{AGENT}/stream", headers=headers) as answer:
        for chunk in answer.iter_bytes():
            arrived.append((time.monotonic(), chunk))
    assert b"".join(chunk for _, chunk in arrived) == b"0\n1\n2\n"
    assert arrived[-1][0] - arrived[0][0] > 0.4


def test_broken_answers(agent: Server) -> None:
    """An answer cut in the middle is seen to be cut; none at all is the Router's 503; nobody there is its 502."""
    headers = {HEADER: agent.create("agent-runtime").id}
    with pytest.raises(httpx.RemoteProtocolError):
        agent.http.post(f"{AGENT}/break", headers=headers)
    for path in ("/silent", "/exit"):
        answer = agent.http.post(AGENT + path, headers=headers)
        assert (answer.status_code, answer.json()) == (503, {"error": "sandbox unreachable"})
        assert HEADER not in answer.headers
    deadline = time.monotonic() + 10
    # A server that is still about to exit takes the connection and closes it; then nobody is there.
    while (answer := agent.http.post(f"{AGENT}/x", headers=headers)).status_code == 503:
        assert time.monotonic() < deadline
    assert (answer.status_code, answer.json()) == (502, {"error": "sandbox unreachable"})


def test_delete_ends_the_users_server(agent: Server) -> None:
    """The runtime's process goes with its session."""
    session = agent.create("agent-runtime")
    pid = agent.http.get(f"{AGENT}/", headers={HEADER: session.id}).json()["pid"]
    assert alive(pid)
    session.delete()
    assert not alive(pid)


@pytest.mark.parametrize("command", ["no-such-command", "false", "sh -c 'exit 3'"])
def test_a_command_that_does_not_serve(start: Start, command: str, tmp_path: Path) -> None:
    """A runtime that ends before it listens makes creation fail, and leaves no session."""
    with start(AGENTCUBE_GATEWAY_RUNTIME_COMMAND=command) as server:
        body = {"name": "my-agent", "namespace": "default"}
        created = server.http.post("/v1/agent-runtime", json=body)
        assert (created.status_code, created.json()) == (500, {"message": "internal server error"})
        lazily = server.http.get(f"{AGENT}/")
        assert (lazily.status_code, lazily.json()) == (500, {"error": "internal server error"})
        assert eventually(lambda: not server.process.children())
