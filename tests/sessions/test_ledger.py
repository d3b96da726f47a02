"""The ledger: what it keeps, among how many processes, and what it says when it cannot."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentcube_kernel.errors import LedgerCorruptError, LedgerError, LedgerLockedError, LedgerVersionError
from agentcube_kernel.sessions.ledger import CreationRecord, KernelRecord, Ledger, SessionRecord
from agentcube_kernel.sessions.process_identity import Liveness, ProcessIdentity


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger with little patience."""
    return Ledger(tmp_path / "agentcube" / "ledger.sqlite", patience=0.2)


@pytest.fixture
def dead() -> ProcessIdentity:
    """A process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity.of(process.pid)
    process.communicate(b"\n")
    assert identity is not None
    return identity


def test_a_session_comes_back_as_it_was_written(ledger: Ledger) -> None:
    """Every field of a session survives the ledger."""
    record = SessionRecord.new(
        "s-1",
        workload_manager_url="http://wm:8080",
        router_url="http://router:8080/base",
        embedded=True,
        namespace="team",
        interpreter="big",
        connection_file="/run/kernel-1.json",
        notebook="/home/a/n.ipynb",
        name="alpha",
        keep=True,
    )
    ledger.record(record)
    assert ledger.session("s-1") == record
    assert ledger.session("s-2") is None


def test_a_kernel_record_comes_back_as_it_was_written(ledger: Ledger) -> None:
    """Every field of a kernel's record survives, and writing it again replaces it."""
    record = KernelRecord(
        connection_file="/run/k.json",
        session_id="s-1",
        endpoint="http://router",
        guest={"pid": 3, "generation": "g"},
        pid=7,
    )
    ledger.put_kernel(record)
    ledger.put_kernel(replace(record, ended="restart"))
    assert ledger.get_kernel("/run/k.json") == replace(record, ended="restart")
    ledger.delete_kernel("/run/k.json")
    assert ledger.get_kernel("/run/k.json") is None


def test_a_creation_becomes_a_session_in_one_step(ledger: Ledger) -> None:
    """What is being created is written down before its id is known, and gives way to the session's record."""
    creation = CreationRecord(
        creation_id="c-1",
        server_url="http://wm:8080",
        namespace="team",
        interpreter="big",
        owner=ProcessIdentity.current(),
        begun=1.5,
    )
    ledger.begin_creation(creation)
    ledger.begin_creation(replace(creation, creation_id="c-2"))
    assert ledger.creations() == [creation, replace(creation, creation_id="c-2")]
    ledger.end_creation("c-1", SessionRecord.new("s-1"))
    ledger.end_creation("c-2", None)
    assert ledger.creations() == []
    assert [session.session_id for session in ledger.sessions()] == ["s-1"]


def test_a_ledger_of_the_first_version_is_brought_up_to_date(ledger: Ledger) -> None:
    """Sessions and kernels that an older version wrote are found again."""
    ledger.path.parent.mkdir()
    old = sqlite3.connect(ledger.path)
    old.executescript(
        """
        CREATE TABLE sessions (session_id TEXT PRIMARY KEY, workload_manager_url TEXT, router_url TEXT,
            embedded INTEGER NOT NULL, namespace TEXT NOT NULL, interpreter TEXT NOT NULL, owner_pid INTEGER NOT NULL,
            owner_started TEXT NOT NULL, owner_host TEXT NOT NULL, connection_file TEXT, notebook TEXT, name TEXT,
            keep INTEGER NOT NULL, created REAL NOT NULL, last_used REAL NOT NULL);
        CREATE TABLE kernels (connection_file TEXT PRIMARY KEY, session_id TEXT NOT NULL, endpoint TEXT NOT NULL,
            guest TEXT, client_id TEXT, ended TEXT, pid INTEGER NOT NULL, updated REAL NOT NULL);
        INSERT INTO sessions VALUES ('s-1', NULL, NULL, 0, 'ns', 'i', 1, '', 'h', NULL, NULL, 'a', 1, 1.0, 2.0);
        INSERT INTO kernels VALUES ('k.json', 's-1', 'http://r', '{"pid": 3}', 'c', NULL, 7, 1.0);
        PRAGMA user_version = 1;
        """
    )
    old.close()
    (session,) = ledger.sessions()
    assert (session.name, session.keep, session.kind) == ("a", True, "code-interpreter")
    assert ledger.get_kernel("k.json") == KernelRecord(
        connection_file="k.json", session_id="s-1", endpoint="http://r", guest={"pid": 3}, pid=7
    )
    assert ledger.creations() == []


def test_forgetting_a_session_forgets_its_kernels(ledger: Ledger) -> None:
    """A deleted session is not offered to the next kernel on a connection file."""
    ledger.record(SessionRecord.new("s-1"))
    ledger.put_kernel(KernelRecord(connection_file="/run/k.json", session_id="s-1", endpoint="", pid=1))
    ledger.forget("s-1")
    assert ledger.sessions() == []
    assert ledger.get_kernel("/run/k.json") is None


def test_the_file_is_for_its_owner_alone(ledger: Ledger) -> None:
    """The file has mode 0600 and its folder 0700, whatever the umask is."""
    before = os.umask(0)
    try:
        ledger.record(SessionRecord.new("s-1"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ledger.path.parent.stat().st_mode) == 0o700


def test_no_credential_gets_in_with_an_address(ledger: Ledger) -> None:
    """A user, a password, a query and a fragment of a URL are left out."""
    ledger.record(SessionRecord.new("s-1", router_url="http://me:secret@router:1/p?token=secret#secret"))
    ledger.put_kernel(
        KernelRecord(connection_file="k", session_id="s-1", endpoint="http://me:secret@router", pid=1)
    )
    stored = b"".join(path.read_bytes() for path in ledger.path.parent.iterdir())
    assert b"secret" not in stored
    session = ledger.session("s-1")
    assert session is not None
    assert session.router_url == "http://router:1/p"


def test_who_is_dead_and_who_is_not(ledger: Ledger, dead: ProcessIdentity) -> None:
    """Orphans are the sessions whose owner is surely dead and that were not to be kept."""
    elsewhere = replace(dead, host="another-machine")
    reused = replace(ProcessIdentity.current(), started="before")
    for name, owner, keep in (
        ("mine", ProcessIdentity.current(), False),
        ("dead", dead, False),
        ("kept", dead, True),
        ("elsewhere", elsewhere, False),
        ("reused", reused, False),
    ):
        ledger.record(SessionRecord.new(name, owner=owner, keep=keep))
    assert {session.session_id for session in ledger.orphans()} == {"dead", "reused"}
    assert elsewhere.liveness() is Liveness.UNKNOWN


def test_only_what_was_left_behind_is_adopted(ledger: Ledger, dead: ProcessIdentity) -> None:
    """Nobody takes a session from a living process; of two that want a dead one's, one gets it."""
    parent = ProcessIdentity.of(os.getppid())
    assert parent is not None
    ledger.record(SessionRecord.new("theirs", owner=parent))
    ledger.record(SessionRecord.new("left", owner=dead))
    assert not ledger.adopt("theirs")
    assert ledger.adopt("left", owner=parent)
    assert not ledger.adopt("left")
    assert not ledger.adopt("unknown")


def test_one_of_several_claims_a_session(ledger: Ledger, dead: ProcessIdentity) -> None:
    """Who claims a session that another process has claimed since it looked, does not get it."""
    seen = SessionRecord.new("s-1", owner=dead)
    ledger.record(seen)
    assert ledger.claim(seen)
    assert not ledger.claim(seen)


def test_many_processes_write_at_once(tmp_path: Path) -> None:
    """Twelve processes that start with no ledger at all lose nothing."""
    path = tmp_path / "ledger.sqlite"
    code = (
        "import sys; from agentcube_kernel.sessions.ledger import Ledger, SessionRecord\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for n in range(10):\n"
        "    ledger.record(SessionRecord.new(f'{sys.argv[2]}-{n}'))\n"
        "    ledger.update(f'{sys.argv[2]}-{n}', name='x')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(12)]
    assert [writer.wait(50) for writer in writers] == [0] * 12
    assert len(Ledger(path).sessions()) == 120


@pytest.fixture
def locked(ledger: Ledger) -> Iterator[Ledger]:
    """A ledger that somebody else is writing to and does not let go."""
    ledger.record(SessionRecord.new("s-1"))
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield ledger
    other.execute("ROLLBACK")
    other.close()


def test_a_locked_ledger_is_a_clear_error_for_writers(locked: Ledger) -> None:
    """Writing gives up after the patience it was given, and says what to do; reading goes on."""
    with pytest.raises(LedgerLockedError, match="locked by another process"):
        locked.touch("s-1")
    assert len(locked.sessions()) == 1


def test_a_corrupt_ledger_is_a_clear_error(ledger: Ledger) -> None:
    """A file that is no database, and a database that is no ledger, say so and are left as they are."""
    ledger.path.parent.mkdir()
    ledger.path.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerCorruptError, match="Move it away"):
        ledger.sessions()
    assert ledger.path.read_bytes().startswith(b"not a database")
    ledger.path.unlink()
    other = sqlite3.connect(ledger.path)
    other.execute("PRAGMA user_version = 1")
    other.close()
    with pytest.raises(LedgerCorruptError):
        ledger.sessions()


def test_a_newer_ledger_is_a_clear_error(ledger: Ledger) -> None:
    """A ledger of a newer version is not touched."""
    ledger.record(SessionRecord.new("s-1"))
    newer = sqlite3.connect(ledger.path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(LedgerVersionError, match="newer agentcube-kernel"):
        ledger.record(SessionRecord.new("s-2"))


def test_a_ledger_out_of_reach_is_a_clear_error(tmp_path: Path) -> None:
    """A path that cannot be a file is an error of ours, not of SQLite's."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "ledger.sqlite"):
        with pytest.raises(LedgerError) as caught:
            Ledger(path).sessions()
        assert caught.value.path == str(path)
