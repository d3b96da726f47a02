"""With bubblewrap a sandbox sees less of the host, and everything else works as without."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import WORKS, Server, Session, Start, eventually, needs_bubblewrap


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
def test_the_host_is_out_of_reach(session: Session, tmp_path: Path) -> None:
    """Outside its folder and /tmp a command writes nothing, /tmp is its own, and nobody's home is there."""
    outside = Path(sys.prefix) / "written"
    result = session.sh(f"touch {outside} /etc/written /usr/written /written; touch /tmp/mine ok; ls /tmp")
    assert not outside.exists()
    assert not os.path.exists("/tmp/mine")
    assert result["stderr"].count("Read-only file system") == 4
    assert "mine" in result["stdout"].split()
    assert tmp_path.name not in result["stdout"]
    assert session.execute("ls")["stdout"] == "ok\n"
    for hidden in (Path(__file__), Path("/etc/shadow"), Path("/etc/machine-id"), Path("/var/log"), tmp_path):
        assert session.execute("ls", str(hidden))["exit_code"] != 0, hidden


@needs_bubblewrap
def test_processes_of_the_host_are_out_of_reach(isolated: Server, session: Session) -> None:
    """No process of the host can be seen, read or signalled; there is no way through /proc/PID/root."""
    script = "ls -d /proc/[0-9]* | wc -l; cat /proc/*/environ | tr '\\0' '\\n' | grep -c GATEWAY; ls /proc/1/root/root"
    lines = session.sh(script)["stdout"].split()
    assert int(lines[0]) < 10
    assert lines[1] == "0"
    assert len(lines) == 2
    assert session.execute("kill", "-9", str(isolated.process.pid))["exit_code"] != 0
    assert isolated.process.is_running()


@needs_bubblewrap
def test_root_has_no_powers(session: Session) -> None:
    """Commands have no capabilities and cannot get any, though they see themselves as root."""
    status = session.execute("cat", "/proc/self/status")["stdout"]
    assert "CapEff:\t0000000000000000" in status
    assert "CapPrm:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert session.execute("id", "-un")["stdout"] == "root\n"
    assert session.sh("mount -o remount,rw,bind /usr || umount /usr")["exit_code"] != 0
    nested = session.sh("unshare -Urm sh -c 'mount -o remount,rw,bind /usr && touch /usr/written'")
    assert nested["exit_code"] != 0
    assert not os.path.exists("/usr/written")


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
    script = "import sys, httpx, ssl, os, pwd; ssl.create_default_context(); print(sys.prefix)"
    assert session.execute("python3", "-c", script)["stdout"].strip() == sys.prefix
    script = 'mkdir -p "$PIP_TARGET" && echo "x = 5" > "$PIP_TARGET/mine.py" && python3 -c "import mine; print(mine.x)"'
    assert session.sh(script)["stdout"] == "5\n"


@needs_bubblewrap
def test_an_environment_below_tmp_is_there(start: Start) -> None:
    """A sandbox has a /tmp of its own, and sees the gateway's Python also where that lies in the host's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        base = os.path.realpath(sys.executable)
        subprocess.run([base, "-m", "venv", "--without-pip", folder], check=True)
        packages = os.pathsep.join([str(Path(__file__).parents[2]), *site.getsitepackages()])
        python = f"{folder}/bin/python3"
        with start(python, AGENTCUBE_GATEWAY_BUBBLEWRAP="1", PYTHONPATH=packages) as server:
            session = server.create()
            told = session.execute("python3", "-c", "import sys; print(sys.prefix)")
            assert told["stdout"] == f"{folder}\n", told
            assert session.sh("touch /tmp/mine && ls /tmp/mine")["exit_code"] == 0
            session.delete()


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
    assert eventually(lambda: session.execute("kill", "-0", sleeper)["exit_code"] != 0)


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
    assert eventually(lambda: session.execute("kill", "-0", result["stdout"].strip())["exit_code"] != 0)
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


@pytest.mark.parametrize("wanted", ["0", "1"])
def test_what_is_in_force_is_told(start: Start, wanted: str) -> None:
    """The gateway names the isolation in force beside its proof of knowing the token."""
    if wanted == "1" and not WORKS:
        pytest.skip("bubblewrap is not installed, or not allowed here")
    with start(AGENTCUBE_GATEWAY_BUBBLEWRAP=wanted) as server:
        answer = server.anonymous("GET", "/health/gateway", params={"nonce": "n" * 32}).json()
    assert answer["isolation"] == ("bubblewrap" if wanted == "1" else "none")


@needs_bubblewrap
@pytest.mark.parametrize("demanded", [False, True])
def test_bubblewrap_disappears(start: Start, tmp_path: Path, demanded: bool) -> None:
    """A gateway whose bubblewrap is removed looks again: it goes on without it, or says what is wrong."""
    for name in ("bwrap", "nsenter", "setpriv"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    others = [folder for folder in os.environ["PATH"].split(":") if not os.path.exists(f"{folder}/bwrap")]
    names = ["sh", "ls", "cat", "id"]
    (tmp_path / "bin").mkdir()
    for name in names:
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    path = ":".join([str(tmp_path), *others, str(tmp_path / "bin")])
    with start(PATH=path, AGENTCUBE_GATEWAY_BUBBLEWRAP="1" if demanded else "auto") as server:
        server.create().delete()
        (tmp_path / "bwrap").unlink()
        if demanded:
            body = {"name": "my-interpreter", "namespace": "default"}
            answer = server.http.post("/v1/code-interpreter", json=body)
            assert answer.status_code == 500
            assert "bwrap, nsenter and setpriv are not all installed" in answer.json()["message"]
            return
        session = server.create()
        assert session.execute("python3", "-c", "print(1)")["stdout"] == "1\n"
        session.delete()
        answer = server.anonymous("GET", "/health/gateway", params={"nonce": "n" * 32}).json()
        assert answer["isolation"] == "none"


def test_demanded_where_it_does_not_work(tmp_path: Path) -> None:
    """Demanding bubblewrap where there is none ends with a sentence instead of running without it."""
    command = [sys.executable, "-m", "agentcube_kernel.cli.main", "serve"]
    env = {**os.environ, "AGENTCUBE_GATEWAY_BUBBLEWRAP": "1", "PATH": str(tmp_path)}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert "bwrap" in result.stderr
    assert "Traceback" not in result.stderr
