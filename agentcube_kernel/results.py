"""What the clients return. Every result can also be read as the dictionary that the stock SDK returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Literal


class Ownership(Enum):
    """Who is to delete a session."""

    OWNED = "owned"
    """This client created it, and `stop()` deletes it."""
    ATTACHED = "attached"
    """Somebody gave us its id; only `stop(force=True)` deletes it."""


class Record(Mapping[str, Any]):
    """A frozen result whose fields can also be read by key, as in the stock SDK."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        if key not in type(self)._names():
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(type(self)._names())

    def __len__(self) -> int:
        return len(type(self)._names())

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]  # every subclass is a dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult(Record):
    """How a command ended. `duration` is in seconds, as the sandbox measured it."""

    stdout: str
    stderr: str
    exit_code: int
    """0 for success, 124 after a timeout, -1 when a signal killed the command."""
    duration: float = 0.0

    @property
    def timed_out(self) -> bool:
        """True when the sandbox stopped the command because its time was up."""
        return self.exit_code == 124 and "Command timed out after" in self.stderr[-200:]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo(Record):
    """One entry of a folder in the sandbox. `modified` is RFC 3339 as the sandbox sent it."""

    name: str
    size: int
    modified: str
    mode: str
    is_dir: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session as soon as its id is known."""

    session_id: str
    kind: Literal["code-interpreter", "agent-runtime"]
    name: str
    namespace: str
    ownership: Ownership
    router_url: str | None
    workload_manager_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The sandbox daemon's own report. `uptime` is as it was sent, for example `1m2.5s`."""

    service: str
    status: str
    uptime: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A piece of the output of a running command."""

    stream: Literal["stdout", "stderr"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """A finished transfer: where to, how many bytes and files went over, and the SHA-256 of a single file.

    `skipped` names what a downloaded folder held that must not be created here, such as links that lead out of it.
    """

    path: str
    size: int
    files: int = 1
    sha256: str | None = None
    skipped: tuple[str, ...] = ()
