"""The reaper: which sessions it deletes after which death of their owner, and when."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentcube_kernel.client.sync.code_interpreter import CodeInterpreterClient
from agentcube_kernel.errors import SessionNotFoundError
from agentcube_kernel.sessions.ledger import KernelRecord, Ledger
from agentcube_kernel.sessions.process_identity import ProcessIdentity
from agentcube_kernel.sessions.reaper_address import state_path
from tests.commands import run_cli
from tests.endpoints import TAKEOVER_SECONDS

pytestmark = pytest.mark.usefixtures("configured", "needs_sessions")


@dataclass
class Owner:
    """A process that owns one session, and its reaper, which owners that live at the same time share."""

    process: subprocess.Popen[str]
    session_id: str
    reaper_pid: int | None

    def kill(self) -> float:
        """SIGKILL the whole process group, as Jupyter does; returns the moment."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        return time.monotonic()

    def say(self, command: str) -> float:
        """Have the owner end, with a word to its reaper; returns the moment."""
        self.process.communicate(command + "\n")
        return time.monotonic()


StartOwner = Callable[..., Owner]


@pytest.fixture
def start_owner() -> Iterator[StartOwner]:
    """Start owners; those that still run are killed at the end, and their sessions deleted."""
    owners: list[Owner] = []

    def start(connection_file: Path | None = None, *, keep: bool = False, with_reaper: bool = True) -> Owner:
        path = None if connection_file is None else str(connection_file)
        order = {"connection_file": path, "keep": keep, "with_reaper": with_reaper}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.sessions.owner", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        session_id, reaper_pid = json.loads(process.stdout.readline())
        owners.append(Owner(process, session_id, reaper_pid))
        return owners[-1]

    yield start
    for owner in owners:
        if owner.process.poll() is None:
            owner.kill()
        with CodeInterpreterClient(session_id=owner.session_id) as client:
            client.stop(force=True)
        Ledger().forget(owner.session_id)


def is_there(session_id: str) -> bool:
    client = CodeInterpreterClient(session_id=session_id)
    try:
        client.health()
    except SessionNotFoundError:
        return False
    finally:
        client.close()
    return True


def gone_after(session_id: str, since: float, limit: float = 12.0) -> float:
    """Wait until the session is gone; seconds since a moment."""
    while is_there(session_id):
        assert time.monotonic() - since < limit, "the session is still there"
        time.sleep(0.05)
    return time.monotonic() - since


def wait_for_end(pid: int | None) -> None:
    assert pid is not None
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(15)


@pytest.fixture
def connection_file(tmp_path: Path) -> Path:
    """A connection file that is there, as of a kernel that is going to be restarted."""
    path = tmp_path / "kernel-1.json"
    path.write_text("{}")
    return path


@pytest.mark.parametrize("kind", ["none", "gone"])
def test_deletes_at_once_when_nobody_can_come(start_owner: StartOwner, tmp_path: Path, kind: str) -> None:
    """Without a connection file, or when it is gone, the session is deleted right after the owner's death."""
    owner = start_owner(None if kind == "none" else tmp_path / "kernel-gone.json")
    assert is_there(owner.session_id)
    assert gone_after(owner.session_id, owner.kill()) < 5.0
    wait_for_end(owner.reaper_pid)
    assert Ledger().session(owner.session_id) is None


def test_waits_for_the_next_kernel_while_the_connection_file_is_there(
    start_owner: StartOwner, connection_file: Path
) -> None:
    """A crashed kernel's sandbox is kept for a while for the kernel that Jupyter starts in its place."""
    owner = start_owner(connection_file)
    took = gone_after(owner.session_id, owner.kill())
    assert TAKEOVER_SECONDS - 1.0 < took < 12.0
    wait_for_end(owner.reaper_pid)


def test_stops_waiting_when_the_connection_file_goes(start_owner: StartOwner, connection_file: Path) -> None:
    """When the server gives the kernel up while the reaper waits, the session is deleted then."""
    owner = start_owner(connection_file)
    since = owner.kill()
    time.sleep(1.0)
    assert is_there(owner.session_id)
    connection_file.unlink()
    assert gone_after(owner.session_id, since) < 5.0
    wait_for_end(owner.reaper_pid)


@pytest.mark.parametrize("how", ["adopts", "announces"])
def test_leaves_alone_what_the_next_kernel_took(
    start_owner: StartOwner, connection_file: Path, how: str
) -> None:
    """Whoever adopts the session, or says that it is the kernel on that file now, has it from then on."""
    owner = start_owner(connection_file)
    owner.kill()
    ledger = Ledger()
    if how == "adopts":
        assert ledger.adopt(owner.session_id)
    else:
        ledger.put_kernel(
            KernelRecord(
                connection_file=str(connection_file),
                session_id=owner.session_id,
                endpoint="",
                pid=os.getpid(),
            )
        )
    wait_for_end(owner.reaper_pid)
    assert is_there(owner.session_id)
    record = ledger.session(owner.session_id)
    assert record is not None
    assert record.owner == ProcessIdentity.current()


def test_keeps_what_is_to_be_kept(start_owner: StartOwner) -> None:
    """A kept session survives its kernel, and stays in the ledger."""
    owner = start_owner(keep=True)
    owner.kill()
    wait_for_end(owner.reaper_pid)
    assert is_there(owner.session_id)
    assert Ledger().session(owner.session_id) is not None


def test_a_dismissed_reaper_finishes_the_job(start_owner: StartOwner, connection_file: Path) -> None:
    """Told that this is a shutdown, the reaper does not wait, though the connection file is still there."""
    owner = start_owner(connection_file)
    assert gone_after(owner.session_id, owner.say("now")) < 5.0
    wait_for_end(owner.reaper_pid)


def test_a_restart_gives_the_next_kernel_its_time(start_owner: StartOwner, connection_file: Path) -> None:
    """Told that this is a restart, the reaper waits."""
    owner = start_owner(connection_file)
    since = owner.say("takeover")
    time.sleep(1.5)
    assert is_there(owner.session_id)
    gone_after(owner.session_id, since)
    wait_for_end(owner.reaper_pid)


def test_survives_signals_and_carries_no_secret(start_owner: StartOwner) -> None:
    """It ignores what ends others, and neither its command line nor its environment nor its files show a token."""
    owner = start_owner()
    assert owner.reaper_pid is not None
    process = psutil.Process(owner.reaper_pid)
    token = os.environ["AGENTCUBE_TOKEN"]
    assert token not in " ".join(process.cmdline())
    assert token not in process.environ().values()
    assert os.getsid(owner.reaper_pid) != os.getsid(owner.process.pid)
    state = state_path(Ledger().path)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert token not in state.read_text()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    assert gone_after(owner.session_id, owner.kill()) < 5.0
    wait_for_end(owner.reaper_pid)


def test_one_reaper_serves_all_owners(start_owner: StartOwner) -> None:
    """Owners share one reaper, which deletes the sessions of the one that dies and ends after the last."""
    first, second = start_owner(), start_owner()
    assert first.reaper_pid == second.reaper_pid
    gone_after(first.session_id, first.kill())
    assert is_there(second.session_id)
    gone_after(second.session_id, second.kill())
    wait_for_end(second.reaper_pid)
    assert not state_path(Ledger().path).exists()


def test_a_killed_reaper_is_replaced(start_owner: StartOwner) -> None:
    """What a killed reaper was to delete, the reaper of the next owner deletes."""
    lost = start_owner()
    assert lost.reaper_pid is not None
    os.kill(lost.reaper_pid, signal.SIGKILL)
    wait_for_end(lost.reaper_pid)
    since = lost.kill()
    later = start_owner()
    assert later.reaper_pid != lost.reaper_pid
    gone_after(lost.session_id, since, limit=20.0)
    assert is_there(later.session_id)
    later.kill()
    wait_for_end(later.reaper_pid)


def test_cleans_up_what_had_no_reaper(start_owner: StartOwner) -> None:
    """What was left by a power loss, where the reaper died too, is deleted by the next kernel's reaper."""
    lost = start_owner(with_reaper=False)
    since = lost.kill()
    later = start_owner()
    assert gone_after(lost.session_id, since, limit=20.0) > TAKEOVER_SECONDS
    assert is_there(later.session_id)
    later.kill()
    wait_for_end(later.reaper_pid)


def test_the_command_line_lists_stops_and_prunes(start_owner: StartOwner) -> None:
    """`sessions` shows whose kernel lives, stops by the beginning of an id, and prunes what is orphaned."""
    alive, lost = start_owner(), start_owner(with_reaper=False)
    lost.kill()

    def listed() -> dict[str, Any]:
        told = json.loads(run_cli("sessions", "list", "--json").stdout)
        return {item["session_id"]: item for item in told}

    assert listed()[alive.session_id]["state"] == "in use"
    assert listed()[alive.session_id]["kernel"]["alive"] is True
    assert listed()[lost.session_id]["state"] == "orphaned"
    table = run_cli("sessions", "list").stdout
    assert alive.session_id in table
    assert "orphaned" in table

    dry = run_cli("sessions", "prune", "--dry-run").stdout
    assert lost.session_id in dry
    assert is_there(lost.session_id)
    assert "deleted" in run_cli("sessions", "prune").stdout
    assert not is_there(lost.session_id)
    assert is_there(alive.session_id)

    assert "No session 'nothing'" in run_cli("sessions", "stop", "nothing", status=1).stderr
    stopped = json.loads(run_cli("sessions", "stop", alive.session_id[:8], "--json").stdout)
    assert stopped == [{"session_id": alive.session_id, "outcome": "deleted", "error": None}]
    assert alive.session_id not in listed()
    alive.kill()
    wait_for_end(alive.reaper_pid)


def test_a_session_of_another_agentcube_is_not_asked_about_here(start_owner: StartOwner) -> None:
    """No credential goes to a server because a record names it; the command says what to do instead."""
    owner = start_owner(with_reaper=False)
    owner.kill()
    Ledger().update(owner.session_id, workload_manager_url="http://elsewhere.invalid:9")
    failed = run_cli("sessions", "prune", status=1)
    assert "WORKLOAD_MANAGER_URL=http://elsewhere.invalid:9" in failed.stderr
    assert Ledger().session(owner.session_id) is not None


def test_records_of_a_server_that_is_gone(start_owner: StartOwner) -> None:
    """A server of this machine that does not listen any more has taken its sessions along; others can be forgotten."""
    gone, elsewhere = start_owner(with_reaper=False), start_owner(with_reaper=False)
    for owner, url in ((gone, "http://127.0.0.1:9"), (elsewhere, "http://elsewhere.invalid:9")):
        owner.kill()
        Ledger().update(owner.session_id, workload_manager_url=url)
    told = json.loads(run_cli("sessions", "stop", gone.session_id, "--json").stdout)
    assert told == [{"session_id": gone.session_id, "outcome": "gone", "error": None}]
    assert elsewhere.session_id in run_cli("sessions", "forget", elsewhere.session_id[:8]).stdout
    assert Ledger().sessions() == []
