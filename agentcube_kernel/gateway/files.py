"""The file routes of PicoD, inside the jail of one workspace."""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import os
import re
import stat
from typing import TYPE_CHECKING

from .jail import Place, opened, reason
from .ranges import file_headers, serve_content
from .wire import Answer, PicoError, go_mode, json_answer, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import FileIO

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_INLINE = 1 << 20


def working_directory(root: int, workspace: str, path: str) -> str:
    """The folder a command is to run in, made when it is missing. Raises PicoError."""
    try:
        with opened(root, workspace, path) as place:
            try:
                if place.rest and not _exists(place):
                    os.close(place.make_folders(place.rest))
            except OSError as exc:
                raise PicoError(
                    500, f"Failed to create working directory: {_go_error('mkdir', place.path, exc)}"
                ) from exc
            return place.path
    except PicoError as exc:
        if exc.status != 400:
            raise
        raise PicoError(400, f"Invalid working directory: {exc}") from exc


def _exists(place: Place) -> bool:
    try:
        os.lstat(place.rest[0], dir_fd=place.folder)
    except OSError:
        return False
    return len(place.rest) == 1


async def upload(root: int, workspace: str, path: str, content: bytes, mode: str) -> Answer:
    """Write a whole file, making its folders.

    The mode counts for new files only, below the umask, as in PicoD.
    """
    if len(content) > _INLINE:
        return await asyncio.to_thread(_upload, root, workspace, path, content, parse_mode(mode))
    return _upload(root, workspace, path, content, parse_mode(mode))


def _upload(root: int, workspace: str, path: str, content: bytes, mode: int) -> Answer:
    with opened(root, workspace, path) as place:
        info = _write(place, content, mode)
        return json_answer(
            200,
            {
                "path": place.relative,
                "size": info.st_size,
                "mode": go_mode(info.st_mode),
                "modified": rfc3339(info.st_mtime_ns),
            },
        )


def decode_content(text: str) -> bytes:
    """Standard base64, line breaks allowed. Raises PicoError(400)."""
    try:
        return base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError) as exc:
        position = _first_bad(text)
        raise PicoError(400, f"Invalid base64 content: illegal base64 data at input byte {position}") from exc


_BASE64 = re.compile(r"[A-Za-z0-9+/\r\n]*={0,2}")


def _first_bad(text: str) -> int:
    found = _BASE64.match(text)
    return found.end() if found else 0


def parse_mode(text: str) -> int:
    """An octal mode up to 0777; anything else means 0644."""
    if not text or not all("0" <= letter <= "7" for letter in text):
        return 0o644
    mode = int(text, 8)
    return mode if mode <= 0o777 else 0o644


def _write(place: Place, content: bytes, mode: int) -> os.stat_result:
    target = place.path
    if not place.rest:
        raise PicoError(500, f"Failed to write file: open {target}: is a directory")
    try:
        folder = place.make_folders(place.rest[:-1])
    except (OSError, ValueError) as exc:
        raise PicoError(
            500, f"Failed to create directory: {_go_error('mkdir', os.path.dirname(target), exc)}"
        ) from exc
    try:
        fd = os.open(place.rest[-1], _WRITE, mode, dir_fd=folder)
    except (OSError, ValueError) as exc:
        raise PicoError(500, f"Failed to write file: {_go_error('open', target, exc)}") from exc
    finally:
        os.close(folder)
    with open(fd, "wb", buffering=0) as file:
        # A FIFO or a device would block the gateway, and with it every sandbox.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise PicoError(500, f"Failed to write file: open {target}: not a regular file")
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as exc:
            raise PicoError(500, f"Failed to write file: {_go_error('write', target, exc)}") from exc
        return os.fstat(fd)


def list_folder(root: int, workspace: str, path: str) -> Answer:
    """The entries of a folder, one level, sorted by name; links are not followed."""
    if not path:
        raise PicoError(400, "Missing 'path' query parameter")
    with opened(root, workspace, path) as place:
        try:
            if place.rest:
                os.close(
                    os.open(place.rest[0], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place.folder)
                )
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            names = sorted(os.listdir(place.folder), key=os.fsencode)
        except FileNotFoundError as exc:
            raise PicoError(404, "Directory not found") from exc
        except OSError as exc:
            raise PicoError(500, f"Failed to read directory: {_go_error('open', place.path, exc)}") from exc
        return json_answer(200, {"files": list(_entries(place.folder, names))})


def _entries(folder: int, names: list[str]) -> Iterator[dict[str, object]]:
    for name in names:
        try:
            info = os.lstat(name, dir_fd=folder)
        except OSError:
            continue
        yield {
            "name": name,
            "size": info.st_size,
            "modified": rfc3339(info.st_mtime_ns),
            "mode": go_mode(info.st_mode),
            "is_dir": stat.S_ISDIR(info.st_mode),
        }


def download(root: int, workspace: str, path: str, headers: Mapping[bytes, bytes]) -> Answer:
    """The bytes of a file, whole or the one range asked for."""
    with opened(root, workspace, path.removeprefix("/")) as place:
        file = _open_file(place)
        name = os.path.basename(place.path)
    info = os.fstat(file.fileno())
    if path.endswith("/index.html"):
        # Go's http.ServeFile redirects these, and PicoD inherits it.
        file.close()
        return Answer(status=301, headers=[*file_headers(name), (b"location", b"./")])
    return serve_content(file, name, info, headers)


def _open_file(place: Place) -> FileIO:
    if not place.rest:
        raise PicoError(400, "Path is a directory, not a file")
    try:
        if len(place.rest) > 1:
            os.close(os.open(place.rest[0], _READ | os.O_DIRECTORY, dir_fd=place.folder))
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        mode = os.lstat(place.rest[0], dir_fd=place.folder).st_mode
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            # A folder that cannot be opened, or what has become one since it was looked at.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # Opening a socket or a device is not tried: it may have effects.
        fd = os.open(place.rest[0], _READ, dir_fd=place.folder) if stat.S_ISREG(mode) else -1
        if fd < 0 or not stat.S_ISREG(os.fstat(fd).st_mode):
            if fd >= 0:
                os.close(fd)
            raise PicoError(500, f"Failed to get file info: {place.path}: not a regular file")
    except FileNotFoundError as exc:
        raise PicoError(404, "File not found") from exc
    except (OSError, ValueError) as exc:
        raise PicoError(500, f"Failed to get file info: {_go_error('stat', place.path, exc)}") from exc
    return open(fd, "rb", buffering=0)


def _go_error(operation: str, path: str, exc: OSError | ValueError) -> str:
    return f"{operation} {path}: {reason(exc)}"
