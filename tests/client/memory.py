"""How much memory a program has held."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak() -> int:
    """The most memory that this program has ever held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage also counts what the process held before it became this program.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024
