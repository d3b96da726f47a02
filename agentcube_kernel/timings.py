"""How long each thing is waited for, in one place: what `%sandbox config` shows and a program may set for a sandbox."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Waiting times of one sandbox, in seconds. Every field has a working default.

    ::

        sandbox = AsyncSandbox(timings=Timings(patience=600))
    """

    hold: float = 20.0
    """A request that waits for output is held by the sandbox no longer than this: below every common proxy's limit."""
    answer: float = 15.0
    """A request that is not held, or whose hold is over, is answered within this, or asked again."""
    patience: float = 60.0
    """Requests that fail are repeated for this long before the sandbox counts as unreachable."""
    listen: float = 600.0
    """Threads and tasks that outlive their cell are listened to for this long without any output of theirs."""
    question: float = 10.0
    """Completion, inspection and the like are given up after this."""
    interrupt: float = 10.0
    """An interrupted cell gets this long to end before it is no longer waited for."""
    connect: float = 5.0
    """A connection to a server is made within this."""
    keep_awake: float = 60.0
    """While one long command runs, the session is touched this often, so that AgentCube does not take it for idle."""

    def __post_init__(self) -> None:
        from .arguments import check_timeout

        for name in self.__slots__:
            check_timeout(getattr(self, name), name=name, default=1.0)
