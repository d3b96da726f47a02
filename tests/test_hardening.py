"""What keeps other programs of the user out of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, subprocess, sys
from agentcube_kernel.hardening import hide_memory
get = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
print(hide_memory(), flush=True)
exec(get)
sys.stdout.flush()
subprocess.run([sys.executable, "-c", get])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the setting")
def test_memory_is_hidden() -> None:
    """The process itself cannot be looked into; what it starts can."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["True", "0", "1"]
