"""The file routes of PicoD, inside the jail of one workspace."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import posixpath
import re
import stat
from typing import TYPE_CHECKING

from .ranges import file_headers, serve_content
from .wire import Answer, PicoError, go_mode, json_answer, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
_INLINE = 1 << 20


def resolve(workspace: str, path: str) -> str:
    """The real path that ``path`` means in ``workspace``; absolute paths count from the workspace.

    Symbolic links are followed in every existing component, so a linked folder cannot lead outside either.
    Raises PicoError(400) for what leaves the workspace.
    """
    root = os.path.realpath(workspace)
    clean = posixpath.normpath(path) if path else "."
    relative = posixpath.normpath(clean.lstrip("/") or ".")
    if relative == ".." or relative.startswith("../"):
        raise PicoError(
            400, f"access denied: path '{path}' escapes workspace jail (relative path traversal: {relative})"
        )
    try:
        real = os.path.realpath(os.path.join(root, relative))
    except (OSError, ValueError) as exc:
        raise PicoError(400, f"access denied: path '{path}' cannot be resolved: {_reason(exc)}") from exc
    if real != root and not real.startswith(root.rstrip("/") + "/"):
        raise PicoError(
            400, f"access denied: resolved path '{real}' (from '{path}') escapes workspace jail via symlink"
        )
    return real


def working_directory(workspace: str, path: str) -> str:
    """The folder a command is to run in, made when it is missing. Raises PicoError."""
    try:
        folder = resolve(workspace, path)
    except PicoError as exc:
        raise PicoError(400, f"Invalid working directory: {exc}") from exc
    if not os.path.exists(folder):
        try:
            os.makedirs(folder, 0o755, exist_ok=True)
        except OSError as exc:
            raise PicoError(
                500, f"Failed to create working directory: {_go_error('mkdir', folder, exc)}"
            ) from exc
    return folder


async def upload(workspace: str, path: str, content: bytes, mode: str) -> Answer:
    """Write a whole file, making its folders.

    The mode counts for new files only, below the umask, as in PicoD.
    """
    if len(content) > _INLINE:
        return await asyncio.to_thread(_upload, workspace, path, content, parse_mode(mode))
    return _upload(workspace, path, content, parse_mode(mode))


def _upload(workspace: str, path: str, content: bytes, mode: int) -> Answer:
    target = resolve(workspace, path)
    info = _write(target, content, mode)
    return json_answer(
        200,
        {
            "path": os.path.relpath(target, os.path.realpath(workspace)),
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


def _write(target: str, content: bytes, mode: int) -> os.stat_result:
    try:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    except (OSError, ValueError) as exc:
        raise PicoError(
            500, f"Failed to create directory: {_go_error('mkdir', os.path.dirname(target), exc)}"
        ) from exc
    try:
        fd = os.open(target, _WRITE, mode)
    except (OSError, ValueError) as exc:
        raise PicoError(500, f"Failed to write file: {_go_error('open', target, exc)}") from exc
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


def list_folder(workspace: str, path: str) -> Answer:
    """The entries of a folder, one level, sorted by name; links are not followed."""
    if not path:
        raise PicoError(400, "Missing 'path' query parameter")
    folder = resolve(workspace, path)
    try:
        names = sorted(os.listdir(folder), key=os.fsencode)
    except FileNotFoundError as exc:
        raise PicoError(404, "Directory not found") from exc
    except OSError as exc:
        raise PicoError(500, f"Failed to read directory: {_go_error('open', folder, exc)}") from exc
    entries = []
    for name in names:
        try:
            info = os.lstat(os.path.join(folder, name))
        except OSError:
            continue
        entries.append(
            {
                "name": name,
                "size": info.st_size,
                "modified": rfc3339(info.st_mtime_ns),
                "mode": go_mode(info.st_mode),
                "is_dir": stat.S_ISDIR(info.st_mode),
            }
        )
    return json_answer(200, {"files": entries})


def download(workspace: str, path: str, headers: Mapping[bytes, bytes]) -> Answer:
    """The bytes of a file, whole or the one range asked for."""
    target = resolve(workspace, path.removeprefix("/"))
    try:
        info = os.stat(target)
    except FileNotFoundError as exc:
        raise PicoError(404, "File not found") from exc
    except (OSError, ValueError) as exc:
        raise PicoError(500, f"Failed to get file info: {_go_error('stat', target, exc)}") from exc
    if stat.S_ISDIR(info.st_mode):
        raise PicoError(400, "Path is a directory, not a file")
    if not stat.S_ISREG(info.st_mode):
        raise PicoError(500, f"Failed to get file info: {target}: not a regular file")
    if path.endswith("/index.html"):
        # Go's http.ServeFile redirects these, and PicoD inherits it.
        return Answer(status=301, headers=[*file_headers(target), (b"location", b"./")])
    return serve_content(target, info, headers)


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, FileExistsError):
        return "not a directory"  # what Go says of a file in a folder's place
    if isinstance(exc, OSError) and exc.errno is not None:
        text = os.strerror(exc.errno)
        return text[:1].lower() + text[1:]
    return "invalid argument"


def _go_error(operation: str, path: str, exc: OSError | ValueError) -> str:
    return f"{operation} {path}: {_reason(exc)}"
