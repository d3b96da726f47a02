"""Files from a sandbox: resumed where the connection broke, verified, and renamed into place when complete."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from ..arguments import NO_TIMEOUT, check_count, local_path, remote_file_path
from ..errors import Delivery, ExchangeError, TransferError
from ..limits import DEFAULT_LIMITS
from ..results import Transferred
from .housekeeping import new_execution_id
from .transfers import PATIENT, SHA256, local_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..wire.data_plane import DataPlane
    from ..wire.http import HttpAnswer
    from .transfers import Progress

logger = logging.getLogger("agentcube_kernel.transfers")

_BATCH = 1024 * 1024
_RESTARTS = 3
# How long a download may stand still before it is resumed on another connection.
_STALLED = 30.0


@dataclass(slots=True)
class _Partial:
    """What has arrived so far, and of which version of the file."""

    file: BinaryIO
    size: int = 0
    total: int | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that a file may have, in bytes, and the argument or option that raises it."""

    size: int
    raised_by: str
    unannounced: int | None = None
    """The same for a file whose size the sandbox does not announce; None for no difference."""


class Download:
    """One file on its way out of a sandbox into an open local file."""

    def __init__(
        self,
        wire: DataPlane,
        source: str,
        file: BinaryIO,
        name: str,
        progress: Progress | None,
        ceiling: Ceiling,
    ) -> None:
        self._wire = wire
        self._source = source
        self._ceiling = ceiling
        self._most = ceiling.size
        self._name = name
        self._progress = progress
        self._partial = _Partial(file)
        self._hash = hashlib.sha256()
        self._restarts = 0

    async def run(self) -> Transferred:
        """Fetch and verify the whole file.

        Raises:
            TransferError: it is larger than its ceiling or than the sandbox announced, or changes all the while.
        """
        while not await PATIENT.call(self._fetch):
            pass
        digest = self._hash.hexdigest()
        await self._verify(digest)
        return Transferred(path=self._name, size=self._partial.size, sha256=digest)

    async def _fetch(self) -> bool:
        """Resume the download. Returns False if it made progress but did not finish."""
        partial = self._partial
        before = partial.size
        headers: tuple[tuple[str, str], ...] = ()
        if before:
            headers = (("range", f"bytes={before}-"),)
            if partial.version is not None:
                headers += (("if-range", partial.version),)
        try:
            async with self._wire.open(self._source, headers, timeout=_STALLED) as (head, pieces):
                self._begin(head)
                await self._write(pieces)
        except ExchangeError as error:
            if not error.transient or partial.size <= before:
                raise
            logger.debug("download of %s goes on at %d: %s", self._source, partial.size, error)
            return False
        if partial.total is not None and partial.size != partial.total:
            raise self._failed(f"{partial.size} of {partial.total} bytes arrived", transient=True)
        return True

    def _begin(self, head: HttpAnswer) -> None:
        partial = self._partial
        if head.status == 206:
            begin = head.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
            if begin != str(partial.size):
                raise self._failed("the sandbox resumed at another place than asked", transient=False)
            return
        if partial.size:
            # A whole answer to a request for the rest: the file is not the one that was begun.
            self._restarts += 1
            if self._restarts > _RESTARTS:
                raise self._failed("it keeps changing", transient=False)
            partial.file.seek(0)
            partial.file.truncate()
            partial.size = 0
            self._hash = hashlib.sha256()
        partial.version = head.headers.get("last-modified")
        length = head.headers.get("content-length", "")
        partial.total = int(length) if length.isdecimal() else None
        self._most = self._ceiling.size
        if partial.total is None and self._ceiling.unannounced is not None:
            self._most = min(self._most, self._ceiling.unannounced)
        if partial.total is not None and partial.total > self._most:
            raise self._too_large()

    async def _write(self, pieces: AsyncIterator[bytes]) -> None:
        batch: list[bytes] = []
        waiting = 0
        try:
            async for piece in pieces:
                batch.append(piece)
                waiting += len(piece)
                if self._partial.size + waiting > self._most:
                    raise self._too_large()
                if waiting >= _BATCH:
                    await self._flush(batch)
                    batch, waiting = [], 0
        except ExchangeError:
            await self._flush(batch)
            raise
        await self._flush(batch)

    async def _flush(self, batch: list[bytes]) -> None:
        if not batch:
            return
        data = b"".join(batch)
        await asyncio.to_thread(self._store, data)
        self._partial.size += len(data)
        if self._progress is not None:
            self._progress(self._partial.size, self._partial.total)

    def _store(self, data: bytes) -> None:
        with local_errors(self._name):
            self._partial.file.write(data)
        self._hash.update(data)

    async def _verify(self, digest: str) -> None:
        command = ["sh", "-c", SHA256 + 'sha "$1"', "sh", f"./{self._source}"]
        result = await PATIENT.call(lambda: self._wire.execute(command, timeout=NO_TIMEOUT))
        theirs = result.stdout.strip()
        if result.exit_code != 0 or len(theirs) != 64:
            logger.warning(
                "the sandbox has no tool for SHA-256; %s was verified by its size only", self._source
            )
        elif theirs != digest:
            raise self._failed("its checksum is wrong, or it changed meanwhile", transient=False)

    def _too_large(self) -> TransferError:
        return self._failed(
            f"it has more than the {self._most} bytes that it may have; `{self._ceiling.raised_by}` allows more",
            transient=False,
        )

    def _failed(self, reason: str, *, transient: bool) -> TransferError:
        return TransferError(
            f"The download of {self._source!r} failed: {reason}. Nothing was left under the final name; try again.",
            path=self._source,
            transferred=self._partial.size,
            session_id=self._wire.session_id,
            delivery=Delivery.DELIVERED,
            transient=transient,
        )


async def download_file(
    wire: DataPlane,
    remote: object,
    local: object,
    *,
    progress: Progress | None,
    max_bytes: int | None = None,
) -> Transferred:
    """Download one file to this machine; missing parent folders are made."""
    source = remote_file_path(remote, session_id=wire.session_id)
    target, part, file = _open_part(local)
    try:
        try:
            ceiling = file_ceiling(max_bytes)
            done = await Download(wire, source, file, target, progress, ceiling).run()
        finally:
            with local_errors(target):
                file.close()
        with local_errors(target):
            os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    return done


def file_ceiling(max_bytes: int | None) -> Ceiling:
    """The ceiling of a single file: what the caller allows, else that of the limits."""
    if max_bytes is not None:
        return Ceiling(check_count(max_bytes, name="max_bytes"), "max_bytes")
    return Ceiling(DEFAULT_LIMITS.file_bytes, "max_bytes", DEFAULT_LIMITS.unannounced_bytes)


def _open_part(local: object) -> tuple[str, str, BinaryIO]:
    """The destination, and the hidden file beside it that is to become it."""
    target = os.path.abspath(local_path(local))
    with local_errors(target):
        if os.path.isdir(target) or str(local).endswith(("/", os.sep)):
            raise IsADirectoryError(target)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        part = os.path.join(os.path.dirname(target), f".agentcube-{new_execution_id()}.part")
        return target, part, open(part, "xb")
