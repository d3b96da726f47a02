"""Folders of this machine that are walked one name at a time and never through a link.

On POSIX a folder is an open descriptor: each name is opened relative to it with `O_NOFOLLOW`, so that nothing
which changes on the disk meanwhile can lead elsewhere. Windows has no such calls; there each path is resolved and
compared before it is used, which leaves a moment in which another program of the same user could exchange it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_OLD_FILE = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Folder(Protocol):
    """An open folder. Every `name` is one component; every method raises OSError."""

    def child(self, name: str, *, create: bool = False) -> Folder:
        """Open the folder `name`, made first if `create` is set and nothing has that name."""

    def new_file(self, name: str, mode: int) -> int:
        """Create a file that is not there yet and return a descriptor to write to."""

    def old_file(self, name: str) -> int:
        """Open a file for reading, which must not be a link."""

    def new_link(self, name: str, target: str) -> None:
        """Create a symbolic link that is not there yet."""

    def remove(self, name: str) -> None:
        """Remove a file or link."""

    def move(self, name: str, target: Folder) -> None:
        """Move a file or link into another folder, in place of a file or link of the same name."""

    def names(self) -> list[tuple[str, bool]]:
        """The entries, and whether each is a folder."""

    def close(self) -> None:
        """Close the folder."""


class DescriptorFolder:
    """A folder as a file descriptor (POSIX)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open(cls, path: str) -> DescriptorFolder:
        """Open a folder by its path, in which links are followed: the path is the user's own."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def child(self, name: str, *, create: bool = False) -> DescriptorFolder:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._fd)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return DescriptorFolder(os.open(name, flags, dir_fd=self._fd))

    def new_file(self, name: str, mode: int) -> int:
        return os.open(name, _NEW_FILE | os.O_NOFOLLOW, mode, dir_fd=self._fd)

    def old_file(self, name: str) -> int:
        return os.open(name, _OLD_FILE | os.O_NOFOLLOW, dir_fd=self._fd)

    def new_link(self, name: str, target: str) -> None:
        os.symlink(target, name, dir_fd=self._fd)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._fd)

    def move(self, name: str, target: Folder) -> None:
        assert isinstance(target, DescriptorFolder)
        os.replace(name, name, src_dir_fd=self._fd, dst_dir_fd=target._fd)

    def names(self) -> list[tuple[str, bool]]:
        with os.scandir(self._fd) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]

    def close(self) -> None:
        os.close(self._fd)


class CheckedFolder:
    """A folder as a path that is resolved and compared before each use (Windows)."""

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def open(cls, path: str) -> CheckedFolder:
        """Open a folder by its path, in which links are followed: the path is the user's own."""
        return cls(os.path.realpath(path, strict=True))

    def child(self, name: str, *, create: bool = False) -> CheckedFolder:
        path = self._place(name)
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
        if os.path.realpath(path, strict=True) != path or not stat.S_ISDIR(os.lstat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return CheckedFolder(path)

    def new_file(self, name: str, mode: int) -> int:
        return os.open(self._place(name), _NEW_FILE, mode)

    def old_file(self, name: str) -> int:
        path = self._place(name)
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return os.open(path, _OLD_FILE)

    def new_link(self, name: str, target: str) -> None:
        os.symlink(target, self._place(name))

    def remove(self, name: str) -> None:
        os.unlink(self._place(name))

    def move(self, name: str, target: Folder) -> None:
        assert isinstance(target, CheckedFolder)
        os.replace(self._place(name), target._place(name))

    def names(self) -> list[tuple[str, bool]]:
        with os.scandir(self._place("")) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]

    def close(self) -> None:
        """Nothing is open."""

    def _place(self, name: str) -> str:
        if os.path.realpath(self._path, strict=True) != self._path:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._path)
        return os.path.join(self._path, name) if name else self._path


def open_folder(path: str) -> Folder:
    """Open a folder in the safest way that this machine has."""
    if os.open in os.supports_dir_fd and os.scandir in os.supports_fd:
        return DescriptorFolder.open(path)
    return CheckedFolder.open(path)


class Branch:
    """The open folders from a root down to where something was last created, so that neighbours cost one call."""

    def __init__(self, root: Folder) -> None:
        self._open: list[tuple[str, Folder]] = [("", root)]

    def folder(self, path: tuple[str, ...]) -> Folder:
        """The folder at `path` below the root, with every folder on the way made. Raises OSError."""
        depth = 0
        while depth < len(path) and depth + 1 < len(self._open) and self._open[depth + 1][0] == path[depth]:
            depth += 1
        self._close_to(depth + 1)
        for name in path[depth:]:
            self._open.append((name, self._open[-1][1].child(name, create=True)))
        return self._open[-1][1]

    def close(self) -> None:
        """Close every folder, the root too."""
        self._close_to(0)

    def _close_to(self, count: int) -> None:
        while len(self._open) > count:
            self._open.pop()[1].close()


@contextlib.contextmanager
def branch(root: Folder) -> Iterator[Branch]:
    """A branch from `root`, all of it closed at the end."""
    opened = Branch(root)
    try:
        yield opened
    finally:
        opened.close()


def merge(source: Folder, target: Folder) -> None:
    """Move every file and link into another tree, replacing those of the same name one by one.

    Raises OSError when a folder's place is taken by something else, a link to a folder included; what was moved
    until then stays.
    """
    for name, is_folder in source.names():
        if not is_folder:
            source.move(name, target)
            continue
        below = source.child(name)
        try:
            place = target.child(name, create=True)
            try:
                merge(below, place)
            finally:
                place.close()
        finally:
            below.close()
