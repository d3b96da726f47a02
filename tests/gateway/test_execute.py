"""Commands run as PicoD runs them."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import psutil
import pytest

from .conftest import Server, Session, eventually


def test_result_shape(session: Session) -> None:
    """A result has PicoD's six fields, its times in RFC 3339."""
    result = session.sh("echo out; echo err >&2; exit 3")
    assert set(result) == {"stdout", "stderr", "exit_code", "duration", "start_time", "end_time"}
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("out\n", "err\n", 3)
    began, ended = (datetime.fromisoformat(result[key]) for key in ("start_time", "end_time"))
    assert began.tzinfo is not None
    assert 0 < result["duration"] < 10
    assert began <= ended


@pytest.mark.parametrize(
    ("command", "stderr"),
    [
        (["no-such-program"], 'exec: "no-such-program": executable file not found in $PATH'),
        ([""], "exec: no command"),
        (["./nope"], "fork/exec ./nope: no such file or directory"),
        (["/etc/passwd"], "fork/exec /etc/passwd: permission denied"),
        (["/"], 'exec: "/": is a directory'),
        (["a\0b"], 'exec: "a\\x00b": executable file not found in $PATH'),
    ],
)
def test_what_cannot_be_started(session: Session, command: list[str], stderr: str) -> None:
    """A command that cannot start is a result with exit code 1 and Go's words on stderr."""
    result = session.execute(*command)
    assert (result["exit_code"], result["stdout"], result["stderr"]) == (1, "", stderr)


def test_argument_too_long(session: Session) -> None:
    """An argument over the kernel's limit is told as such."""
    result = session.execute("true", "x" * 200_000)
    assert (result["exit_code"], result["stderr"]) == (
        1,
        f"fork/exec {session.execute('which', 'true')['stdout'].strip()}: argument list too long",
    )


def test_killed_by_a_signal(session: Session) -> None:
    """Death by a signal is exit code -1, as Go has it."""
    assert session.sh("kill -9 $$")["exit_code"] == -1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "EOF"),
        (b"xyz", "invalid character 'x' looking for beginning of value"),
        (b'{"command":', "unexpected EOF"),
        (b"[]", "json: cannot unmarshal array into Go value of type picod.ExecuteRequest"),
        (b'{"command":[]}', "command cannot be empty"),
        (
            b'{"command":"ls"}',
            "json: cannot unmarshal string into Go struct field ExecuteRequest.command of type []string",
        ),
        (
            b'{"command":["ls",1]}',
            "json: cannot unmarshal number into Go struct field ExecuteRequest.command of type string",
        ),
        (
            b'{"command":["ls"],"timeout":5}',
            "json: cannot unmarshal number into Go struct field ExecuteRequest.timeout of type string",
        ),
        (
            b'{"command":["ls"],"env":{"A":1}}',
            "json: cannot unmarshal number into Go struct field ExecuteRequest.env of type string",
        ),
        (
            b"{}",
            "Key: 'ExecuteRequest.Command' Error:Field validation for 'Command' failed on the 'required' tag",
        ),
        (
            b'{"command":["ls"],"timeout":"10"}',
            'Invalid timeout format: time: missing unit in duration "10"',
        ),
        (
            b'{"command":["ls"],"timeout":"5x"}',
            'Invalid timeout format: time: unknown unit "x" in duration "5x"',
        ),
        (b'{"command":["ls"],"timeout":"soon"}', 'Invalid timeout format: time: invalid duration "soon"'),
        (
            b'{"command":["ls"],"working_dir":"../x"}',
            "Invalid working directory: access denied: path '../x' escapes workspace jail "
            "(relative path traversal: ../x)",
        ),
    ],
)
def test_bad_requests(session: Session, body: bytes, error: str) -> None:
    """Each bad request gets PicoD's 400 with its words."""
    answer = session.request("POST", "/api/execute", content=body)
    assert (answer.status_code, answer.json()) == (400, {"error": error, "code": 400})


@pytest.mark.parametrize(("timeout", "words"), [("300ms", "0"), ("1s", "1"), ("0.6s", "1")])
def test_timeout(session: Session, timeout: str, words: str) -> None:
    """A command over its time ends with 124, its output so far, and the message."""
    result = session.sh("echo before; sleep 30", timeout=timeout)
    assert (result["exit_code"], result["stdout"]) == (124, "before\n")
    assert result["stderr"] == f"Command timed out after {words} seconds"
    assert result["duration"] < 3


@pytest.mark.parametrize(("timeout", "words"), [("0s", "0"), ("-5s", "-5")])
def test_no_time_at_all(session: Session, timeout: str, words: str) -> None:
    """Without time the command is not even started."""
    result = session.sh("echo ran > ran", timeout=timeout)
    assert (result["exit_code"], result["stderr"]) == (124, f"Command timed out after {words} seconds")
    assert session.execute("ls")["stdout"] == ""


def test_fields_are_read_as_go_reads_them(session: Session) -> None:
    """The case of a field's name does not matter, the last one counts, and lone surrogates become U+FFFD."""
    body = b'{"command": ["false"], "Command": ["printf", "a\\ud800z"], "ENV": {"X": "1"}}'
    answer = session.request("POST", "/api/execute", content=body).json()
    assert (answer["stdout"], answer["exit_code"]) == ("a\ufffdz", 0)


def test_timeout_kills_the_process_group(session: Session) -> None:
    """Children of a timed-out command die with it, those in the background too."""
    result = session.sh("sleep 60 & echo $!; sleep 60", timeout="500ms")
    assert result["exit_code"] == 124
    assert result["duration"] < 3
    child = result["stdout"].strip()
    assert eventually(lambda: session.execute("kill", "-0", child)["exit_code"] != 0)


def test_timeout_does_not_wait_for_who_left_the_group(session: Session) -> None:
    """Even a process that took the pipes into a session of its own cannot hold a timed-out call."""
    script = "import subprocess, sys; subprocess.Popen(['sleep', '60'], start_new_session=True).wait()"
    began = time.monotonic()
    assert session.execute(sys.executable, "-c", script, timeout="500ms")["exit_code"] == 124
    assert time.monotonic() - began < 3


def test_call_lasts_as_long_as_its_pipes_are_held(session: Session) -> None:
    """As with PicoD a background child that keeps stdout keeps the call."""
    result = session.sh("(sleep 0.7; echo late) & echo early")
    assert (result["stdout"], result["exit_code"]) == ("early\nlate\n", 0)
    assert result["duration"] >= 0.7


def test_detached_process_outlives_its_call(session: Session) -> None:
    """What leaves the session and redirects all descriptors returns at once, lives on, and is found later."""
    began = time.monotonic()
    result = session.sh("setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!")
    assert time.monotonic() - began < 5
    pid = result["stdout"].strip()
    for _ in range(3):
        assert session.sh(f"kill -0 {pid} && test -e /proc/{pid} || ps -p {pid}")["exit_code"] == 0
    assert session.execute("kill", pid)["exit_code"] == 0
    assert eventually(lambda: session.execute("kill", "-0", pid)["exit_code"] != 0)


def test_calls_share_fifos(session: Session) -> None:
    """A FIFO in the workspace connects two calls."""
    session.execute("mkfifo", "pipe")
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(session.sh, "cat pipe")
        session.sh("echo through > pipe")
        assert reading.result(10)["stdout"] == "through\n"


def test_calls_run_side_by_side(session: Session) -> None:
    """Commands of one session do not wait for each other."""
    with ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        results = list(pool.map(lambda _: session.execute("sleep", "1"), range(4)))
        assert time.monotonic() - began < 3
    assert [result["exit_code"] for result in results] == [0] * 4


def test_working_directory(session: Session) -> None:
    """A working folder counts from the workspace, is made when missing, and may be absolute."""
    workspace = session.workspace
    assert session.execute("pwd", working_dir="a/b")["stdout"].strip() == f"{workspace}/a/b"
    assert session.execute("pwd", working_dir="/c")["stdout"].strip() == f"{workspace}/c"
    assert session.execute("pwd")["stdout"].strip() == str(workspace)


def test_invalid_utf8_becomes_replacement_characters(session: Session) -> None:
    """Each byte that is not UTF-8 becomes one U+FFFD, valid text stays."""
    result = session.sh(r"printf 'a\377\342\202z\303\244\355\240\200'; printf '\376' >&2")
    assert result["stdout"] == "a\ufffd\ufffd\ufffdzä\ufffd\ufffd\ufffd"
    assert result["stderr"] == "\ufffd"


def test_stdin_is_empty(session: Session) -> None:
    """Nothing waits for input that cannot come, and there is no terminal."""
    assert session.execute("cat")["exit_code"] == 0
    assert session.sh("test -t 0 || cat </dev/tty")["exit_code"] != 0


def test_python_is_the_gateways(session: Session) -> None:
    """`python3` in a sandbox is the interpreter of the environment that the gateway runs in."""
    script = "import sys; print(sys.prefix, *sys.version_info[:2])"
    told = session.execute("python3", "-c", script)["stdout"].split()
    assert told == [sys.prefix, *map(str, sys.version_info[:2])]


def test_environment_is_clean(start: Any) -> None:
    """No credential of the host, and nothing of the gateway's configuration, is seen by a command."""
    secrets = {
        "AGENTCUBE_TOKEN_FILE": "/secret/1",
        "AWS_SECRET_ACCESS_KEY": "secret-2",
        "GITHUB_TOKEN": "secret-3",
        "OPENAI_API_KEY": "secret-4",
        "HTTPS_PROXY": "http://user:secret-5@proxy:1",
        "ROUTER_URL": "http://secret-6",
        "PIP_INDEX_URL": "https://user:secret-7@index/",
        "LANG": "C.UTF-8",
    }
    with start(**secrets) as server:
        session = server.create()
        seen = dict(line.split("=", 1) for line in session.execute("env")["stdout"].splitlines())
        assert "secret" not in str(seen)
        assert [name for name in seen if name.startswith("AGENTCUBE_")] == ["AGENTCUBE_SANDBOX_ID"]
        assert seen["LANG"] == "C.UTF-8"
        assert seen["HOME"] == str(session.workspace)


def test_overrides(session: Session) -> None:
    """The request's own variables are added to the environment or replace what is there."""
    result = session.sh(
        'echo "$A $HOME"; cat /proc/self/environ | tr "\\0" "\\n" | grep -c ^HOME',
        env={"A": "ä b", "HOME": "/h"},
    )
    assert result["stdout"].splitlines()[0] == "ä b /h"


@pytest.mark.parametrize("size", [100_000, 8_000_000, 60_000_000])
def test_large_output(session: Session, size: int) -> None:
    """Much output arrives whole, and quickly."""
    began = time.monotonic()
    result = session.sh(f"yes 0123456789abcde | head -c {size}")
    assert len(result["stdout"]) == size
    assert result["stdout"].startswith("0123456789abcde\n0123")
    assert time.monotonic() - began < 10


def test_much_output_on_both_streams(session: Session) -> None:
    """Neither stream blocks the other."""
    result = session.sh("yes out | head -c 3000000 & yes err | head -c 3000000 >&2; wait")
    assert (len(result["stdout"]), len(result["stderr"])) == (3_000_000, 3_000_000)


def test_a_client_that_leaves_does_not_stop_the_command(session: Session) -> None:
    """Whoever hangs up leaves the command running, as with PicoD."""
    import httpx

    with pytest.raises(httpx.ReadTimeout):
        session.request(
            "POST", "/api/execute", json={"command": ["sh", "-c", "sleep 1; touch done"]}, timeout=0.3
        )
    assert eventually(lambda: "done" in session.execute("ls")["stdout"])


def test_no_descriptor_and_no_zombie_stays(server: Server, session: Session) -> None:
    """A thousand ends of every kind leave the gateway as it was."""
    session.execute("true")
    before = server.process.num_fds()
    for script in ("true", "exit 1", "kill -9 $$", "sleep 0.01 &", "setsid sleep 0.01 >/dev/null 2>&1 &") * 5:
        session.sh(script)
    session.execute("nope")
    session.sh("sleep 9", timeout="10ms")
    assert server.process.num_fds() <= before + 2

    def zombies() -> list[psutil.Process]:
        return [child for child in server.process.children(True) if child.status() == psutil.STATUS_ZOMBIE]

    assert eventually(lambda: not zombies())


def test_a_removed_workspace(session: Session) -> None:
    """A command that removes its own workspace breaks the session's later commands, not the gateway."""
    session.sh(f"rm -rf {session.workspace}")
    result = session.execute("true")
    assert result["exit_code"] == 1
    assert "no such file or directory" in result["stderr"]


def test_umask_and_signals_are_ordinary(session: Session) -> None:
    """Commands start with default signal handling: a broken pipe ends `yes` quietly."""
    result = session.sh("yes | head -n 1; sleep 60 & kill -INT $!; kill -TERM $!; wait $!; echo $?")
    assert result["stdout"].splitlines() == ["y", str(128 + 15)]
    assert os.getpid()
