"""The same requests to a real PicoD and to the embedded gateway: the same status, the same shape, the same words."""

from __future__ import annotations

import base64
import os
import re
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import INHERITED

from .conftest import BASE, Server

pytestmark = pytest.mark.skipif(
    not INHERITED.get("AGENTCUBE_PICOD_URL"), reason="needs a PicoD (AGENTCUBE_PICOD_URL, AGENTCUBE_TOKEN)"
)

FOLDER = f"diff-{uuid.uuid4().hex[:8]}"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def execute(*command: str, **fields: Any) -> dict[str, Any]:
    return {"method": "POST", "url": "/api/execute", "json": {"command": list(command), **fields}}


def raw(body: bytes, url: str = "/api/execute") -> dict[str, Any]:
    return {"method": "POST", "url": url, "content": body}


def upload(path: str, data: bytes = b"x", **fields: Any) -> dict[str, Any]:
    return {"method": "POST", "url": "/api/files", "json": {"path": path, "content": b64(data), **fields}}


def get(url: str, **headers: str) -> dict[str, Any]:
    return {"method": "GET", "url": url, "headers": {k.replace("_", "-"): v for k, v in headers.items()}}


REQUESTS: list[dict[str, Any]] = [
    execute("sh", "-c", "echo out; echo err >&2; exit 7"),
    execute("true"),
    execute("sh", "-c", "kill -9 $$"),
    execute("sh", "-c", "printf 'a\\377\\342\\202z\\355\\240\\200\\360\\237\\230\\200'"),
    execute("sh", "-c", "echo '<&>\u2028\"'"),
    execute("sh", "-c", "echo partial; sleep 20", timeout="700ms"),
    execute("sleep", "20", timeout="1s"),
    execute("true", timeout="0s"),
    execute("true", timeout="-3s"),
    execute("true", timeout="1h2m3.5s"),
    execute("true", timeout="10"),
    execute("true", timeout="1.s"),
    execute("true", timeout=".5s"),
    execute("true", timeout="1e3s"),
    execute("true", timeout=""),
    execute("true", timeout=" 5s"),
    execute("true", timeout="99999999999h"),
    execute("true", timeout="+5s"),
    execute("true", timeout="."),
    execute("true", timeout="s"),
    execute("true", timeout="5µs5"),
    execute("no-such-program"),
    execute(""),
    execute(" "),
    execute("./nope"),
    execute("/etc/passwd"),
    execute("/"),
    execute("/nope/nope"),
    execute("a\0b"),
    execute("true", "a\0b"),
    execute("sh", "-c", "echo $A-$B", env={"A": "1", "B": ""}),
    execute("true", env={"A": "x\0y"}),
    execute("true", env=None, timeout=None, working_dir=None),
    execute("sh", "-c", "basename $PWD", working_dir=f"{FOLDER}/wd/deep"),
    execute("sh", "-c", "basename $PWD", working_dir=f"/{FOLDER}/abs"),
    execute("true", working_dir="../.."),
    execute("true", working_dir="a/../../b"),
    raw(b""),
    raw(b"null"),
    raw(b"[]"),
    raw(b"5"),
    raw(b'"x"'),
    raw(b"true"),
    raw(b"xyz"),
    raw(b'{"command":'),
    raw(b"{}"),
    raw(b'{"command":null}'),
    raw(b'{"command":[]}'),
    raw(b'{"command":"ls"}'),
    raw(b'{"command":{}}'),
    raw(b'{"command":[1]}'),
    raw(b'{"command":[null,"x"]}'),
    raw(b'{"command":["true"],"timeout":5}'),
    raw(b'{"command":["true"],"timeout":{}}'),
    raw(b'{"command":["true"],"working_dir":true}'),
    raw(b'{"command":["true"],"env":[]}'),
    raw(b'{"command":["true"],"env":{"A":1}}'),
    raw(b'{"command":["true"],"env":{"A":null}}'),
    raw(b'{"command":["true"],"unknown":[1,{"a":2}]}'),
    raw(b'{"command":["true"]} trailing'),
    raw(b" " * ((32 << 20) + 1)),
    upload(f"{FOLDER}/a.txt", b"hello world"),
    upload(f"{FOLDER}/m", mode="0600"),
    upload(f"{FOLDER}/n", mode="777"),
    upload(f"{FOLDER}/o", mode="999"),
    upload(f"{FOLDER}/m", mode="0644"),
    upload(f"/{FOLDER}/abs.txt"),
    upload(f"/../{FOLDER}/up.txt"),
    upload(f"{FOLDER}//double/./x"),
    upload(f"{FOLDER}/t/"),
    upload("../outside"),
    upload(".."),
    upload("."),
    upload(FOLDER),
    upload(f"{FOLDER}/a.txt/b"),
    upload(f"{FOLDER}/empty", b""),
    upload(""),
    upload(f"{FOLDER}/na\nme"),
    raw(b'{"path":"x","content":"***"}', "/api/files"),
    raw(b'{"path":"x","content":5}', "/api/files"),
    raw(b"", "/api/files"),
    {
        "method": "POST",
        "url": "/api/files",
        "data": {"path": f"{FOLDER}/f"},
        "files": {"file": ("n", b"\0\r\n")},
    },
    {"method": "POST", "url": "/api/files", "data": {"path": f"{FOLDER}/g"}, "files": {"file": ("n", b"")}},
    {"method": "POST", "url": "/api/files", "files": {"file": ("n", b"1")}},
    {"method": "POST", "url": "/api/files", "data": {"path": "f"}, "files": {"other": ("n", b"1")}},
    execute(
        "sh",
        "-c",
        "mkfifo -m 600 p; ln -sf a.txt l; ln -sf / r; mkdir -p d; touch -d @0 old",
        working_dir=FOLDER,
    ),
    get(f"/api/files?path={FOLDER}/d"),
    get(f"/api/files?path={FOLDER}/wd"),
    get("/api/files"),
    get("/api/files?path="),
    get("/api/files?path=nope"),
    get(f"/api/files?path={FOLDER}/a.txt"),
    get("/api/files?path=../.."),
    get(f"/api/files?path={FOLDER}/r"),
    get(f"/api/files/{FOLDER}/a.txt"),
    get(f"/api/files/{FOLDER}/l"),
    get(f"/api/files/{FOLDER}/a.txt", range="bytes=2-4"),
    get(f"/api/files/{FOLDER}/a.txt", range="bytes=-4"),
    get(f"/api/files/{FOLDER}/a.txt", range="bytes=5-"),
    get(f"/api/files/{FOLDER}/a.txt", range="bytes=50-"),
    get(f"/api/files/{FOLDER}/a.txt", range="bytes=5-2"),
    get(f"/api/files/{FOLDER}/a.txt", range="nonsense"),
    get(f"/api/files/{FOLDER}/a.txt", accept_encoding="gzip"),
    get(f"/api/files/{FOLDER}/old", if_modified_since="Thu, 01 Jan 2026 00:00:00 GMT"),
    get(f"/api/files/{FOLDER}/nope"),
    get(f"/api/files/{FOLDER}/d"),
    get(f"/api/files/{FOLDER}/r/etc/passwd"),
    get("/api/files/"),
    get("/api/files/%2e%2e/x"),
    upload(f"{FOLDER}/index.html"),
    get(f"/api/files/{FOLDER}/index.html"),
    get("/health"),
    get("/health", accept_encoding="gzip"),
    get("/nope"),
    get("/api/execute"),
    execute("true") | {"headers": {"accept-encoding": "gzip"}},
]

# Where the gateway is better than PicoD on purpose, or where the words come from somewhere else.
HEADERS = (
    "content-type",
    "content-range",
    "accept-ranges",
    "content-disposition",
    "content-encoding",
    "location",
)


@pytest.fixture(scope="module")
def picod() -> Iterator[httpx.Client]:
    """The real one."""
    headers = {"authorization": f"Bearer {INHERITED.get('AGENTCUBE_TOKEN', '')}"}
    with httpx.Client(base_url=INHERITED["AGENTCUBE_PICOD_URL"], headers=headers, trust_env=False) as client:
        yield client
        client.post("/api/execute", json={"command": ["rm", "-rf", FOLDER, "etc"]})


@pytest.fixture(scope="module")
def gateway(server: Server) -> httpx.Client:
    """The embedded one, through its Router."""
    session = server.create()
    server.http.base_url = httpx.URL(server.endpoint.data_url + BASE)
    server.http.headers["x-agentcube-session-id"] = session.id
    return server.http


def ask(client: httpx.Client, request: dict[str, Any], workspace: str) -> dict[str, Any]:
    """The answer, without what differs from call to call."""
    options = {**request, "headers": {"accept-encoding": "identity", **request.get("headers", {})}}
    answer = client.request(**options, timeout=30)
    seen: dict[str, Any] = {"status": answer.status_code}
    seen |= {name: answer.headers[name] for name in HEADERS if name in answer.headers}
    text = answer.text.replace(workspace, "WS")
    try:
        value = answer.json()
    except ValueError:
        return seen | {"text": text}
    for key in ("duration", "start_time", "end_time", "modified", "uptime"):
        if key in value:
            assert isinstance(value[key], float | int if key == "duration" else str)
            value[key] = "..."
    for entry in value.get("files") or []:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", entry["modified"])
        entry["modified"] = "..."
    return seen | {
        "json": {k: v.replace(workspace, "WS") if isinstance(v, str) else v for k, v in value.items()}
    }


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_same_answer(picod: httpx.Client, gateway: httpx.Client, number: int) -> None:
    """Status, headers that matter, and body are the same but for times and paths."""
    answers = []
    for client in (picod, gateway):
        place = client.post("/api/execute", json={"command": ["pwd", "-P"]}).json()["stdout"].strip()
        answers.append(ask(client, REQUESTS[number], place))
    real, embedded = answers
    assert embedded == real
    assert os.getpid()
