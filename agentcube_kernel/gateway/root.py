"""The private folder of a gateway, and the remains of gateways that were killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from typing import TYPE_CHECKING

from .sandboxes import marker_of, remove_sandboxes, remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_LOCK = "lock"


class Root:
    """A folder of mode 0700 that one running gateway holds, by a lock that dies with it.

    Entering makes it and clears away what killed gateways of this user left: their processes and their
    folders. Leaving removes it.
    """

    def __init__(self, base: str | None = None) -> None:
        self._base = base
        self.path = ""
        self._fd = -1

    def __enter__(self) -> Root:
        for attempt in range(5):
            base = self._base or _private_base()
            try:
                with _locked(base):
                    clear_remains(base)
                    self._take(base)
            except FileNotFoundError:
                # The last gateway of the user removed the folder while we waited for its lock.
                if attempt == 4:
                    raise
            else:
                break
        return self

    def _take(self, base: str) -> None:
        self.path = tempfile.mkdtemp(prefix="gw-", dir=base)
        self._fd = os.open(os.path.join(self.path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        base = os.path.dirname(self.path)
        with contextlib.suppress(FileNotFoundError), _locked(base):
            remove_tree(self.path)
            # Only the last gateway of the user finds it empty.
            with contextlib.suppress(OSError):
                os.rmdir(base)
        os.close(self._fd)


@contextlib.contextmanager
def _locked(base: str) -> Iterator[None]:
    """Keep two gateways from taking and clearing folders at the same time."""
    fd = os.open(base, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def clear_remains(base: str) -> None:
    """Remove the folders below `base` that no gateway holds, with every process that belongs to them."""
    for name in os.listdir(base):
        folder = os.path.join(base, name)
        if not name.startswith("gw-") or os.path.islink(folder):
            continue
        try:
            fd = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            remove_sandboxes(
                {marker_of(entry.path): entry.path for entry in os.scandir(folder) if entry.is_dir()}
            )
            remove_tree(folder)
        finally:
            os.close(fd)


def _private_base() -> str:
    """A folder of this user's alone, in a place with short paths (a Unix socket's has room for 100 bytes)."""
    base = os.path.join(tempfile.gettempdir(), f"agentcube-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(base, 0o700)
    info = os.lstat(base)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise PermissionError(
            f"{base} exists and is not a folder of yours; remove it, or set TMPDIR to another place"
        )
    if info.st_mode & 0o077:
        os.chmod(base, 0o700)
    return base
