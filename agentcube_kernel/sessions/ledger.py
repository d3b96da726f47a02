"""The sessions this machine owns, and the kernels that use them.

An AgentCube session cannot be listed at the server, so what is not written down when its id becomes known is
lost the moment the process that made it dies. The ledger is that note: one SQLite file in Jupyter's data
directory, shared by every kernel, notebook and command of the user.

It holds ids, addresses and process ids, and never a credential: who deletes a session later brings its own.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import LedgerCorruptError, LedgerError, LedgerLockedError, LedgerVersionError
from .process_identity import Liveness, ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..wire.endpoints import Kind

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    workload_manager_url TEXT,
    router_url TEXT,
    embedded INTEGER NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    interpreter TEXT NOT NULL,
    owner_pid INTEGER NOT NULL,
    owner_started TEXT NOT NULL,
    owner_host TEXT NOT NULL,
    connection_file TEXT,
    notebook TEXT,
    name TEXT,
    keep INTEGER NOT NULL,
    created REAL NOT NULL,
    last_used REAL NOT NULL
);
CREATE TABLE kernels (
    connection_file TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    guest TEXT,
    ended TEXT,
    pid INTEGER NOT NULL,
    updated REAL NOT NULL
);
CREATE TABLE creations (
    creation_id TEXT PRIMARY KEY,
    server_url TEXT,
    namespace TEXT NOT NULL,
    interpreter TEXT NOT NULL,
    owner_pid INTEGER NOT NULL,
    owner_started TEXT NOT NULL,
    owner_host TEXT NOT NULL,
    begun REAL NOT NULL
);
"""

# From one version to the next, in the order of the versions.
_MIGRATIONS = {
    1: """
ALTER TABLE sessions ADD COLUMN kind TEXT NOT NULL DEFAULT 'code-interpreter';
CREATE TABLE kernels_2 (
    connection_file TEXT PRIMARY KEY, session_id TEXT NOT NULL, endpoint TEXT NOT NULL, guest TEXT, ended TEXT,
    pid INTEGER NOT NULL, updated REAL NOT NULL
);
INSERT INTO kernels_2 SELECT connection_file, session_id, endpoint, guest, ended, pid, updated FROM kernels;
DROP TABLE kernels;
ALTER TABLE kernels_2 RENAME TO kernels;
CREATE TABLE creations (
    creation_id TEXT PRIMARY KEY, server_url TEXT, namespace TEXT NOT NULL, interpreter TEXT NOT NULL,
    owner_pid INTEGER NOT NULL, owner_started TEXT NOT NULL, owner_host TEXT NOT NULL, begun REAL NOT NULL
)
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One owned session. Times are seconds since the epoch.

    `embedded` says that the session lives in the user's embedded gateway, whose address changes with every
    start: the session is gone when that gateway is.
    """

    session_id: str
    workload_manager_url: str | None = None
    router_url: str | None = None
    embedded: bool = False
    kind: Kind = "code-interpreter"
    namespace: str = "default"
    interpreter: str = ""
    owner: ProcessIdentity
    connection_file: str | None = None
    notebook: str | None = None
    name: str | None = None
    keep: bool = False
    created: float
    last_used: float

    @classmethod
    def new(cls, session_id: str, **details: Any) -> SessionRecord:
        """A record of a session that this process has just made. `details` are the other fields."""
        now = time.time()
        owner = details.pop("owner", None) or ProcessIdentity.current()
        return cls(session_id=session_id, owner=owner, created=now, last_used=now, **details)

    @property
    def orphaned(self) -> bool:
        """True when its owner is known to be dead and it is not marked to be kept."""
        return not self.keep and self.owner.liveness() is Liveness.DEAD


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationRecord:
    """A session that is being created: nobody knows its id yet. `begun` is in seconds since the epoch."""

    creation_id: str
    server_url: str | None
    namespace: str
    interpreter: str
    owner: ProcessIdentity
    begun: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRecord:
    """What the kernel on one connection file uses, for the kernel that is started there after it.

    `ended` is "restart" when the kernel was told to restart, and None while it runs or when it died without
    a word. `guest` is what takes the running guest over, `endpoint` where its server was.
    """

    connection_file: str
    session_id: str
    endpoint: str
    guest: dict[str, Any] | None = None
    ended: str | None = None
    pid: int


class Ledger:
    """The ledger at `path`, by default `agentcube/ledger.sqlite` in Jupyter's data directory.

    Making one does no I/O. Every method opens the file, does one short transaction and closes it, so one
    object serves many threads, survives a fork, and nothing is left to close. Methods block (1 ms as a rule,
    up to `patience` seconds while another process writes): asynchronous callers use a thread.

    Raises, from every method: LedgerLockedError, LedgerCorruptError, LedgerVersionError, or LedgerError when
    the file cannot be reached. What was asked is then not done, and not done in part.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, patience: float = 5.0) -> None:
        self.path = default_path() if path is None else Path(path)
        self._patience = patience

    def __repr__(self) -> str:
        return f"<Ledger {str(self.path)!r}>"

    # Sessions

    def record(self, session: SessionRecord) -> None:
        """Write the session down, replacing what was known of it."""
        with self._transaction() as db:
            _put(db, "sessions", _session_row(session))

    def session(self, session_id: str) -> SessionRecord | None:
        """What is known of a session, or None."""
        with self._transaction(write=False) as db:
            return _find(db, session_id)

    def sessions(self) -> list[SessionRecord]:
        """Every session, oldest first."""
        with self._transaction(write=False) as db:
            rows = db.execute("SELECT * FROM sessions ORDER BY created, session_id").fetchall()
        return [_session(row) for row in rows]

    def orphans(self) -> list[SessionRecord]:
        """The sessions whose owner is dead and that were not to be kept, oldest first."""
        return [session for session in self.sessions() if session.orphaned]

    def update(self, session_id: str, **changes: Any) -> bool:
        """Change fields of a session's record; says whether there is one."""
        with self._transaction() as db:
            session = _find(db, session_id)
            if session is None:
                return False
            _put(db, "sessions", _session_row(replace(session, **changes)))
            return True

    def touch(self, session_id: str) -> None:
        """Note that the session was used now."""
        with self._transaction() as db:
            db.execute("UPDATE sessions SET last_used = ? WHERE session_id = ?", (time.time(), session_id))

    def adopt(self, session_id: str, *, owner: ProcessIdentity | None = None) -> bool:
        """Make `owner`, by default this process, the one to delete a session that its last owner left behind.

        False when there is no such record, or when another living process owns the session. If several processes
        try at once, exactly one succeeds, even against a reaper that is about to delete it.
        """
        owner = owner or ProcessIdentity.current()
        with self._transaction() as db:
            session = _find(db, session_id)
            if session is None or (session.owner != owner and session.owner.liveness() is not Liveness.DEAD):
                return False
            _put(db, "sessions", _session_row(replace(session, owner=owner, last_used=time.time())))
            return True

    def claim(self, session: SessionRecord) -> bool:
        """Make this process the owner of a session if its owner is still the one in `session`.

        Who is about to delete a session claims it first; False says that another process was quicker.
        """
        with self._transaction() as db:
            found = _find(db, session.session_id)
            if found is None or found.owner != session.owner:
                return False
            _put(db, "sessions", _session_row(replace(found, owner=ProcessIdentity.current())))
            return True

    def forget(self, session_id: str) -> None:
        """The session is deleted or was never ours: drop its record, and those of kernels that used it."""
        with self._transaction() as db:
            db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
            db.execute("DELETE FROM kernels WHERE session_id = ?", (session_id,))

    # Creations

    def begin_creation(self, creation: CreationRecord) -> None:
        """Write down that a session is being created, whose id nobody knows yet."""
        row = {
            "creation_id": creation.creation_id,
            "server_url": _without_credentials(creation.server_url),
            "namespace": creation.namespace,
            "interpreter": creation.interpreter,
            **_owner_row(creation.owner),
            "begun": creation.begun,
        }
        with self._transaction() as db:
            _put(db, "creations", row)

    def end_creation(self, creation_id: str, session: SessionRecord | None) -> None:
        """The creation has ended: in one step, its record goes and that of its session, if there is one, comes."""
        with self._transaction() as db:
            db.execute("DELETE FROM creations WHERE creation_id = ?", (creation_id,))
            if session is not None:
                _put(db, "sessions", _session_row(session))

    def creations(self) -> list[CreationRecord]:
        """The creations that have not ended, oldest first."""
        with self._transaction(write=False) as db:
            rows = db.execute("SELECT * FROM creations ORDER BY begun").fetchall()
        return [_creation(row) for row in rows]

    # Kernels

    def put_kernel(self, record: KernelRecord) -> None:
        """Write down what the kernel on this connection file uses, replacing what was known."""
        row = asdict(record) | {"guest": _guest_json(record.guest), "updated": time.time()}
        row["endpoint"] = _without_credentials(record.endpoint)
        with self._transaction() as db:
            _put(db, "kernels", row)

    def get_kernel(self, connection_file: str) -> KernelRecord | None:
        """What the last kernel on this connection file used, or None."""
        with self._transaction(write=False) as db:
            row = db.execute("SELECT * FROM kernels WHERE connection_file = ?", (connection_file,)).fetchone()
        return None if row is None else _kernel(row)

    def delete_kernel(self, connection_file: str) -> None:
        """Drop a kernel's record. No error when there is none."""
        with self._transaction() as db:
            db.execute("DELETE FROM kernels WHERE connection_file = ?", (connection_file,))

    def kernels(self) -> list[KernelRecord]:
        """Every kernel's record, the one written last first."""
        with self._transaction(write=False) as db:
            rows = db.execute("SELECT * FROM kernels ORDER BY updated DESC").fetchall()
        return [_kernel(row) for row in rows]

    @contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        with self._clear_errors():
            self._make_private_file()
            with closing(sqlite3.connect(self.path, timeout=self._patience, isolation_level=None)) as db:
                db.row_factory = sqlite3.Row
                self._prepare(db)
                db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield db
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")

    def _make_private_file(self) -> None:
        # SQLite would create it with the umask's mode; its side files take the mode of this one.
        if not self.path.exists():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = self._version(db)
        if version == SCHEMA_VERSION:
            return
        # A write-ahead log lets readers go on while one process writes; the mode stays with the file.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN IMMEDIATE")
        try:
            version = self._version(db)  # again: another process may have been quicker
            scripts = [_SCHEMA] if version == 0 else [_MIGRATIONS[v] for v in range(version, SCHEMA_VERSION)]
            for statement in (statement for script in scripts for statement in script.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        else:
            db.execute("COMMIT")

    def _version(self, db: sqlite3.Connection) -> int:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise LedgerVersionError(
                f"The ledger {self.path} was written by a newer agentcube-kernel (format {version}, "
                f"this one knows {SCHEMA_VERSION}). Upgrade agentcube-kernel here, or move that file away.",
                path=str(self.path),
            )
        return version

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise LedgerLockedError(
                    f"The ledger {self.path} was locked by another process for {self._patience:g} s. "
                    "Try again; if it stays so, find who holds it (fuser or lsof) and end that process.",
                    path=str(self.path),
                ) from exc
            # SQLITE_ERROR is what a missing table or column gives: a database, but not a ledger.
            wrong = exc.sqlite_errorcode == sqlite3.SQLITE_ERROR
            raise (self._damaged(exc) if wrong else self._unreachable(exc)) from exc
        except (sqlite3.DatabaseError, ValueError, IndexError) as exc:
            raise self._damaged(exc) from exc
        except OSError as exc:
            raise self._unreachable(exc) from exc

    def _damaged(self, exc: Exception) -> LedgerError:
        return LedgerCorruptError(
            f"The ledger {self.path} is damaged or is not a ledger ({exc}). Move it away; a new one is "
            "made at the next use. Sessions that only it knew end by their idle timeout.",
            path=str(self.path),
        )

    def _unreachable(self, exc: Exception) -> LedgerError:
        return LedgerError(
            f"The ledger {self.path} cannot be read or written ({exc}). Check the folder's owner, mode "
            "and free space.",
            path=str(self.path),
        )


def default_path() -> Path:
    """Where the user's ledger is: in Jupyter's data directory, which follows JUPYTER_DATA_DIR."""
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "agentcube" / "ledger.sqlite"


def _find(db: sqlite3.Connection, session_id: str) -> SessionRecord | None:
    row = db.execute("SELECT * FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
    return None if row is None else _session(row)


def _put(db: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    db.execute(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", row)  # noqa: S608 - our own names


def _session_row(session: SessionRecord) -> dict[str, str | int | float | None]:
    return {
        "session_id": session.session_id,
        "workload_manager_url": _without_credentials(session.workload_manager_url),
        "router_url": _without_credentials(session.router_url),
        "embedded": int(session.embedded),
        "kind": session.kind,
        "namespace": session.namespace,
        "interpreter": session.interpreter,
        **_owner_row(session.owner),
        "connection_file": session.connection_file,
        "notebook": session.notebook,
        "name": session.name,
        "keep": int(session.keep),
        "created": session.created,
        "last_used": session.last_used,
    }


def _session(row: sqlite3.Row) -> SessionRecord:
    values = _values(row) | {"embedded": bool(row["embedded"]), "keep": bool(row["keep"])}
    return SessionRecord(**values)


def _creation(row: sqlite3.Row) -> CreationRecord:
    return CreationRecord(**_values(row))


def _values(row: sqlite3.Row) -> dict[str, Any]:
    owner = ProcessIdentity(pid=int(row["owner_pid"]), started=row["owner_started"], host=row["owner_host"])
    return {"owner": owner} | {name: row[name] for name in row.keys() if not name.startswith("owner_")}  # noqa: SIM118 - a Row iterates over values


def _owner_row(owner: ProcessIdentity) -> dict[str, str | int | float | None]:
    return {"owner_pid": owner.pid, "owner_started": owner.started, "owner_host": owner.host}


def _kernel(row: sqlite3.Row) -> KernelRecord:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(KernelRecord)}
    values["guest"] = None if row["guest"] is None else json.loads(row["guest"])
    return KernelRecord(**values)


def _guest_json(guest: Mapping[str, Any] | None) -> str | None:
    return None if guest is None else json.dumps(guest, allow_nan=False)


def _without_credentials(url: str | None) -> Any:
    """The address without user information, query and fragment: each of them may hold a secret."""
    if url is None:
        return None
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
