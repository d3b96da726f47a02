"""How long each thing is waited for, in one place: what `%sandbox config` shows and a user may set."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from .arguments import check_timeout
from .errors import ConfigurationError


def _seconds(default: float, help: str, *, most: float = 86400.0) -> Any:
    """A waiting time with its longest value; the shortest is a tenth of a second."""
    return field(default=default, metadata={"help": help, "least": 0.1, "most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Waiting times of one sandbox, in seconds. Every field has a working default.

    ::

        sandbox = AsyncSandbox(timings=Timings(patience=600))

    Each can be set by an environment variable too, `hold` by `AGENTCUBE_HOLD`.

    Raises:
        ConfigurationError: a value is not a number, or is out of its bounds; `name` is the field.
    """

    # The guest holds no request longer than 300 s and no question longer than 30 s, so neither may be set to more.
    hold: float = _seconds(
        20.0,
        "the longest time for which a request waits in the sandbox for output; keep it below every proxy's limit",
        most=300.0,
    )
    answer: float = _seconds(15.0, "how long an answer may take beyond the time for which its request waits")
    patience: float = _seconds(
        60.0, "how long failing requests are repeated before the sandbox counts as unreachable"
    )
    listen: float = _seconds(
        600.0, "how long threads that outlive their cell are listened to while they print nothing"
    )
    question: float = _seconds(10.0, "how long completion and inspection are waited for", most=30.0)
    interrupt: float = _seconds(10.0, "how long an interrupted cell may take to end")
    connect: float = _seconds(5.0, "how long making a connection may take")
    keep_awake: float = _seconds(
        60.0, "how often a session is touched while one long command runs, so that it is not taken for idle"
    )

    takeover: float = _seconds(
        60.0, "how long the sandboxes of a kernel that died wait for the next kernel on its connection file"
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            check_waiting_time(
                getattr(self, each.name), each.name, each.metadata["least"], each.metadata["most"]
            )


def check_waiting_time(value: object, name: str, least: float, most: float) -> float:
    """Seconds within bounds.

    Raises:
        ConfigurationError: not a number (a `TypeError` too), or out of bounds.
    """
    seconds = check_timeout(value, name=name, default=least)
    if value is None or not least <= seconds <= most:
        raise ConfigurationError(
            f"{name} must be a number of seconds from {least:g} to {most:g}, not {value!r}.", name=name
        )
    return seconds
