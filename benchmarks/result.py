"""What a measurement found."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row of the table. `value` is what the target is about; `met` is None when there is no target."""

    name: str
    ours: str
    baseline: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A measurement that cannot be taken here, and why."""

    name: str
    reason: str


def interleaved(
    ours: Callable[[], float], baseline: Callable[[], float], *, samples: int, warm_up: int = 3
) -> tuple[float, float]:
    """The medians of two measurements taken in turns, so that what else the machine does meets both."""
    for _ in range(warm_up):
        ours(), baseline()
    pairs = [(ours(), baseline()) for _ in range(samples)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def compared(name: str, ours: float, baseline: float, what: str, *, at_most: float | None = None) -> Result:
    """A row that compares two times in seconds."""
    ratio = ours / baseline
    return Result(
        name=name,
        ours=milliseconds(ours),
        baseline=f"{milliseconds(baseline)} {what}",
        ratio=ratio,
        target="" if at_most is None else f"ratio ≤ {at_most:g}",
        met=None if at_most is None else ratio <= at_most,
    )


def milliseconds(seconds: float) -> str:
    """A time as people read it."""
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]
