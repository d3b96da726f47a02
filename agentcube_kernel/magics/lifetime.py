"""How long a session is going to live, as far as that can be known from outside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..results import Ownership
from ..text import duration

if TYPE_CHECKING:
    from ..registry.entry import Entry

DEFAULT_IDLE_SECONDS = 15 * 60.0
DEFAULT_LIFE_SECONDS = 8 * 3600.0


def remaining(entry: Entry, now: float | None = None) -> float | None:
    """Seconds until the asked-for lifetime ends; None when no lifetime was asked for."""
    if entry.ttl is None or entry.created is None:
        return None
    return max(0.0, entry.created + entry.ttl - (time.time() if now is None else now))


def describe_lifetime(entry: Entry) -> str:
    """What can be said about the session's end, in one line.

    AgentCube does not tell when a session ends: it is set per CodeInterpreter, in the cluster. Its defaults are
    15 minutes without a request and 8 hours in all.
    """
    now = time.time()
    left = remaining(entry, now)
    if left == 0:
        return "its asked-for lifetime is over; it may end any moment"
    parts = (
        [] if left is None else [f"at most {duration(left)} left of the {duration(entry.ttl or 0)} asked for"]
    )
    if entry.keep_alive_until is not None and entry.keep_alive_until > now:
        parts.append(f"kept alive for {duration(entry.keep_alive_until - now)}")
    elif (last := entry.last_used or entry.created) is not None:
        idle = now - last
        until = DEFAULT_IDLE_SECONDS - idle
        when = f"in {duration(until)} if nothing is run" if until > 0 else "any moment"
        parts.append(
            f"idle for {duration(idle)}, may end {when} (AgentCube's default; the cluster may differ)"
        )
    if left is None and entry.created is not None and entry.ownership is Ownership.OWNED:
        most = entry.created + DEFAULT_LIFE_SECONDS - now
        if most < 3600:
            parts.append(f"at most {duration(most)} left by AgentCube's default")
    return "; ".join(parts) or "starts with the first cell"
