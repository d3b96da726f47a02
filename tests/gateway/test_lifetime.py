"""Sessions, their processes and the gateway itself end when they should, and leave nothing."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from .conftest import BASE, Server, Session, Start, alive, eventually

# Ways in which a process gets out of its command's reach; each prints its pid.
ESCAPES = {
    "detached": "setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!",
    "clean environment": "env -i setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!",
    "another folder": "cd / && setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!",
    "orphan of an orphan": "setsid sh -c 'sleep 300 & sleep 300' </dev/null >/dev/null 2>&1 & echo $!",
    "deaf": "setsid sh -c 'trap \"\" TERM HUP INT; sleep 300; sleep 300' </dev/null >/dev/null 2>&1 & echo $!",
}


def escape(session: Session) -> list[int]:
    """Start one process in each way; the pids of all of them and their children."""
    pids = [session.start(script) for script in ESCAPES.values()]
    assert eventually(lambda: all(alive(pid) for pid in pids))
    return pids + [child.pid for pid in pids for child in psutil.Process(pid).children(True)]


def root_of(session: Session) -> Path:
    """The folder of the whole sandbox."""
    return session.workspace.parent


def test_delete_ends_every_process_and_removes_the_folder(server: Server) -> None:
    """When the delete has answered, nothing of the sandbox is left, whatever its processes did to stay."""
    session, other = server.create(), server.create()
    pids, folder = escape(session), root_of(session)
    survivor = other.start(ESCAPES["detached"])
    session.sh("mkdir -p a/b; chmod 000 a; mkfifo p; ln -s / r")
    assert session.delete().status_code == 200
    assert not [pid for pid in pids if alive(pid)]
    assert not folder.exists()
    assert alive(survivor)
    assert session.request("GET", "/health").json()["code"] == "SESSION_NOT_FOUND"
    other.delete()


def test_someone_looking_into_the_folder_is_left_alone(server: Server) -> None:
    """A shell in a terminal whose current folder is a sandbox's does not die with the sandbox."""
    session = server.create()
    folder = session.workspace
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.execv("/bin/sh", ["/bin/sh", "-c", "echo ready; read line"])
    try:
        assert b"ready" in os.read(terminal, 100)
        session.delete()
        assert not folder.exists()
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_requests_in_flight_at_a_delete(server: Server) -> None:
    """A command that runs when its session is deleted ends like a lost pod: 503 from the Router."""
    session = server.create()
    with httpx.Client(
        base_url=server.endpoint.data_url, headers=server.http.headers, trust_env=False
    ) as client:
        request = client.build_request(
            "POST",
            BASE + "/api/execute",
            json={"command": ["sh", "-c", "touch started; sleep 60"]},
            headers={"x-agentcube-session-id": session.id},
        )
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor() as pool:
            running = pool.submit(client.send, request)
            assert eventually(lambda: session.execute("ls")["stdout"] == "started\n")
            session.delete()
            answer = running.result(10)
    assert (answer.status_code, answer.json()) == (503, {"error": "sandbox unreachable"})
    assert "x-agentcube-session-id" not in answer.headers


def test_deeply_nested_folders_are_removed(server: Server) -> None:
    """A sandbox cannot keep its folder by nesting folders deeper than Python recurses."""
    session = server.create()
    folder = root_of(session)
    script = "import os\nfor i in range(3000):\n os.mkdir('d'); os.chdir('d')"
    assert session.execute(sys.executable, "-c", script)["exit_code"] == 0
    session.delete()
    assert not folder.exists()


def test_ttl_ends_a_session(server: Server) -> None:
    """A session created with a time to live ends then, busy or not, with its processes and folder."""
    session = server.create(ttl=1)
    pid, folder = session.start(ESCAPES["detached"]), root_of(session)
    assert eventually(lambda: not alive(pid) and not folder.exists())
    assert session.request("GET", "/health").status_code == 404


def test_idle_sessions_end_and_used_ones_do_not(start: Start) -> None:
    """Requests keep a session, a long one for as long as it lasts; without any it ends."""
    with start(AGENTCUBE_GATEWAY_SESSION_TIMEOUT="1.2") as server:
        used, idle = server.create(), server.create()
        pid = idle.start(ESCAPES["detached"])
        folder = root_of(idle)
        assert used.execute("sleep", "2")["exit_code"] == 0
        assert eventually(lambda: not alive(pid) and not folder.exists())
        assert used.execute("true")["exit_code"] == 0
        assert idle.request("GET", "/health").status_code == 404
        assert idle.delete().status_code == 404


def test_maximum_lifetime(start: Start) -> None:
    """Activity does not carry a session beyond its maximum, and no ttl lengthens that."""
    with start(AGENTCUBE_GATEWAY_MAX_SESSION_DURATION="1.5") as server:
        session = server.create(ttl=3600)
        began = time.monotonic()
        while session.request("GET", "/health").status_code == 200:
            assert time.monotonic() - began < 5
            time.sleep(0.05)
        assert time.monotonic() - began >= 1.2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_the_gateway_and_every_sandbox(start: Start, number: signal.Signals) -> None:
    """The gateway leaves with status 0, no process, and no folder, with a command still running."""
    with start() as server:
        sessions = [server.create() for _ in range(3)]
        pids = [pid for session in sessions for pid in escape(session)]
        # Beyond what a delete can find: no marker, no folder, no parent. The gateway's end finds it still.
        hidden = "cd /; env -i setsid sleep 301 </dev/null >/dev/null 2>&1 & echo $!"
        pids.append(sessions[0].start(hidden))
        folders = [root_of(session) for session in sessions]
        gateway = folders[0].parent
        connections = httpx.Client(
            base_url=server.endpoint.data_url, headers=server.http.headers, trust_env=False
        )
        with connections as client, contextlib.suppress(httpx.TransportError):
            request = {"command": ["sleep", "60"]}
            with contextlib.suppress(httpx.ReadTimeout):
                headers = {"x-agentcube-session-id": sessions[1].id}
                client.post(BASE + "/api/execute", json=request, headers=headers, timeout=0.2)
        process = server.process
        began = time.monotonic()
        process.send_signal(number)
        assert eventually(lambda: not alive(process.pid))
        assert time.monotonic() - began < 3
        assert not [pid for pid in pids if alive(pid)]
        assert not gateway.exists()


def test_the_next_gateway_clears_what_a_killed_one_left(start: Start) -> None:
    """After SIGKILL the processes and folders are still there; the next start removes them, and only them."""
    # With bubblewrap the processes die with their gateway.
    without = {"AGENTCUBE_GATEWAY_BUBBLEWRAP": "0"}
    with start(**without) as bystander, contextlib.ExitStack() as stack:
        kept = bystander.create()
        kept_pid = kept.start(ESCAPES["detached"])
        victim = stack.enter_context(start(**without))
        session = victim.create()
        pids = escape(session)
        gateway = root_of(session).parent
        victim.process.kill()
        assert eventually(lambda: not alive(victim.process.pid))
        assert any(alive(pid) for pid in pids)
        assert gateway.exists()
        with start():
            assert not [pid for pid in pids if alive(pid)]
            assert not gateway.exists()
            assert alive(kept_pid)
            assert kept.execute("true")["exit_code"] == 0


def test_folders_are_private(session: Session) -> None:
    """Nobody else can look into a sandbox."""
    folder = root_of(session)
    for place in (session.workspace, folder, folder.parent, folder.parent.parent):
        assert place.stat().st_mode & 0o777 == 0o700
        assert place.stat().st_uid == os.getuid()


def test_a_path_short_enough_for_sockets(session: Session) -> None:
    """A Unix socket in a folder of the workspace fits the system's limit."""
    assert len(str(session.workspace)) < 70


def serve(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentcube_kernel.cli.main", "serve", *arguments]
    env = {**os.environ, **variables}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)


def test_serve_says_what_is_wrong(server: Server) -> None:
    """A taken port, an address that is not ours and a bad setting end with a sentence, not a traceback."""
    port = str(httpx.URL(server.endpoint.data_url).port)
    cases: list[tuple[subprocess.CompletedProcess[str], str]] = [
        (serve("--port", port), f"port {port} on 127.0.0.1 is taken"),
        (serve("--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
        (serve(AGENTCUBE_GATEWAY_SESSION_TIMEOUT="soon"), "AGENTCUBE_GATEWAY_SESSION_TIMEOUT must be"),
        (serve("--port", "99999"), "--port"),
    ]
    for result, words in cases:
        assert result.returncode != 0
        assert words in result.stderr
        assert "Traceback" not in result.stderr


def test_serve_warns() -> None:
    """The command says on stderr that it is for development and no security boundary."""
    process = subprocess.Popen(
        [sys.executable, "-m", "agentcube_kernel.cli.main", "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(3)]
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert said[0].startswith("export ROUTER_URL=http://127.0.0.1:")
    assert said[2].startswith("export AGENTCUBE_TOKEN=")
    assert "no security boundary" in err
    assert "Traceback" not in err
