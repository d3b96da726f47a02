"""What the sandbox uses, read from /proc and the control group, in the form of Jupyter's usage_reply."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

_CGROUP = "/sys/fs/cgroup"


class UsageMeter:
    """Measures a process tree; percentages are of the time since the measurement before."""

    def __init__(self) -> None:
        self._cpu: tuple[float, float] | None = None
        self._host: tuple[float, float] | None = None

    def measure(self, pid: int) -> dict[str, Any]:
        now = time.monotonic()
        tree = process_tree(pid)
        seconds = sum(_cpu_seconds(p) for p in tree)
        before, self._cpu = self._cpu, (now, seconds)
        percent = 0.0
        if before is not None and now > before[0]:
            percent = max(0.0, 100 * (seconds - before[1]) / (now - before[0]))
        return {
            "hostname": os.uname().nodename,
            "pid": pid,
            "kernel_cpu": round(percent, 1),
            "kernel_memory": sum(_resident(p) for p in tree),
            "cpu_count": os.cpu_count() or 1,
            "host_cpu_percent": self._host_percent(),
            "host_virtual_memory": _memory(),
        }

    def _host_percent(self) -> float:
        with contextlib.suppress(OSError, ValueError), open("/proc/stat") as stat:
            fields = [float(value) for value in stat.readline().split()[1:9]]
            total, idle = sum(fields), fields[3] + fields[4]
            before, self._host = self._host, (total, idle)
            if before is not None and total > before[0]:
                return round(100 * (1 - (idle - before[1]) / (total - before[0])), 1)
        return 0.0


def process_tree(pid: int) -> list[int]:
    """The process and its descendants."""
    parents: dict[int, list[int]] = {}
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    parents.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
    tree = [pid]
    for process in tree:
        tree.extend(parents.get(process, ()))
    return tree


def children(pid: int) -> list[int]:
    """Living descendants; empty where /proc cannot tell."""
    return [p for p in process_tree(pid)[1:] if _state(p) not in ("Z", "")]


def oom_kills() -> int:
    """How often the control group of this process has killed for memory."""
    for name in ("memory.events", "memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError), open(os.path.join(_CGROUP, name)) as events:
            for line in events:
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return 0


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()


def _state(pid: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        return _stat(pid)[0]
    return ""


def _cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _memory() -> dict[str, float]:
    """Total, available and used bytes: of the control group where it has a limit, else of the machine."""
    total = available = 0
    with contextlib.suppress(OSError, ValueError), open("/proc/meminfo") as meminfo:
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo}
        total, available = values.get("MemTotal", 0), values.get("MemAvailable", 0)
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(_CGROUP, limit_name)) as file:
                limit = int(file.read())
            with open(os.path.join(_CGROUP, used_name)) as file:
                used = int(file.read())
            if 0 < limit < total:
                total, available = limit, max(0, limit - used)
            break
    used = total - available
    percent = round(100 * used / total, 1) if total else 0.0
    return {"total": total, "available": available, "percent": percent, "used": used, "free": available}
