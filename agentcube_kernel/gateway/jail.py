"""Paths in one workspace, walked name by name from an open folder, so that no exchange of a link leads outside.

Resolving a path first and opening it then leaves a moment in which a sandbox can put a link in the place of a folder.
Here every component is opened relative to the one before it and never through a link; links are read and walked in
turn, within the workspace, as PicoD follows them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .wire import PicoError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a path leads: the last folder that exists on the way, open, and the names below it."""

    folder: int
    """A descriptor of the folder, valid while the place is open."""
    rest: tuple[str, ...]
    """Empty for the workspace itself and for a folder; else the last names, of which at most the first exists."""
    relative: str
    """The resolved path from the workspace."""
    path: str
    """The resolved path from the root of the file system, for messages."""

    def make_folders(self, names: tuple[str, ...]) -> int:
        """Make folders below this one and return a descriptor of the last, which the caller closes. Raises OSError."""
        fd = os.dup(self.folder)
        try:
            for name in names:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=fd)
                below = os.open(name, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd


@contextlib.contextmanager
def opened(root: int, workspace: str, path: str) -> Iterator[Place]:
    """Follow `path` from the workspace, of which `root` is a descriptor; absolute paths count from the workspace.

    Raises:
        PicoError: 400 for what leaves the workspace or cannot be resolved.
    """
    relative = posixpath.normpath(path.lstrip("/") or ".") if path else "."
    relative = relative if not path.startswith("/") else posixpath.normpath("/" + relative).lstrip("/") or "."
    if relative == ".." or relative.startswith("../"):
        raise PicoError(
            400, f"access denied: path '{path}' escapes workspace jail (relative path traversal: {relative})"
        )
    walk = _Walk(root, os.path.realpath(workspace))
    try:
        try:
            walk.follow(relative.split("/"))
        except _Escape as exc:
            raise PicoError(
                400,
                f"access denied: resolved path '{exc}' (from '{path}') escapes workspace jail via symlink",
            ) from exc
        except (OSError, ValueError) as exc:
            raise PicoError(400, f"access denied: path '{path}' cannot be resolved: {reason(exc)}") from exc
        yield walk.place()
    finally:
        walk.close()


def reason(exc: OSError | ValueError) -> str:
    """What Go says of an error of the operating system."""
    if isinstance(exc, FileExistsError):
        return "not a directory"  # what Go says of a file in a folder's place
    if isinstance(exc, OSError) and exc.errno is not None:
        text = os.strerror(exc.errno)
        return text[:1].lower() + text[1:]
    return "invalid argument"


class _Escape(Exception):
    """A link leads out of the workspace, to the path that is the text."""


class _Walk:
    """The open folders from the workspace to where the walk is, and the names that are left."""

    def __init__(self, root: int, base: str) -> None:
        self._base = base
        self._open: list[tuple[str, int]] = [("", os.dup(root))]
        self._rest: tuple[str, ...] = ()
        self._links = 0

    def follow(self, names: list[str]) -> None:
        todo = list(reversed(names))
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                self._up()
                continue
            target = self._enter(name)
            if target is not None:
                todo += reversed(self._target_names(target))
            elif self._rest:
                self._rest += tuple(name for name in reversed(todo) if name not in ("", "."))
                return

    def place(self) -> Place:
        names = [name for name, _ in self._open[1:]]
        parts = [*names, *self._rest]
        return Place(
            folder=self._open[-1][1],
            rest=self._rest,
            relative="/".join(parts) or ".",
            path=os.path.join(self._base, *parts),
        )

    def close(self) -> None:
        for _, fd in self._open:
            os.close(fd)
        self._open.clear()

    def _enter(self, name: str) -> str | None:
        """Open a folder; the target of a link, and `_rest` set for anything else."""
        fd = self._open[-1][1]
        for _ in range(100):
            try:
                kind = os.lstat(name, dir_fd=fd).st_mode
            except OSError:
                kind = 0  # whoever opens it gets the reason
            if not stat.S_ISDIR(kind) and not stat.S_ISLNK(kind):
                self._rest = (name,)
                return None
            try:
                if stat.S_ISLNK(kind):
                    return os.readlink(name, dir_fd=fd)
                self._open.append((name, os.open(name, _FOLDER, dir_fd=fd)))
            except PermissionError:
                self._rest = (name,)
            except OSError as exc:
                # It was exchanged since it was looked at.
                if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL):
                    raise
                continue
            return None
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _target_names(self, target: str) -> list[str]:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not target.startswith("/"):
            return target.split("/")
        if target != self._base and not target.startswith(self._base.rstrip("/") + "/"):
            raise _Escape(target)
        while len(self._open) > 1:
            os.close(self._open.pop()[1])
        return target[len(self._base) :].split("/")

    def _up(self) -> None:
        if len(self._open) == 1:
            raise _Escape(os.path.dirname(self._base))
        os.close(self._open.pop()[1])
