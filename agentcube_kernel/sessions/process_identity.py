"""Which process is meant, and whether it still lives: a pid alone does not say, since pids are used again."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

_LINUX = sys.platform.startswith("linux")


class Liveness(Enum):
    """What can be said about a process from here."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """It belongs to another machine that shares this user's data directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process of one machine.

    `started` is opaque and compared for equality only. On Linux it holds the machine's boot id and the
    start time in ticks, so that a process of before a power loss is never mistaken for one of after it.
    """

    pid: int
    started: str
    host: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The process that has this pid now, or None when there is none."""
        started = start_mark(pid)
        return None if started is None else cls(pid=pid, started=started, host=platform.node())

    @classmethod
    def current(cls) -> ProcessIdentity:
        """This process."""
        found = cls.of(os.getpid())
        if found is None:  # /proc may be hidden; being alive is then all that is known of us
            return cls(pid=os.getpid(), started="", host=platform.node())
        return found

    def liveness(self) -> Liveness:
        """Whether this very process still runs. A zombie counts as dead."""
        if self.host != platform.node():
            return Liveness.UNKNOWN
        started = start_mark(self.pid)
        if started is None:
            return Liveness.DEAD
        known = self.started != "" and started != ""
        return Liveness.DEAD if known and started != self.started else Liveness.ALIVE


def start_mark(pid: int) -> str | None:
    """What tells the present process with this pid from all others ever to have it.

    None when no such process runs, the empty string when one does but nothing more can be read of it.
    """
    if _LINUX:
        return _linux_start_mark(pid)
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.3f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return ""


def _linux_start_mark(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        return ""
    # The command's name, in parentheses, may itself hold spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return f"{_boot_id()}:{int(fields[19])}"


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
