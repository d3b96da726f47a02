"""Keep sandboxes apart from the host and from each other, where bubblewrap is installed.

bubblewrap makes namespaces for each sandbox: mounts, users, processes, IPC and host name; the network stays the
host's. They are held by a process that only sleeps, and every command enters them with nsenter. So all calls of a
session see the same files and each other's processes, FIFOs and sockets, and nothing of the host's. Starting
bubblewrap for each command would give each a world of its own.

Commands see themselves as root, as in AgentCube's image, which stands for the user of the gateway. setpriv takes the
capabilities away from them that root of a namespace has: with them they could mount read-only folders for writing.

Landlock is no replacement. Its domains are inherited, and commands that are started one by one get one each; none may
look into another's `/proc` entries, which interrupting and stopping need.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from .execute import CommandNotStarted, Launch
from .view import View, is_within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .processes import Children

    Kind = Literal["none", "bubblewrap"]

_HOLD = ("/bin/sh", "-c", "echo ready; PATH=$PATH:/usr/bin:/bin; exec sleep 2147483647 >/dev/null 2>&1")
# uid 0 for another reason too: for any other, bubblewrap nests a second user namespace, which nobody can enter fully.
_NAMESPACES = (
    "--unshare-user",
    "--uid",
    "0",
    "--gid",
    "0",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
)
_ENTER = ("--user", "--preserve-credentials", "--mount", "--pid", "--ipc", "--uts")
_POWERLESS = ("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
_READY = 10.0
_TMP = "/tmp"  # noqa: S108 - a mount point of the sandbox's own


class IsolationFailed(OSError):
    """bubblewrap worked when it was tried, but not for this sandbox; the message says what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """The world in which the commands of one sandbox run."""

    holder: int
    """The process in it that it lasts as long as, by its number here."""
    nsenter: str
    setpriv: str
    folder: str
    view: View

    def wrap(self, launch: Launch) -> Launch:
        """The same command, to be started inside. Raises CommandNotStarted for a program that is not there."""
        program = self._here(os.path.join(launch.cwd, launch.executable))
        if not (is_within(program, self.folder) or self.view.shows(program)) or not os.path.exists(program):
            raise CommandNotStarted(f"fork/exec {launch.program}: no such file or directory")
        if not os.access(program, os.X_OK):
            raise CommandNotStarted(f"fork/exec {launch.program}: permission denied")
        enter = _entrance(self.nsenter, self.setpriv, self.holder, launch.cwd)
        argv = [*enter, launch.executable, *launch.argv[1:]]
        return replace(launch, argv=argv, executable=self.nsenter)

    def _here(self, path: str) -> str:
        """Where a path of the sandbox is on the host."""
        mounted = any(is_within(path, place) for place in (self.folder, *self.view.read_only))
        if is_within(path, _TMP) and not mounted:
            return os.path.join(self.folder, path.lstrip("/"))
        if path in ("/etc/passwd", "/etc/group"):
            return os.path.join(self.folder, os.path.basename(path))
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How sandboxes are kept apart from the host: not at all, or by bubblewrap."""

    bubblewrap: str = ""
    nsenter: str = ""
    setpriv: str = ""
    view: View | None = None

    @classmethod
    def choose(cls, wanted: bool | None) -> Isolation:
        """Bubblewrap when it is installed and works here (`wanted` None), never (False), or always (True).

        Raises:
            ValueError: it is demanded and does not work; the message says why.
        """
        if wanted is False:
            return cls()
        bubblewrap, nsenter, setpriv = map(shutil.which, ("bwrap", "nsenter", "setpriv"))
        if not bubblewrap or not nsenter or not setpriv:
            problem = "bwrap, nsenter and setpriv are not all installed"
        else:
            # setpriv is started inside, where only its real place is sure to be.
            chosen = cls(
                bubblewrap=bubblewrap,
                nsenter=nsenter,
                setpriv=os.path.realpath(setpriv),
                view=View.of_this_python(),
            )
            problem = chosen._problem()
            if not problem:
                return chosen
        if wanted:
            raise ValueError(
                f"AGENTCUBE_GATEWAY_BUBBLEWRAP=1 demands bwrap, which does not work here: {problem}"
            )
        return cls()

    def __bool__(self) -> bool:
        return bool(self.bubblewrap)

    @property
    def kind(self) -> Kind:
        """What is in force."""
        return "bubblewrap" if self else "none"

    async def open(self, folder: str, env: Mapping[str, str], children: Children) -> Namespace | None:
        """The world for the sandbox in `folder`, held by a process with the sandbox's `env`; None without one.

        Raises:
            IsolationFailed: bubblewrap could not be started or failed.
        """
        if not self:
            return None
        assert self.view is not None
        holder = _Holder(self._command(folder), env)
        children.watch(holder.pid, lambda _: None)
        pid = await asyncio.to_thread(holder.ready)
        return Namespace(
            holder=pid, nsenter=self.nsenter, setpriv=self.setpriv, folder=folder, view=self.view
        )

    def _command(self, folder: str = "") -> list[str]:
        assert self.view is not None
        # Its own /tmp comes first: an environment that lies in the host's is to be seen in it.
        temporary = ("--bind", os.path.join(folder, "tmp"), _TMP) if folder else ()
        options = [*_NAMESPACES, "--die-with-parent", *self.view.options(*temporary)]
        if folder:
            accounts = _write_accounts(folder)
            options += ["--bind", folder, folder]
            for name, path in accounts.items():
                options += ["--ro-bind", path, f"/etc/{name}"]
        return [self.bubblewrap, *options, "--remount-ro", "/", "--chdir", "/"]

    def _problem(self) -> str:
        """Why it does not work here, or nothing. Present but forbidden is common: containers rule namespaces out."""
        holder = None
        try:
            holder = _Holder(self._command(), os.environ)
            pid = holder.ready()
            command = [*_entrance(self.nsenter, self.setpriv, pid, "/"), "/bin/sh", "-c", ":"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=5)
            return "" if done.returncode == 0 else done.stderr.strip()[-300:] or "nsenter failed"
        except (OSError, subprocess.SubprocessError) as exc:
            return str(exc)
        finally:
            if holder is not None:
                with contextlib.suppress(OSError):
                    os.killpg(holder.pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(holder.pid, 0)


def _entrance(nsenter: str, setpriv: str, holder: int, cwd: str) -> list[str]:
    """What comes before a program's own arguments to start it in the world of a holder."""
    return [nsenter, "--target", str(holder), *_ENTER, f"--wdns={cwd}", "--", setpriv, *_POWERLESS, "--"]


class _Holder:
    """bubblewrap on its way to become the process that holds a world."""

    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        info, told_info = os.pipe()
        self._output, told = os.pipe()
        self._info = info
        try:
            process = subprocess.Popen(
                [command[0], "--info-fd", str(told_info), *command[1:], *_HOLD],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                env=dict(env),
                start_new_session=True,
                pass_fds=(told_info,),
            )
        except OSError as exc:
            os.close(info)
            os.close(self._output)
            raise IsolationFailed(f"{command[0]} cannot be started: {exc.strerror}") from exc
        finally:
            os.close(told)
            os.close(told_info)
        # Reaped by Children, or by whoever waits for it.
        process.returncode = 0
        self.pid = process.pid

    def ready(self) -> int:
        """Wait until the world is complete; the number of its first process. Raises IsolationFailed; blocking."""
        import select

        try:
            if not select.select([self._output], [], [], _READY)[0]:
                raise IsolationFailed("bubblewrap took too long")
            said = os.read(self._output, 4096).decode(errors="replace").strip()
            if said != "ready":
                raise IsolationFailed(f"bubblewrap failed: {said[-300:] or 'it said nothing'}")
            pid: int = json.loads(os.read(self._info, 4096))["child-pid"]
            return pid
        except ValueError as exc:
            raise IsolationFailed("bubblewrap did not say which process it started") from exc
        finally:
            os.close(self._output)
            os.close(self._info)


def _write_accounts(folder: str) -> dict[str, str]:
    """Lists of users and groups with root alone, by the names they have in /etc."""
    workspace = os.path.join(folder, "workspace")
    texts = {"passwd": f"root:x:0:0:root:{workspace}:/bin/sh\n", "group": "root:x:0:\n"}
    paths = {}
    for kind, text in texts.items():
        paths[kind] = os.path.join(folder, kind)
        with open(paths[kind], "w", encoding="utf-8") as file:
            file.write(text)
    return paths
