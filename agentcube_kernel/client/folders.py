"""Whole folders, as one tar archive each way: ten thousand small files cost a few requests."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
import tarfile
import tempfile
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from ..arguments import NO_TIMEOUT, check_count, local_path, remote_path
from ..errors import (
    Delivery,
    LocalFileError,
    RemoteFileNotFoundError,
    RemoteNotADirectoryError,
    RemoteStorageError,
    TransferError,
)
from ..limits import DEFAULT_LIMITS
from ..results import Transferred
from ..wire.retry import RetryPolicy
from .downloads import Ceiling, Download
from .housekeeping import new_execution_id
from .transfers import IS_A_DIRECTORY, SHA256, WRONG_CHECKSUM, Upload, local_errors
from .unpacking import Unpacked, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..limits import Limits
    from ..results import CommandResult
    from .housekeeping import SessionTools
    from .transfers import Progress

logger = logging.getLogger("agentcube_kernel.transfers")

_READ = 256 * 1024
# What a member takes in an archive beside its content: its header, that of a long name, and padding.
_PER_MEMBER = 4096
_NO_TAR, _NOT_FOUND = 69, 66

# Unpacked beside the destination first, so that what stands under the final name is never a half. A folder that
# exists already gets the files one by one, each of them whole.
_UNPACK = (
    SHA256
    + f"""\
part=$1 target=$2 new=$1.d
[ -e "$target" ] && [ ! -d "$target" ] && exit {IS_A_DIRECTORY}
[ "$(sha "$part")" = "$3" ] || exit {WRONG_CHECKSUM}
mkdir -p "$new" || exit
if command -v tar >/dev/null; then tar -xf "$part" -C "$new"
elif command -v python3 >/dev/null; then python3 -m tarfile -e "$part" "$new"
else exit {_NO_TAR}; fi || exit
rm -f "$part"
if [ ! -e "$target" ]; then mv "$new" "$target"
else cp -RPlf "$new/." "$target/" 2>/dev/null || cp -RPf "$new/." "$target/" || exit
rm -rf "$new"; fi
"""
)
_PACK = f"""\
[ -e "$1" ] || exit {_NOT_FOUND}
[ -d "$1" ] || exit {IS_A_DIRECTORY}
if command -v tar >/dev/null; then
  tar -cf "$2" --exclude="./${{2##*/}}" -C "$1" .; code=$?
  # 1 is GNU tar's "a file changed as we read it".
  [ $code -le 1 ] || exit $code
elif command -v python3 >/dev/null; then (cd "$1" && python3 -m tarfile -c "$OLDPWD/$2" .)
else exit {_NO_TAR}; fi
"""


class FolderSource:
    """A local folder as a tar archive that is never whole in memory or on disk."""

    def __init__(self, folder: str) -> None:
        self.size: int | None = None
        self.files = 0
        self._folder = folder
        self._pieces = self._archive()
        self._left = b""

    def read(self, limit: int) -> bytes:
        """The next bytes of the archive."""
        parts = [self._left]
        size = len(self._left)
        while size < limit and (piece := next(self._pieces, b"")):
            parts.append(piece)
            size += len(piece)
        data = b"".join(parts)
        self._left = data[limit:]
        return data[:limit]

    def close(self) -> None:
        """Close the file that is being read."""
        self._pieces.close()

    def _archive(self) -> Any:
        for path, name in _walk(self._folder):
            with local_errors(path):
                status = os.lstat(path)
            info = tarfile.TarInfo(name)
            info.mode = stat.S_IMODE(status.st_mode)
            info.mtime = int(status.st_mtime)
            if stat.S_ISDIR(status.st_mode):
                info.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(status.st_mode):
                info.type = tarfile.SYMTYPE
                info.linkname = os.readlink(path)
            elif not stat.S_ISREG(status.st_mode):
                logger.info("%s is not a regular file; skipped", path)
                continue
            else:
                yield from self._file(path, info, status.st_size)
                continue
            yield _header(info)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _file(self, path: str, info: tarfile.TarInfo, size: int) -> Iterator[bytes]:
        with local_errors(path), open(path, "rb") as file:
            info.size = size
            yield _header(info)
            left = size
            while left:
                data = file.read(min(left, _READ))
                if not data:
                    raise LocalFileError(
                        f"{path!r} became shorter while it was uploaded. Try again.", path=path
                    )
                left -= len(data)
                yield data
        yield bytes(-size % tarfile.BLOCKSIZE)
        self.files += 1


async def upload_folder(
    tools: SessionTools, local: object, remote: object, *, progress: Progress | None
) -> Transferred:
    """Upload a local folder's content into a folder of the sandbox."""
    wire = tools.wire
    target = remote_path(remote, session_id=wire.session_id)
    source = FolderSource(_local_folder(local))
    upload = Upload(tools, source, target, mode="0600", progress=progress)
    try:
        async with upload.part_removed_on_error():
            digest = await upload.send()
            command = ["sh", "-c", _UNPACK, "sh", f"./{upload.part}", f"./{target}", digest]
            result = await RetryPolicy.ONCE_DELIVERED.call(lambda: wire.execute(command, timeout=NO_TIMEOUT))
            _judge(result, target, wire.session_id)
    finally:
        await asyncio.to_thread(source.close)
    return Transferred(path=target, size=upload.sent, files=source.files)


async def download_folder(
    tools: SessionTools,
    remote: object,
    local: object,
    *,
    progress: Progress | None,
    limits: Limits,
) -> Transferred:
    """Download a folder of the sandbox into a local folder."""
    wire = tools.wire
    source = remote_path(remote, session_id=wire.session_id)
    target = _local_target(local)
    archive = f".agentcube-{new_execution_id()}.tar"
    try:
        command = ["sh", "-c", _PACK, "sh", f"./{source}", archive]
        result = await RetryPolicy.IDEMPOTENT.call(lambda: wire.execute(command, timeout=NO_TIMEOUT))
        _judge(result, source, wire.session_id)
        with local_errors(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            work = tempfile.mkdtemp(prefix=".agentcube-", dir=os.path.dirname(target))
        try:
            with local_errors(target):
                file = open(os.path.join(work, "archive"), "w+b")  # noqa: SIM115, ASYNC230 - closed below
            with file:
                ceiling = Ceiling(limits.folder_bytes + _PER_MEMBER * limits.folder_members, "max_bytes")
                done = await Download(wire, archive, file, target, progress, ceiling).run()
                unpacked = await _unpack(file, os.path.join(work, "new"), target, source, limits)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
    finally:
        await tools.housekeeper.remove(archive)
    return Transferred(path=target, size=done.size, files=unpacked.files, skipped=unpacked.skipped)


def folder_limits(max_bytes: int | None, max_members: int | None) -> Limits:
    """The limits of one download, with the caller's own where they are given."""
    chosen = {}
    if max_bytes is not None:
        chosen["folder_bytes"] = check_count(max_bytes, name="max_bytes")
    if max_members is not None:
        chosen["folder_members"] = check_count(max_members, name="max_members")
    return replace(DEFAULT_LIMITS, **chosen)


async def _unpack(file: BinaryIO, new: str, target: str, source: str, limits: Limits) -> Unpacked:
    """Unpack in a thread, which has ended when this returns or raises."""
    stop = threading.Event()

    def work() -> Unpacked:
        with local_errors(target):
            return unpack(file, new, target, source=source, limits=limits, stop=stop)

    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


def _local_folder(local: object) -> str:
    folder = os.path.abspath(local_path(local))
    with local_errors(folder):
        if not os.path.isdir(folder):
            raise (
                NotADirectoryError(20, "it is not a folder")
                if os.path.exists(folder)
                else FileNotFoundError()
            )
    return folder


def _local_target(local: object) -> str:
    target = os.path.abspath(local_path(local))
    if os.path.exists(target) and not os.path.isdir(target):
        raise LocalFileError(f"{target!r} on this machine is not a folder. Give another path.", path=target)
    return target


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    """Every entry below a folder with its name in the archive; symbolic links are not followed."""
    with local_errors(folder):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    stack = [(entry.path, entry.name, entry.is_dir(follow_symlinks=False)) for entry in reversed(entries)]
    while stack:
        path, name, is_folder = stack.pop()
        yield path, name
        if is_folder:
            with local_errors(path):
                below = sorted(os.scandir(path), key=lambda entry: entry.name, reverse=True)
            stack.extend(
                (entry.path, f"{name}/{entry.name}", entry.is_dir(follow_symlinks=False)) for entry in below
            )


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _judge(result: CommandResult, path: str, session_id: str | None) -> None:
    code = result.exit_code
    if code == 0:
        return
    details: dict[str, Any] = {"path": path, "session_id": session_id, "delivery": Delivery.DELIVERED}
    if code == _NOT_FOUND:
        raise RemoteFileNotFoundError(f"There is no {path!r} in the sandbox.", **details)
    if code == IS_A_DIRECTORY:
        raise RemoteNotADirectoryError(f"{path!r} in the sandbox is a file, not a folder.", **details)
    if code == WRONG_CHECKSUM:
        raise TransferError(f"{path!r} arrived damaged (its checksum is wrong). Try again.", **details)
    if code == _NO_TAR:
        raise TransferError(
            "The sandbox has neither tar nor python3, so whole folders cannot be transferred. Transfer file by file.",
            **details,
        )
    words = result.stderr.strip()[-300:] or f"exit code {code}"
    raise RemoteStorageError(f"The sandbox cannot pack or unpack {path!r}: {words}.", **details)
