"""One client of the guest: its events, its cells, and the request of it that is held open."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from ..channel.protocol import Outbox

PRESENT = 15.0
"""A client counts as present this many seconds after its last request."""

GATHER = 0.015
"""Seconds from the first output to the answer that brings it, if the cell goes on: short for an eye, long for a loop
that prints line after line and had better arrive as one text."""

QUIET = 0.05
"""Seconds after which the start of a cell is told even if nothing else has happened."""

REMEMBERED = 2000
SLOTS_KEPT = 64


@dataclass(slots=True)
class Hold:
    """A request that is answered later, on file descriptor `fd`."""

    fd: int
    deadline: float


@dataclass(slots=True)
class Client:
    id: str
    outbox: Outbox = field(default_factory=Outbox)
    tasks: OrderedDict[str, bool] = field(default_factory=OrderedDict)
    """Ids of cells and comm messages ever submitted, and whether they have ended."""
    slots: list[str] = field(default_factory=list)
    hold: Hold | None = None
    flush_at: float | None = None
    last_seen: float = 0.0

    @property
    def present(self) -> bool:
        return self.hold is not None or time.monotonic() - self.last_seen < PRESENT

    @property
    def unfinished(self) -> list[str]:
        return [task for task, ended in self.tasks.items() if not ended]

    def submit(self, task: str) -> bool:
        """Note a task; return False when it is known already."""
        if task in self.tasks:
            return False
        self.tasks[task] = False
        while len(self.tasks) > REMEMBERED:
            self.tasks.popitem(last=False)
        return True

    def schedule_flush(self, *, quiet: bool = False) -> None:
        """Let output gather a moment before it goes out, so that a short cell costs one exchange.

        `quiet` is for what nobody waits to see.
        """
        if self.hold is None or not self.outbox.pending:
            return
        now = time.monotonic()
        wait = 0.0 if self.outbox.wants_attention else QUIET if quiet else GATHER
        self.flush_at = now + wait if self.flush_at is None else min(self.flush_at, now + wait)
