"""With bubblewrap a sandbox sees less of the host, and everything else works as without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentcube_kernel.gateway.isolation import Isolation

from .conftest import Server, Session, Start, alive, eventually

works = bool(Isolation.choose(None))
needs_bubblewrap = pytest.mark.skipif(not works, reason="bubblewrap is not installed, or not allowed here")


@pytest.fixture(scope="module")
def isolated(start: Start) -> Iterator[Server]:
    """A gateway that must use bubblewrap."""
    with start(AGENTCUBE_GATEWAY_BUBBLEWRAP="1") as running:
        yield running


@pytest.fixture
def session(isolated: Server) -> Iterator[Session]:
    """A session whose commands run in a view of their own."""
    created = isolated.create()
    yield created
    created.delete()


@needs_bubblewrap
def test_the_host_is_read_only(session: Session, tmp_path: Path) -> None:
    """Outside its folder and /tmp a command writes nothing, and /tmp is its own."""
    outside = Path(sys.prefix) / "written"
    result = session.sh(f"touch {outside} /etc/written; touch /tmp/mine ok; ls /tmp")
    assert not outside.exists()
    assert not os.path.exists("/tmp/mine")
    assert result["stderr"].count("Read-only file system") == 2
    assert "mine" in result["stdout"].split()
    assert tmp_path.name not in result["stdout"]
    assert session.execute("ls")["stdout"] == "ok\n"


@needs_bubblewrap
def test_sandboxes_do_not_see_each_other(isolated: Server, session: Session) -> None:
    """One sandbox's folder is not in the view of another."""
    other = isolated.create()
    other.sh("echo secret > file")
    assert session.execute("cat", str(other.workspace / "file"))["exit_code"] == 1
    other.delete()


@needs_bubblewrap
def test_python_and_its_packages_are_there(session: Session) -> None:
    """The user's Python works, and what pip installs would go to a folder of the sandbox's own."""
    script = "import sys, httpx; print(sys.prefix)"
    assert session.execute("python3", "-c", script)["stdout"].strip() == sys.prefix
    script = 'mkdir -p "$PIP_TARGET" && echo "x = 5" > "$PIP_TARGET/mine.py" && python3 -c "import mine; print(mine.x)"'
    assert session.sh(script)["stdout"] == "5\n"


@needs_bubblewrap
def test_calls_see_each_others_processes_and_fifos(session: Session) -> None:
    """Detached processes, /proc, signals and FIFOs work between calls as without bubblewrap."""
    pid = session.sh("mkfifo pipe; setsid sh -c 'cat pipe > got' </dev/null >/dev/null 2>&1 & echo $!")[
        "stdout"
    ].strip()
    assert (
        session.sh(f"tr '\\0' '\\n' < /proc/{pid}/environ | grep -c AGENTCUBE_SANDBOX_ID")["stdout"] == "1\n"
    )
    session.sh("echo through > pipe")
    assert eventually(lambda: session.sh("cat got")["stdout"] == "through\n")
    sleeper = session.sh("setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!")["stdout"].strip()
    assert session.execute("kill", sleeper)["exit_code"] == 0
    assert eventually(lambda: not alive(int(sleeper)))


@needs_bubblewrap
@pytest.mark.parametrize(
    ("command", "stderr"),
    [
        (["no-such-program"], 'exec: "no-such-program": executable file not found in $PATH'),
        (["./nope"], "fork/exec ./nope: no such file or directory"),
        (["/etc/passwd"], "fork/exec /etc/passwd: permission denied"),
    ],
)
def test_failures_read_the_same(session: Session, command: list[str], stderr: str) -> None:
    """The wrapping never shows in what a command is told."""
    result = session.execute(*command)
    assert (result["exit_code"], result["stderr"]) == (1, stderr)


@needs_bubblewrap
def test_exit_codes_timeouts_and_folders(session: Session) -> None:
    """Exit codes, signals, timeouts, working folders and arguments come through unchanged."""
    assert session.sh("exit 7")["exit_code"] == 7
    assert session.sh("kill -9 $$")["exit_code"] == -1
    result = session.sh("sleep 60 & echo $!; wait", timeout="400ms")
    assert result["exit_code"] == 124
    assert eventually(lambda: not alive(int(result["stdout"])))
    assert session.execute("pwd", working_dir="a/b")["stdout"].strip() == f"{session.workspace}/a/b"
    assert session.execute("printf", "%s.", "--wd=x", "", "a b")["stdout"] == "--wd=x..a b."


@needs_bubblewrap
def test_delete_leaves_nothing(isolated: Server) -> None:
    """The view goes with its sandbox."""
    before = {child.pid for child in isolated.process.children(True)}
    session = isolated.create()
    folder = session.workspace.parent
    session.sh("setsid sleep 300 </dev/null >/dev/null 2>&1 &")
    session.delete()
    assert not folder.exists()

    def left() -> list[psutil.Process]:
        return [child for child in isolated.process.children(True) if child.pid not in before]

    assert eventually(lambda: not left())


def test_demanded_where_it_does_not_work(tmp_path: Path) -> None:
    """Demanding bubblewrap where there is none ends with a sentence instead of running without it."""
    command = [sys.executable, "-m", "agentcube_kernel.cli.main", "serve"]
    env = {**os.environ, "AGENTCUBE_GATEWAY_BUBBLEWRAP": "1", "PATH": str(tmp_path)}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert "bwrap" in result.stderr
    assert "Traceback" not in result.stderr
