"""Hide what a sandbox has no business with, where bubblewrap is installed.

bubblewrap makes one mount namespace for each sandbox, held by a process that only sleeps; every command then
enters it with nsenter. So all calls of a session see the same files, and, as processes, network and IPC stay
those of the host, each other's processes, FIFOs and sockets. Starting bubblewrap for each command would take
thrice as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .execute import CommandNotStarted, Launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .processes import Children

# bwrap itself stays outside and waits for this; it tells its own pid, which is the one to enter by.
_HOLD = ("/bin/sh", "-c", "echo $$; exec sleep 2147483647 >/dev/null 2>&1")
_VIEW = (
    *("--die-with-parent", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev"),
    *("--bind", "/proc", "/proc"),
)
_READY = 10.0


class IsolationFailed(OSError):
    """bubblewrap worked when it was tried, but not for this sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """The view of the files that the commands of one sandbox have."""

    holder: int
    nsenter: str
    own_users: bool

    def wrap(self, launch: Launch) -> Launch:
        """The same command, to be started inside. Raises CommandNotStarted for a program that is not there."""
        program = os.path.join(launch.cwd, launch.executable)
        if not os.path.exists(program):
            raise CommandNotStarted(f"fork/exec {launch.program}: no such file or directory")
        if not os.access(program, os.X_OK):
            raise CommandNotStarted(f"fork/exec {launch.program}: permission denied")
        options = ["--target", str(self.holder), "--mount", f"--wdns={launch.cwd}"]
        if self.own_users:
            options += ["--user", "--preserve-credentials"]
        argv = [self.nsenter, *options, "--", launch.executable, *launch.argv[1:]]
        return replace(launch, argv=argv, executable=self.nsenter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How sandboxes see the files of the host: all of them, or read-only and without the folders in ``hidden``."""

    bubblewrap: str = ""
    nsenter: str = ""
    hidden: tuple[str, ...] = ()

    @classmethod
    def choose(cls, wanted: bool | None, *, hidden: Iterable[str] = ()) -> Isolation:
        """Bubblewrap when it is installed and works here (``wanted`` None), never (False), or always (True).

        Raises ValueError when it is demanded and does not work.
        """
        bubblewrap, nsenter = shutil.which("bwrap"), shutil.which("nsenter")
        if wanted is not False and bubblewrap and nsenter and _works(bubblewrap, nsenter):
            return cls(bubblewrap=bubblewrap, nsenter=nsenter, hidden=tuple(hidden))
        if wanted:
            raise ValueError(
                "AGENTCUBE_GATEWAY_BUBBLEWRAP=1 needs bwrap and nsenter, and they do not work here"
            )
        return cls()

    def __bool__(self) -> bool:
        return bool(self.bubblewrap)

    async def open(self, folder: str, env: Mapping[str, str], children: Children) -> Namespace | None:
        """The view for the sandbox in ``folder``, held by a process with the sandbox's ``env``; None without
        one.

        Raises IsolationFailed.
        """
        if not self:
            return None
        ready = self._start(folder, env, children)
        try:
            said = await asyncio.wait_for(asyncio.to_thread(os.read, ready, 32), _READY)
        finally:
            os.close(ready)
        if not said.strip().isdigit():
            raise IsolationFailed("bubblewrap ended before the sandbox was ready")
        return Namespace(holder=int(said), nsenter=self.nsenter, own_users=_other_users(int(said)))

    def _start(self, folder: str, env: Mapping[str, str], children: Children) -> int:
        """Start the holder; the descriptor that it tells its pid on."""
        ready, told = os.pipe()
        try:
            process = subprocess.Popen(
                [self.bubblewrap, *_VIEW, *self._options(folder), *_HOLD],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.DEVNULL,
                env=env,
                start_new_session=True,
            )
        except OSError as exc:
            os.close(ready)
            raise IsolationFailed(str(exc)) from exc
        finally:
            os.close(told)
        process.returncode = 0
        children.watch(process.pid, lambda _: None)
        return ready

    def _options(self, folder: str) -> list[str]:
        temporary = os.path.realpath(tempfile.gettempdir())
        covered = [temporary, *(os.path.realpath(place) for place in self.hidden if os.path.isdir(place))]
        options = ["--bind", os.path.join(folder, "tmp"), temporary]
        for place in covered[1:]:
            options += ["--tmpfs", place]
        # What the user's Python consists of must stay in view when it lies in a folder that is covered.
        for place in dict.fromkeys(os.path.realpath(path) for path in (sys.base_prefix, sys.prefix)):
            if any(place.startswith(cover + "/") for cover in covered):
                options += ["--ro-bind", place, place]
        return [*options, "--bind", folder, folder, "--chdir", "/"]


def _works(bubblewrap: str, nsenter: str) -> bool:
    # Present but forbidden is common: unprivileged user namespaces are off in many containers.
    holder = None
    try:
        holder = subprocess.Popen(
            [bubblewrap, *_VIEW, *_HOLD],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert holder.stdout is not None
        said = int(os.read(holder.stdout.fileno(), 32) or -1)
        namespace = Namespace(holder=said, nsenter=nsenter, own_users=_other_users(said))
        probe = Launch(program="sh", argv=["sh", "-c", ":"], executable="/bin/sh", cwd="/", env={})
        return subprocess.run(namespace.wrap(probe).argv, capture_output=True, timeout=5).returncode == 0
    except (OSError, ValueError, subprocess.SubprocessError, CommandNotStarted):
        return False
    finally:
        if holder is not None:
            with contextlib.suppress(OSError):
                os.killpg(holder.pid, signal.SIGKILL)
            holder.communicate()


def _other_users(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
