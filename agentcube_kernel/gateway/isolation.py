"""Hide what a sandbox has no business with, where bubblewrap is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .execute import Launch


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How commands are started: as they are, or through bubblewrap.

    With bubblewrap a command sees the file system read-only but for its sandbox's folder, and without the
    folders in ``hidden``. Processes, network and IPC stay those of the host, since calls of one session must
    find each other's processes and FIFOs.
    """

    bubblewrap: str | None = None
    hidden: tuple[str, ...] = ()

    @classmethod
    def choose(cls, wanted: bool | None) -> Isolation:
        """Bubblewrap when it is installed and works here (``wanted`` None), never (False), or always (True).

        Raises ValueError when it is demanded and does not work.
        """
        program = None if wanted is False else shutil.which("bwrap")
        if program is not None and not _works(program):
            program = None
        if wanted and program is None:
            raise ValueError(
                "bubblewrap is demanded (AGENTCUBE_GATEWAY_BUBBLEWRAP=1) but bwrap does not work here"
            )
        return cls(bubblewrap=program)

    def hiding(self, *folders: str) -> Isolation:
        """The same with ``folders`` hidden from commands."""
        return Isolation(bubblewrap=self.bubblewrap, hidden=(*self.hidden, *folders))

    def wrap(self, launch: Launch, *, folder: str, shared: str) -> Launch:
        """The same command, started so that it sees of the writable places only ``folder`` and ``shared``."""
        if self.bubblewrap is None:
            return launch
        options = ["--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--bind", "/proc", "/proc"]
        for place in self.hidden:
            if os.path.isdir(place):
                options += ["--tmpfs", place]
        options += ["--bind", folder, folder, "--bind-try", shared, shared, "--chdir", launch.cwd]
        argv = [self.bubblewrap, *options, "--argv0", launch.argv[0], launch.executable, *launch.argv[1:]]
        return replace(launch, argv=argv, executable=self.bubblewrap)


def _works(program: str) -> bool:
    # Present but forbidden is common: unprivileged user namespaces are off in many containers.
    command = [program, "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--argv0", "true", "/bin/true"]
    try:
        return (
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=5).returncode == 0
        )
    except (OSError, subprocess.SubprocessError):
        return False
