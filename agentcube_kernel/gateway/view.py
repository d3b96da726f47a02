"""What an isolated sandbox sees of the host: the system's programs, the user's Python, and nothing of the user's."""

from __future__ import annotations

import glob
import os
import site
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_SYSTEM = ("/usr", "/opt", "/nix/store", "/sys/devices/system")
# Folders that are links into /usr on most systems.
_LINKED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    *(
        "alternatives",
        "bash.bashrc",
        "ca-certificates",
        "ca-certificates.conf",
        "crypto-policies",
        "debian_version",
    ),
    *("default/locale", "fonts", "gai.conf", "gitconfig", "host.conf", "hosts"),
    *("inputrc", "java", "jvm", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "locale.conf"),
    *(
        "localtime",
        "magic",
        "mailcap",
        "mime.types",
        "networks",
        "nsswitch.conf",
        "OpenCL",
        "openmpi",
        "os-release",
    ),
    *(
        "papersize",
        "pki/ca-trust",
        "pki/tls/certs",
        "pki/tls/cert.pem",
        "protocols",
        "python3",
        "R",
        "redhat-release",
    ),
    *(
        "resolv.conf",
        "services",
        "skel",
        "ssl/certs",
        "ssl/openssl.cnf",
        "terminfo",
        "texmf",
        "timezone",
        "vulkan",
    ),
)
_DEVICES = ("/dev/nvidia*", "/dev/dri", "/dev/kfd")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Files of the host that a sandbox may read. Nothing else of the host exists for it."""

    read_only: tuple[str, ...]
    """Folders and files, at the paths that they have here."""
    links: tuple[tuple[str, str], ...]
    """Symbolic links: where they lead, and where they are."""
    devices: tuple[str, ...]

    @classmethod
    def of_this_python(cls) -> View:
        """The view for sandboxes whose `python3` is the interpreter that runs this."""
        links = [(os.readlink(path), path) for path in _LINKED if os.path.islink(path)]
        folders = [path for path in (*_SYSTEM, *_LINKED) if not os.path.islink(path)]
        etc = [os.path.join("/etc", name) for name in _ETC]
        wanted = [path for path in (*folders, *etc, *_python()) if os.path.exists(path)]
        devices = [path for pattern in _DEVICES for path in glob.glob(pattern)]
        return cls(read_only=_outermost(wanted), links=tuple(links), devices=tuple(devices))

    def shows(self, path: str) -> bool:
        """Whether a path of the host is there for the sandbox too."""
        real = os.path.realpath(path)
        return any(is_within(real, os.path.realpath(place)) for place in self.read_only)

    def options(self, *mounts: str) -> list[str]:
        """The view as options of bubblewrap; `mounts` are those that parts of the view may lie below."""
        options = ["--tmpfs", "/", *mounts]
        for place in self.read_only:
            # A file such as /etc/resolv.conf may be a link to where nothing is in the view.
            options += ["--ro-bind", os.path.realpath(place), place]
        for target, place in self.links:
            options += ["--symlink", target, place]
        options += ["--proc", "/proc", "--dev", "/dev"]
        for device in self.devices:
            options += ["--dev-bind", device, device]
        return options


def is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _python() -> list[str]:
    """The interpreter's own folders, those of its packages, and those that packages were installed from."""
    own = str(Path(__file__).resolve().parents[2])
    given = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    folders = [
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        os.path.dirname(os.path.realpath(sys.executable)),
    ]
    if site.ENABLE_USER_SITE and site.USER_BASE:
        folders.append(os.path.join(site.USER_BASE, "lib"))
    # A checkout that the gateway itself runs from is no business of its sandboxes.
    hidden = {os.getcwd(), *given} | ({own} if os.path.basename(own) != "site-packages" else set())
    home, temporary = os.path.expanduser("~"), tempfile.gettempdir()
    for path in map(os.path.abspath, sys.path):
        # Not what would bring the user's other files with it.
        if os.path.isdir(path) and path not in hidden and not is_within(home, path) and path != temporary:
            folders.append(path)
    both = [place for path in folders for place in (os.path.abspath(path), os.path.realpath(path))]
    return [place for place in both if place != "/"]


def _outermost(paths: list[str]) -> tuple[str, ...]:
    """Each path once, without those that lie in another."""
    chosen: list[str] = []
    for path in sorted(set(paths)):
        if not any(is_within(path, place) for place in chosen):
            chosen.append(path)
    return tuple(chosen)
