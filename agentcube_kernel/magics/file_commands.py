"""Files between this machine and a sandbox: put, get, ls."""

from __future__ import annotations

import asyncio
import fnmatch
import glob
import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..arguments import remote_path
from ..client.unpacking import is_file_name
from ..errors import LocalFileError, OutsideWorkspaceError, RemoteFileError, RemoteFileNotFoundError
from ..limits import DEFAULT_LIMITS
from ..text import size
from .command import Context, argument, command
from .credentials import find_credential
from .render import Line, Table
from .usage import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from ..client.code_interpreter import AsyncCodeInterpreterClient
    from ..results import FileInfo, Transferred
    from .render import Answer, Value

OURS = ".agentcube-kernel"
_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Moved(Line):
    """What a transfer moved. `paths` are the files and folders at their new place."""

    verb: str
    paths: tuple[str, ...]
    files: int
    size: int
    skipped: tuple[str, ...] = ()

    def _line(self) -> list[Value]:
        what = self.paths[0] if len(self.paths) == 1 else f"{len(self.paths)} things"
        count = "" if self.files == 1 and len(self.paths) == 1 else f" ({self.files} files)"
        left = (
            f" Left out, since they are no plain files or lead out of the folder: {', '.join(self.skipped)}."
            if self.skipped
            else ""
        )
        return [f"{self.verb} {what}{count}, {size(self.size)}.{left}"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Listing(Table):
    """A folder of the sandbox."""

    path: str
    files: tuple[FileInfo, ...]

    def __iter__(self) -> Iterator[FileInfo]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def _columns(self) -> Sequence[str]:
        return ("NAME", "SIZE", "MODIFIED")

    def _rows(self) -> list[tuple[Value, ...]]:
        return [
            (
                file.name + ("/" if file.is_dir else ""),
                "" if file.is_dir else size(file.size),
                file.modified[:19].replace("T", " "),
            )
            for file in self.files
        ]

    def _empty(self) -> str:
        return f"{self.path} is empty."


_NAMED = argument("--in", dest="sandbox", metavar="NAME", help="a sandbox's name; default the current one")


@command("put", completes="local")
@argument("paths", nargs="+", metavar="LOCAL", help="files and folders of this machine; ~ and globs work")
@argument("--to", metavar="REMOTE", help="where to; a folder if it ends with /")
@argument("--yes", action="store_true", help="send what looks like a credential without asking")
@_NAMED
async def put(context: Context, args: argparse.Namespace) -> Answer:
    """Copy files and folders of this machine into a sandbox: `put LOCAL... [REMOTE]`.

    Of two or more paths the last one is where to, as with cp, unless --to says it. Without either, things keep their
    names. Files of any size go in pieces, are verified, and appear under their names when they are whole. What looks
    like a credential, such as ~/.ssh or a key outside the notebook's folder, is sent only after a yes.
    """
    words, target = _destination(args.paths, args.to, _is_local, "--to")
    sources = [path for word in words for path in _local(word)]
    if not args.yes:
        await _confirm_credentials(context, sources)
    entry = await context.default(args.sandbox)
    async with context.progress("Connecting") as progress:
        client = await entry.reach(progress.step)
        folder = await _is_remote_folder(client, target, several=len(sources) > 1)
        plan = [(path, _join(target, _base_name(path)) if folder else target) for path in sources]
        done = []
        for path, where in plan:
            progress.title(f"Putting {_base_name(path)}")
            send = client.upload_folder if _is_folder(path) else client.upload_file
            done.append(await send(path, where, progress=progress.bytes))
    return Moved(
        verb="Put",
        paths=tuple(where for _, where in plan),
        files=sum(item.files for item in done),
        size=sum(item.size for item in done),
    )


async def _confirm_credentials(context: Context, sources: list[str]) -> None:
    """Ask about each credential. Raises UsageError unless all of them may be sent; nothing was sent then."""
    for source in sources:
        found = await asyncio.to_thread(find_credential, source, notebook_folder=os.getcwd())
        if found is None:
            continue
        what = f"{found!r} looks like a credential, and code in the sandbox could read it"
        if not context.host.allow_stdin:
            raise UsageError(f"{what}. Nothing was sent. If it is meant to be there, add --yes.")
        answer = await context.host.ask(f"{what}. Send it? [y/N] ")
        if answer is None or answer.strip().lower() not in ("y", "yes"):
            raise UsageError(f"Nothing was sent: {found!r} looks like a credential.")


@command("get", completes="remote")
@argument("paths", nargs="+", metavar="REMOTE", help="files and folders of the sandbox; globs work")
@argument("--to", metavar="LOCAL", help="where to on this machine; a folder if it ends with /")
@argument("--force", action="store_true", help="overwrite files that are there")
@argument("--max-bytes", type=int, metavar="N", help="the most bytes to accept for each file or folder")
@_NAMED
async def get(context: Context, args: argparse.Namespace) -> Answer:
    """Copy files and folders of a sandbox to this machine: `get REMOTE... [LOCAL]`.

    Of two or more paths the last one is where to, as with cp, unless --to says it. Without either, things land in the
    current folder under their own names. Nothing that the sandbox says decides on more than a name in that folder. A
    file that turns out much larger than in its listing, and a folder of more than 16 GiB, needs --max-bytes.
    """
    words, target = _destination(args.paths, args.to, lambda last: any(c in _GLOB for c in last), "--to")
    entry = await context.default(args.sandbox)
    async with context.progress("Connecting") as progress:
        client = await entry.reach(progress.step)
        sources = [found for word in words for found in await _remote(client, word)]
        plan = _plan_local(sources, target)
        if not args.force:
            _refuse_to_overwrite(plan)
        done = []
        for found, where in plan:
            progress.title(f"Getting {found.path}")
            done.append(await _fetch(client, found, where, progress.bytes, args.max_bytes))
    return Moved(
        verb="Got",
        paths=tuple(where for _, where in plan),
        files=sum(item.files for item in done),
        size=sum(item.size for item in done),
        skipped=tuple(name for item in done for name in item.skipped),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A file or folder of the sandbox, with the size in its listing."""

    path: str
    is_dir: bool
    size: int = 0


async def _fetch(
    client: AsyncCodeInterpreterClient,
    found: _Found,
    where: str,
    progress: Callable[[int, int | None], object],
    max_bytes: int | None,
) -> Transferred:
    if found.is_dir:
        return await client.download_folder(found.path, where, progress=progress, max_bytes=max_bytes)
    ceiling = DEFAULT_LIMITS.file_ceiling(found.size) if max_bytes is None else max_bytes
    return await client.download_file(found.path, where, progress=progress, max_bytes=ceiling)


@command("ls", completes="remote")
@argument("path", nargs="?", default=".", metavar="PATH", help="a folder, file or glob of the sandbox")
@_NAMED
async def ls(context: Context, args: argparse.Namespace) -> Answer:
    """List a folder of a sandbox's workspace."""
    entry = await context.default(args.sandbox)
    async with context.progress("Connecting") as progress:
        client = await entry.reach(progress.step)
        path = _workspace_path(args.path)
        if any(c in _GLOB for c in path):
            found = await _matching(client, path)
            return Listing(path=path, files=tuple(info for _, info in found))
        files = await client.list_files(path)
    return Listing(path=path, files=tuple(file for file in files if path != "." or file.name != OURS))


def _destination(
    paths: list[str], to: str | None, may_be_source: Callable[[str], bool], option: str
) -> tuple[list[str], str]:
    """Which words are sources, and where they are to go; `.` when nobody says."""
    if to is not None:
        return paths, to
    if len(paths) == 1:
        return paths, "."
    *sources, last = paths
    if not last.endswith("/") and last not in (".", "..") and may_be_source(last):
        raise UsageError(
            f"Is {last!r} one more thing to copy, or where to? Say `{option} {last}` if it is where to, or "
            f"`{option} .` if it is to be copied too."
        )
    return sources, last


def _is_local(word: str) -> bool:
    path = os.path.expanduser(word)
    return os.path.isfile(path) or (any(c in _GLOB for c in word) and bool(glob.glob(path)))


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)


def _base_name(path: str) -> str:
    return os.path.basename(os.path.abspath(path))


def _local(word: str) -> list[str]:
    path = os.path.expanduser(word)
    if os.path.lexists(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True)) if any(c in _GLOB for c in word) else []
    if not found:
        raise LocalFileError(f"There is no file or folder {word!r} on this machine.", path=word)
    return found


def _workspace_path(word: str) -> str:
    """A path in the workspace, for which ~ stands too."""
    return remote_path(word[1:].lstrip("/") or "." if word == "~" or word.startswith("~/") else word)


def _join(folder: str, name: str) -> str:
    return name if folder in (".", "./") else posixpath.join(folder, name)


async def _is_remote_folder(client: AsyncCodeInterpreterClient, target: str, *, several: bool) -> bool:
    path = _workspace_path(target)
    if path == "." or target.endswith("/"):
        return True
    try:
        await client.list_files(path)
    except RemoteFileError:
        if several:
            raise UsageError(
                f"Several things cannot all become {target!r}. If it is to be a folder, write {target + '/'!r}."
            ) from None
        return False
    return True


async def _remote(client: AsyncCodeInterpreterClient, word: str) -> list[_Found]:
    """The files and folders that a word means."""
    path = _workspace_path(word)
    if path == ".":
        return [_Found(path=".", is_dir=True)]
    if any(c in _GLOB for c in path):
        found = await _matching(client, path)
        if found:
            return [_Found(path=match, is_dir=info.is_dir, size=info.size) for match, info in found]
    else:
        parent, name = posixpath.split(path)
        for info in await client.list_files(parent or "."):
            if info.name == name:
                return [_Found(path=path, is_dir=info.is_dir, size=info.size)]
    raise RemoteFileNotFoundError(
        f"There is no {word!r} in the sandbox; `%sandbox ls` shows what there is.",
        path=word,
        session_id=client.session_id,
    )


async def _matching(client: AsyncCodeInterpreterClient, pattern: str) -> list[tuple[str, FileInfo]]:
    """What matches a glob, one folder level at a time; names that start with a dot only where the pattern does."""
    found: list[tuple[str, FileInfo | None]] = [("", None)]
    for part in pattern.split("/"):
        level: list[tuple[str, FileInfo | None]] = []
        for folder, parent in found:
            if parent is not None and not parent.is_dir:
                continue
            for info in await client.list_files(folder or "."):
                hidden = info.name.startswith(".") and not part.startswith(".")
                if not hidden and is_file_name(info.name) and fnmatch.fnmatchcase(info.name, part):
                    level.append((posixpath.join(folder, info.name), info))
        found = level
    return [(path, info) for path, info in found if info is not None]


def _plan_local(sources: list[_Found], target: str) -> list[tuple[_Found, str]]:
    place = os.path.expanduser(target)
    folder = os.path.isdir(place) or target.endswith(("/", os.sep)) or len(sources) > 1
    if len(sources) > 1 and not os.path.isdir(place) and not target.endswith(("/", os.sep)):
        raise UsageError(
            f"Several things cannot all become {target!r}. If it is to be a folder, write {target + '/'!r}."
        )
    plan = []
    for source in sources:
        name = posixpath.basename(source.path)
        if source.path == ".":
            where = place
        elif not is_file_name(name):
            raise OutsideWorkspaceError(
                f"{name!r} cannot be a file's name on this machine; give it one with --to.", path=source.path
            )
        else:
            where = os.path.join(place, name) if folder else place
        plan.append((source, where))
    return plan


def _refuse_to_overwrite(plan: list[tuple[_Found, str]]) -> None:
    for found, where in plan:
        if found.path == "." or not os.path.lexists(where):
            continue
        what = "files in it may be overwritten" if found.is_dir else "it would be overwritten"
        raise LocalFileError(
            f"{where!r} is on this machine already, and {what}. Add --force to allow that, or give another place "
            "with --to.",
            path=where,
        )


async def complete_remote(client: AsyncCodeInterpreterClient, word: str) -> list[str]:
    """Paths of the sandbox that begin with `word`."""
    folder, begun = posixpath.split(word)
    async with asyncio.timeout(2.0):
        files = await client.list_files(_workspace_path(folder) if folder else ".")
    return [
        posixpath.join(folder, file.name) + ("/" if file.is_dir else "")
        for file in files
        if file.name.startswith(begun) and file.name != OURS
    ]
