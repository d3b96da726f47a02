"""Unpack an archive that a sandbox made, on the assumption that it was made to do harm.

`tarfile` only reads the members' headers. Its own extraction is not used: the filter that is to make it safe has
been broken more than once (CVE-2025-4517, CVE-2025-4330, CVE-2025-4138), and differently in each Python. Here
folders and regular files come first, while no link exists that could lead anywhere; links come last.
"""

from __future__ import annotations

import errno
import math
import os
import tarfile
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from ..errors import TransferError
from .folder_tree import Branch, Folder, branch, merge, open_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..limits import Limits

    Path = tuple[str, ...]

_PIECE = 256 * 1024
# tarfile reads a header of extended attributes in one piece; parsing a long one takes quadratic time in some Pythons.
_LARGEST_HEADER = 16 * 1024
_LATEST = 2.0**33
_SKIPPED_SHOWN = 1000
# What makes a single name or link impossible on this machine, rather than the whole folder.
_OF_A_NAME = frozenset(
    (errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT)
) | {errno.ENOTDIR, errno.EPERM}
# Names that Windows gives to devices, whatever follows the first dot.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What came of an archive: how many files, and what was left out, by name and at most a thousand of them."""

    files: int
    skipped: tuple[str, ...]


def is_file_name(name: str) -> bool:
    """Whether a name from a sandbox is one component of a path and nothing more, on this machine too."""
    if name in ("", ".", "..") or any(c in name for c in "/\0") or os.sep in name:
        return False
    if os.name == "nt":
        base = name.split(".")[0].rstrip().lower()
        return not any(c in name for c in '<>:"|?*\\') and name[-1] not in ". " and base not in _DEVICES
    return True


def unpack(
    file: BinaryIO,
    new: str,
    target: str,
    *,
    source: str,
    limits: Limits,
    stop: threading.Event | None = None,
    opener: Callable[[str], Folder] = open_folder,
) -> Unpacked:
    """Unpack into the folder `new`, which must not exist, and move its content to `target` when all is well.

    What is neither a folder, a regular file nor a link is skipped, as are names and links that lead out of the
    folder, and links through links. Hard links become copies. Of the modes the bits for reading, writing and
    executing count, below the umask and never writable by others. Setting `stop` ends the work in another thread.

    Raises:
        TransferError: the archive is damaged, or above a limit; `target` is as it was.
        OSError: something cannot be stored here; some files of `target` may have been replaced by then.
    """
    os.mkdir(new)
    with branch(opener(new)) as tree:
        extraction = _Extraction(tree, file, source=source, limits=limits, stop=stop or threading.Event())
        extraction.run()
    if os.path.isdir(target):
        there, here = opener(target), opener(new)
        try:
            merge(here, there)
        finally:
            here.close()
            there.close()
    else:
        os.replace(new, target)
    return extraction.result()


class _Headers:
    """The archive as `tarfile` sees it: positions and headers, never more than a few kilobytes at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.HeaderError("a header of impossible size")
        return self._file.read(size)

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


@dataclass(slots=True)
class _Extraction:
    """One archive on its way into an empty folder."""

    tree: Branch
    file: BinaryIO
    source: str
    limits: Limits
    stop: threading.Event
    members: int = 0
    left: int = 0
    names: dict[Path, bool] = field(default_factory=dict)
    """What was created, and whether it is a folder."""
    links: dict[Path, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    more_skipped: int = 0

    def run(self) -> None:
        self.left = self.limits.folder_bytes
        self.file.seek(0)
        try:
            with tarfile.open(fileobj=_Headers(self.file), mode="r:") as archive:  # type: ignore[call-overload]
                last = -1
                for member in archive:
                    # A negative size makes tarfile go back and yield the same members for ever (CVE-2025-8194).
                    if member.size < 0 or member.offset_data <= last:
                        raise tarfile.ReadError("a member of impossible size")
                    last = member.offset_data
                    self._member(member)
                    # tarfile keeps every member that it has read.
                    archive.members.clear()
                self._check_end(archive.offset)
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
            raise self._failed(
                f"The archive of {self.source!r} that the sandbox made is damaged: {error}"
            ) from None
        self._make_links()

    def _check_end(self, offset: int) -> None:
        """Raise ReadError unless tarfile stopped at the archive's end: at a damaged header it stops silently."""
        self.file.seek(offset)
        if any(self.file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError("a damaged header")

    def result(self) -> Unpacked:
        skipped = tuple(self.skipped)
        if self.more_skipped:
            skipped += (f"and {self.more_skipped} more",)
        return Unpacked(files=sum(not folder for folder in self.names.values()), skipped=skipped)

    def _member(self, member: tarfile.TarInfo) -> None:
        self.members += 1
        if self.stop.is_set():
            raise self._failed("The download was cancelled")
        if self.members > self.limits.folder_members:
            raise self._failed(
                f"{self.source!r} has more than {self.limits.folder_members} files and folders. Download parts of "
                "it, or raise `max_members`"
            )
        path = self._path(member.name)
        if path is None:
            self._skip(member.name)
            return
        try:
            created = self._create(path, member)
        except OSError as error:
            if error.errno not in _OF_A_NAME:
                raise
            created = False
        if not created:
            self._skip(member.name)

    def _create(self, path: Path, member: tarfile.TarInfo) -> bool:
        if member.isdir():
            return self._make_folder(path)
        if not path:
            return False
        if member.issym():
            self.links[path] = member.linkname
            return True
        if member.islnk():
            return self._copy(path, member)
        if not member.isreg() or member.issparse():
            return False
        self.file.seek(member.offset_data)
        return self._write(path, member, self.file, member.size)

    def _make_folder(self, path: Path) -> bool:
        if self.names.get(path) is False:
            return False
        self.tree.folder(path)
        for length in range(1, len(path) + 1):
            self.names[path[:length]] = True
        return True

    def _copy(self, path: Path, member: tarfile.TarInfo) -> bool:
        original = self._path(member.linkname)
        if original is None or original == path or self.names.get(original) is not False:
            return False
        fd = self.tree.folder(original[:-1]).old_file(original[-1])
        with open(fd, "rb") as file:
            return self._write(path, member, file, os.fstat(fd).st_size)

    def _write(self, path: Path, member: tarfile.TarInfo, data: BinaryIO, size: int) -> bool:
        self.left -= size
        if self.left < 0:
            raise self._failed(
                f"{self.source!r} has more than {self.limits.folder_bytes} bytes. Download parts of it, or raise "
                "`max_bytes`"
            )
        if self.names.get(path) is True or not self._make_folder(path[:-1]):
            return False
        folder = self.tree.folder(path[:-1])
        if path in self.names:
            folder.remove(path[-1])
        fd = folder.new_file(path[-1], (member.mode & 0o755) | 0o600)
        self.names[path] = False
        with open(fd, "wb", buffering=0) as file:
            while size:
                piece = data.read(min(size, _PIECE))
                if not piece:
                    raise tarfile.ReadError("unexpected end of data")
                if self.stop.is_set():
                    raise self._failed("The download was cancelled")
                size -= len(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
            _set_time(fd, member.mtime)
        return True

    def _make_links(self) -> None:
        for path, target in self.links.items():
            try:
                made = path not in self.names and self._make_link(path, target)
            except OSError as error:
                if error.errno not in _OF_A_NAME:
                    raise
                made = False
            if not made:
                self._skip("/".join(path))

    def _make_link(self, path: Path, target: str) -> bool:
        above = (path[:length] for length in range(1, len(path)))
        if any(place in self.links and place not in self.names for place in above):
            return False
        if not self._make_folder(path[:-1]) or not self._leads_inside(path, target):
            return False
        self.tree.folder(path[:-1]).new_link(path[-1], target)
        return True

    def _leads_inside(self, path: Path, target: str) -> bool:
        """Whether a link is relative and every folder on its way is one of this archive, not another link."""
        if not target or os.path.isabs(target) or len(os.fsencode(target)) > 4095:
            return False
        if os.name == "nt" and any(c in target for c in ':\\"<>|?*'):
            return False
        place = list(path[:-1])
        for part in target.split("/"):
            if part in ("", "."):
                continue
            if place and self.names.get(tuple(place)) is not True:
                return False
            if part != "..":
                place.append(part)
            elif place:
                place.pop()
            else:
                return False
        return True

    def _path(self, name: str) -> Path | None:
        """The components of a member's name; None for one that is not to be created."""
        if name.startswith("/") or "\0" in name:
            return None
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if len(parts) > self.limits.folder_depth:
            return None
        fits = all(is_file_name(part) and len(os.fsencode(part)) <= self.limits.name_bytes for part in parts)
        return parts if fits else None

    def _skip(self, name: str) -> None:
        if len(self.skipped) < _SKIPPED_SHOWN:
            self.skipped.append(name[:200].removeprefix("./"))
        else:
            self.more_skipped += 1

    def _failed(self, reason: str) -> TransferError:
        return TransferError(f"{reason}. Nothing was changed here.", path=self.source)


def _set_time(fd: int, mtime: float) -> None:
    if os.utime in os.supports_fd and math.isfinite(mtime) and 0 <= mtime <= _LATEST:
        os.utime(fd, (mtime, mtime))
