"""Files go up and down as with PicoD, and never leave the workspace."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Session, eventually


def put(session: Session, path: str, content: bytes, **fields: Any) -> Any:
    body = {"path": path, "content": base64.b64encode(content).decode(), **fields}
    return session.request("POST", "/api/files", json=body)


def test_upload_as_json(session: Session) -> None:
    """A file arrives with its bytes, its mode and the folders it needs."""
    answer = put(session, "a/b.bin", bytes(range(256)), mode="0600")
    value = answer.json()
    assert (answer.status_code, value["path"], value["size"], value["mode"]) == (
        200,
        "a/b.bin",
        256,
        "-rw-------",
    )
    assert (session.workspace / "a/b.bin").read_bytes() == bytes(range(256))


def test_upload_as_a_form(session: Session) -> None:
    """The multipart form works too, for binary content, for empty files and for odd names."""
    content = b"--x\r\n\r\nbinary \0\xff\r\n--"
    for path, data in (("b ö#?%.bin", content), ("empty", b"")):
        answer = session.request(
            "POST", "/api/files", data={"path": path, "mode": "0644"}, files={"file": ("n", data)}
        )
        assert (answer.status_code, answer.json()["size"]) == (200, len(data))
        assert (session.workspace / path).read_bytes() == data


@pytest.mark.parametrize("mode", ["0777", "777", "", "0888", "1777", "rwx"])
def test_modes(session: Session, mode: str) -> None:
    """Octal modes up to 0777 count, below the umask; everything else means 0644."""
    put(session, "f", b"x", mode=mode)
    umask = os.umask(0)
    os.umask(umask)
    expected = 0o777 if mode in {"0777", "777"} else 0o644
    assert (session.workspace / "f").stat().st_mode & 0o777 == expected & ~umask


def test_overwriting_keeps_the_mode(session: Session) -> None:
    """The mode counts for new files only."""
    put(session, "f", b"long content", mode="0600")
    put(session, "f", b"x", mode="0644")
    file = session.workspace / "f"
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"x", 0o600)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (
            {"path": "f", "content": ""},
            400,
            "Key: 'UploadFileRequest.Content' Error:Field validation for 'Content' failed on the 'required' tag",
        ),
        (
            {"content": "eA=="},
            400,
            "Key: 'UploadFileRequest.Path' Error:Field validation for 'Path' failed on the 'required' tag",
        ),
        ({"path": "f", "content": "not base64!"}, 400, "Invalid base64 content"),
        ({"path": "../f", "content": "eA=="}, 400, "escapes workspace jail (relative path traversal: ../f)"),
        ({"path": ".", "content": "eA=="}, 500, "is a directory"),
        ({"path": "f", "content": 1}, 400, "json: cannot unmarshal number"),
    ],
)
def test_bad_uploads(session: Session, body: dict[str, Any], status: int, error: str) -> None:
    """Each bad upload gets PicoD's status and words, and writes nothing."""
    answer = session.request("POST", "/api/files", json=body)
    assert answer.status_code == status
    assert answer.json()["code"] == status
    assert error in answer.json()["error"]
    assert session.execute("ls", "-A")["stdout"] == ""


def test_bad_forms(session: Session) -> None:
    """A form without a path, without a file, or that is no form, is refused."""
    missing = session.request("POST", "/api/files", files={"file": ("n", b"x")})
    assert missing.json() == {"error": "Missing 'path' field", "code": 400}
    without = session.request("POST", "/api/files", data={"path": "f"}, files={"other": ("n", b"x")})
    assert without.json() == {"error": "Failed to get file: http: no such file", "code": 400}
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x", b"--x\r\n\r\n", b"garbage"):
        answer = session.request("POST", "/api/files", content=body, headers=headers)
        assert answer.status_code == 400


def test_absolute_paths_count_from_the_workspace(session: Session) -> None:
    """`/etc/x` means `etc/x` in the workspace, and `/../x` means `x`."""
    assert put(session, "/etc/x", b"1").json()["path"] == "etc/x"
    assert put(session, "/../x", b"1").json()["path"] == "x"


def test_links_do_not_lead_outside(session: Session, tmp_path: Path) -> None:
    """Neither a linked file nor a linked folder takes an upload, a download or a listing out of the workspace."""
    (tmp_path / "secret").write_text("s")
    session.execute("ln", "-s", str(tmp_path), "folder")
    session.execute("ln", "-s", str(tmp_path / "secret"), "file")
    session.execute("ln", "-s", str(tmp_path / "new"), "dangling")
    for path in ("folder/new", "folder/deep/new", "file", "dangling"):
        answer = put(session, path, b"written")
        assert answer.status_code == 400, path
        assert "escapes workspace jail via symlink" in answer.json()["error"]
    for path in ("folder/secret", "file"):
        assert session.request("GET", f"/api/files/{path}").status_code == 400
    assert session.request("GET", "/api/files", params={"path": "folder"}).status_code == 400
    assert (
        session.request(
            "POST", "/api/execute", json={"command": ["pwd"], "working_dir": "folder/x"}
        ).status_code
        == 400
    )
    assert sorted(item.name for item in tmp_path.iterdir()) == ["secret"]


def test_links_inside_are_followed(session: Session) -> None:
    """A link within the workspace is as good as what it points to."""
    put(session, "real/f", b"content")
    session.execute("ln", "-s", "real", "link")
    assert session.request("GET", "/api/files/link/f").content == b"content"


EXCHANGE = """
import ctypes, os, sys
out = sys.argv[1]
for name, target in (("d", out), ("f", out + "/victim")):
    os.symlink(target, name + ".link")
os.mkdir("d")
for name in ("d/victim", "f"):
    open(name, "w").write("mine")
libc = ctypes.CDLL(None)
open("ready", "w").close()
while os.path.exists("go"):
    for name in (b"d", b"f"):
        libc.renameat2(-100, name, -100, name + b".link", 2)
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="exchanging two names is Linux's")
def test_exchanging_links_does_not_lead_outside(session: Session, tmp_path: Path) -> None:
    """However often folders and links change places meanwhile, nothing outside is read, listed or written."""
    (tmp_path / "victim").write_text("secret")
    put(session, "exchange.py", EXCHANGE.encode())
    session.sh(f"touch go; setsid python3 exchange.py {tmp_path} </dev/null >/dev/null 2>&1 &")
    assert eventually(lambda: session.execute("test", "-e", "ready")["exit_code"] == 0)
    statuses = set()
    ends = time.monotonic() + 3
    while time.monotonic() < ends:
        for path in ("d/victim", "f", "d/new"):
            statuses.add(put(session, path, b"mine").status_code)
        for path in ("d/victim", "f"):
            answer = session.request("GET", f"/api/files/{path}")
            statuses.add(answer.status_code)
            assert b"secret" not in answer.content
        listing = session.request("GET", "/api/files", params={"path": "d"})
        assert listing.status_code != 200 or tmp_path.name not in listing.text
    session.sh("rm go")
    assert {200, 400} <= statuses <= {200, 400, 404, 500}
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("victim", "secret")]


def test_the_workspace_itself_exchanged(session: Session, tmp_path: Path) -> None:
    """A link in the place of the whole workspace leads nowhere: the files stay those of the session."""
    put(session, "f", b"mine")
    folder = session.workspace.parent
    session.sh(f"cd ..; mv workspace moved; ln -s {tmp_path} workspace")
    assert put(session, "g", b"written").status_code == 200
    assert list(tmp_path.iterdir()) == []
    assert (folder / "moved" / "g").read_bytes() == b"written"
    assert session.request("GET", "/api/files/f").content == b"mine"


@pytest.mark.parametrize("depth", [1, 30])
def test_links_of_links(session: Session, depth: int) -> None:
    """Chains of links, absolute ones and those with dots are followed as long as they stay inside."""
    put(session, "a/b/f", b"content")
    session.sh(
        f"ln -s $PWD/a l0; for n in $(seq {depth}); do ln -s l$((n - 1)) l$n; done; ln -s ../../a/./b a/b/up"
    )
    assert session.request("GET", f"/api/files/l{depth}/b/up/up/f").content == b"content"
    assert put(session, f"l{depth}/b/up/new/g", b"x").json()["path"] == "a/b/new/g"
    session.sh("ln -s loop loop; ln -s ../.. a/out")
    for path in ("loop", "loop/x", "a/out", "a/out/x"):
        assert put(session, path, b"x").status_code == 400


def test_listing(session: Session) -> None:
    """A listing has one level, sorted, with Go's modes, and does not follow links."""
    session.sh(
        "mkdir -m 755 d; touch b; chmod 640 b; ln -s b a; mkfifo -m 600 p; mkdir -m 1777 t; touch d/inner"
    )
    files = session.request("GET", "/api/files", params={"path": "."}).json()["files"]
    assert [(entry["name"], entry["mode"], entry["is_dir"]) for entry in files] == [
        ("a", "Lrwxrwxrwx", False),
        ("b", "-rw-r-----", False),
        ("d", "drwxr-xr-x", True),
        ("p", "prw-------", False),
        ("t", "dtrwxrwxrwx", True),
    ]
    assert set(files[0]) == {"name", "size", "modified", "mode", "is_dir"}


def test_listing_names_that_are_not_text(session: Session) -> None:
    """A name that is not UTF-8 does not break the listing."""
    session.sh(r"touch $(printf 'a\377')")
    files = session.request("GET", "/api/files", params={"path": "/"}).json()["files"]
    assert [entry["name"] for entry in files] == ["a\ufffd"]


@pytest.mark.parametrize(
    ("query", "status", "error"),
    [
        ("", 400, "Missing 'path' query parameter"),
        ("?path=nope", 404, "Directory not found"),
        ("?path=f", 500, "Failed to read directory"),
        ("?path=..", 400, "access denied"),
    ],
)
def test_bad_listings(session: Session, query: str, status: int, error: str) -> None:
    """Each bad listing gets PicoD's status and words."""
    put(session, "f", b"x")
    answer = session.request("GET", f"/api/files{query}")
    assert answer.status_code == status
    assert error in answer.json()["error"]


def test_download(session: Session) -> None:
    """A download has the bytes and the headers of Go's file server."""
    put(session, "d/a.txt", b"hello world")
    answer = session.request("GET", "/api/files/d/a.txt")
    assert answer.content == b"hello world"
    assert answer.headers["content-length"] == "11"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="a.txt"'
    assert answer.headers["accept-ranges"] == "bytes"
    since = {"if-modified-since": answer.headers["last-modified"]}
    assert session.request("GET", "/api/files/d/a.txt", headers=since).status_code == 304


@pytest.mark.parametrize(
    ("wanted", "status", "content", "span"),
    [
        ("bytes=2-4", 206, b"llo", "bytes 2-4/11"),
        ("bytes=6-", 206, b"world", "bytes 6-10/11"),
        ("bytes=6-1000", 206, b"world", "bytes 6-10/11"),
        ("bytes=-3", 206, b"rld", "bytes 8-10/11"),
        ("bytes=-50", 206, b"hello world", "bytes 0-10/11"),
        ("bytes=11-", 416, b"invalid range: failed to overlap\n", "bytes */11"),
        ("lines=1-2", 416, b"invalid range\n", ""),
        ("bytes=5-2", 416, b"invalid range\n", ""),
        ("bytes=0-1,3-4", 200, b"hello world", ""),
    ],
)
def test_ranges(session: Session, wanted: str, status: int, content: bytes, span: str) -> None:
    """Parts of a file can be had, never compressed."""
    put(session, "f", b"hello world")
    headers = {"range": wanted, "accept-encoding": "gzip"}
    answer = session.request("GET", "/api/files/f", headers=headers)
    assert (answer.status_code, answer.content) == (status, content)
    assert answer.headers.get("content-range", "") == span
    assert ("content-encoding" in answer.headers) == (status == 200)


def test_large_download(session: Session) -> None:
    """A file larger than any buffer arrives whole, plain or compressed."""
    session.sh("head -c 40000000 /dev/urandom > big; head -c 3000000 /dev/zero > zeros")
    assert session.request("GET", "/api/files/big").content == (session.workspace / "big").read_bytes()
    packed = session.request("GET", "/api/files/zeros", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == bytes(3_000_000)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("nope", 404, "File not found"),
        ("d", 400, "Path is a directory, not a file"),
        ("", 400, "Path is a directory, not a file"),
        ("%2e%2e/%2e%2e/etc/passwd", 400, "access denied"),
        ("pipe", 500, "not a regular file"),
    ],
)
def test_bad_downloads(session: Session, path: str, status: int, error: str) -> None:
    """Each bad download gets PicoD's status and words; a FIFO does not block the gateway."""
    session.sh("mkdir d; mkfifo pipe")
    answer = session.request("GET", f"/api/files/{path}")
    assert answer.status_code == status
    assert error in answer.json()["error"]


def test_upload_onto_a_fifo(session: Session) -> None:
    """An upload to a FIFO that nobody reads is refused instead of blocking every sandbox."""
    session.execute("mkfifo", "pipe")
    assert put(session, "pipe", b"x").status_code == 500
    assert session.execute("true")["exit_code"] == 0


def test_index_html_redirects(session: Session) -> None:
    """Go's file server redirects index.html, and so does PicoD."""
    put(session, "index.html", b"<p>")
    answer = session.request("GET", "/api/files/index.html")
    assert (answer.status_code, answer.headers["location"]) == (301, "./")


def test_encoded_slash_and_odd_names(session: Session) -> None:
    """Paths are decoded as by the Router: `%2F` is a slash, other escapes are the characters they stand for."""
    put(session, "d/x#?% ä.txt", b"odd")
    assert session.request("GET", "/api/files/d%2Fx%23%3F%25%20%C3%A4.txt").content == b"odd"
