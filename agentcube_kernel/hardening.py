"""What a process of ours can do so that other programs of the same user cannot look into it."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def hide_memory() -> bool:
    """Close this process's memory and environment to other processes of the user (Linux); its children's stay open.

    Without it any program of the user can read both below `/proc`, and with them every token in them. No core file is
    written any more. Root still reads everything. Returns False where the system has no such setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False
