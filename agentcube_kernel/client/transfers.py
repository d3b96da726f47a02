"""Files of any size, in pieces: resumed after a failure, verified by checksum, atomic at their destination."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import posixpath
from typing import TYPE_CHECKING, Any, Protocol

from ..arguments import NO_TIMEOUT, local_path, remote_file_path
from ..errors import (
    AgentCubeError,
    Delivery,
    ExchangeError,
    LocalFileError,
    LocalFileNotFoundError,
    RemoteIsADirectoryError,
    RemoteStorageError,
    RequestTooLargeError,
    TransferError,
)
from ..results import Transferred
from ..wire.retry import RetryPolicy
from .housekeeping import new_execution_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ..results import CommandResult
    from .housekeeping import SessionTools

    Progress = Callable[[int, int | None], object]

logger = logging.getLogger("agentcube_kernel.transfers")

# dd seeks in whole blocks, so every piece but the last is a multiple of this.
BLOCK = 64 * 1024
FIRST_PIECE = 4 * 1024 * 1024
LARGEST_PIECE = 8 * 1024 * 1024
# The Router ends an upload that takes 30 s, so pieces shrink and grow towards this many seconds each.
_SECONDS_PER_PIECE = 4.0
PATIENT = RetryPolicy.IDEMPOTENT.with_patience(60.0)

IS_A_DIRECTORY, WRONG_CHECKSUM = 21, 65

SHA256 = """\
sha() {
  if command -v sha256sum >/dev/null; then sha256sum <"$1" | cut -d' ' -f1
  elif command -v shasum >/dev/null; then shasum -a 256 <"$1" | cut -d' ' -f1
  elif command -v openssl >/dev/null; then openssl dgst -sha256 <"$1" | sed 's/.* //'
  else python3 -c 'import hashlib,sys
h=hashlib.sha256()
for b in iter(lambda:sys.stdin.buffer.read(1<<20),b""):h.update(b)
print(h.hexdigest())' <"$1"; fi
}
"""
# Both may run twice, when the answer to the first time was lost: what is done already counts as done.
_APPEND = """\
if [ ! -e "$1" ] && [ "$(wc -c <"$2")" -eq "$4" ]; then exit 0; fi
dd if="$1" of="$2" bs=65536 seek="$3" conv=notrunc 2>"$1.err" && rm -f "$1" "$1.err" && exit
cat "$1.err" >&2; exit 1
"""
_FINISH = (
    SHA256
    + f"""\
[ -d "$2" ] && exit {IS_A_DIRECTORY}
if [ -e "$1" ]; then
  [ "$(sha "$1")" = "$3" ] || exit {WRONG_CHECKSUM}
  mode=$4; [ -x "$2" ] && mode=0755
  chmod "$mode" "$1" && mv -f -- "$1" "$2" && exit
fi
[ "$(sha "$2")" = "$3" ]
"""
)


class Source(Protocol):
    """Bytes to upload, read once from start to end, in a thread."""

    size: int | None

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes; empty at the end."""
        ...


class Upload:
    """One file on its way into a sandbox."""

    def __init__(
        self,
        tools: SessionTools,
        source: Source,
        target: str,
        *,
        mode: str,
        progress: Progress | None,
    ) -> None:
        self._wire = tools.wire
        self._housekeeper = tools.housekeeper
        self._source = source
        self._target = target
        self._mode = mode
        self._progress = progress
        folder = posixpath.dirname(target)
        self.part = posixpath.join(folder, f".agentcube-{new_execution_id()}.part")
        self._piece = self.part + ".piece"
        self._limit = FIRST_PIECE
        self.sent = 0
        self._hash = hashlib.sha256()

    async def run(self) -> Transferred:
        """Send everything to a hidden file beside the target, verify it, and give it its name.

        When it fails or is cancelled the hidden file is removed and the target is as it was.
        """
        async with self.part_removed_on_error():
            digest = await self.send()
            command = ["sh", "-c", _FINISH, "sh", f"./{self.part}", f"./{self._target}", digest, self._mode]
            self._judge(await PATIENT.call(lambda: self._wire.execute(command, timeout=NO_TIMEOUT)))
        return Transferred(path=self._target, size=self.sent, sha256=digest)

    async def send(self) -> str:
        """Send everything to the part file and return its SHA-256."""
        while data := await asyncio.to_thread(self._read):
            await self._send(memoryview(data))
        if self.sent == 0:
            await RetryPolicy.IDEMPOTENT.call(lambda: self._wire.write(self.part, b""))
        expected = self._source.size
        if expected is not None and expected != self.sent:
            raise TransferError(
                f"The source of {self._target!r} changed while it was uploaded: {expected} bytes were expected and "
                f"{self.sent} were read. Nothing was changed in the sandbox; try again.",
                path=self._target,
                transferred=self.sent,
                session_id=self._wire.session_id,
                delivery=Delivery.DELIVERED,
            )
        return self._hash.hexdigest()

    @contextlib.asynccontextmanager
    async def part_removed_on_error(self) -> AsyncIterator[None]:
        """Remove the part file when the body fails."""
        try:
            yield
        except BaseException:
            await self._housekeeper.remove(self.part, self._piece, self._piece + ".err")
            raise

    def _read(self) -> bytes:
        data = self._source.read(self._limit)
        self._hash.update(data)
        return data

    async def _send(self, data: memoryview) -> None:
        while data:
            taken = await PATIENT.call(functools.partial(self._send_piece, data))
            data = data[taken:]
            self.sent += taken
            if self._progress is not None:
                self._progress(self.sent, self._source.size)

    async def _send_piece(self, data: memoryview) -> int:
        piece = data[: self._limit]
        started = asyncio.get_running_loop().time()
        first = self.sent == 0
        try:
            await self._wire.write(self.part if first else self._piece, piece)
        except RequestTooLargeError:
            if self._limit <= BLOCK:
                raise
            self._limit = _blocks(self._limit / 2)
            return await self._send_piece(data)
        except ExchangeError:
            self._limit = _blocks(self._limit / 2)
            raise
        if not first:
            block = str(self.sent // BLOCK)
            command = ["sh", "-c", _APPEND, "sh", f"./{self._piece}", f"./{self.part}", block]
            self._judge(await PATIENT.call(lambda: self._wire.execute(command)))
        elapsed = max(asyncio.get_running_loop().time() - started, 1e-3)
        if len(piece) >= BLOCK:
            wished = len(piece) * _SECONDS_PER_PIECE / elapsed
            self._limit = _blocks(min(wished, 2 * self._limit, LARGEST_PIECE))
        return len(piece)

    def _judge(self, result: CommandResult) -> None:
        details: dict[str, Any] = {
            "path": self._target,
            "session_id": self._wire.session_id,
            "delivery": Delivery.DELIVERED,
        }
        if result.exit_code == 0:
            return
        if result.exit_code == IS_A_DIRECTORY:
            raise RemoteIsADirectoryError(
                f"{self._target!r} is a folder in the sandbox. Give the path of a file.", **details
            )
        if result.exit_code == WRONG_CHECKSUM:
            raise TransferError(
                f"{self._target!r} arrived damaged (its checksum is wrong). Nothing was changed; try again.",
                transferred=self.sent,
                **details,
            )
        raise RemoteStorageError(
            f"The sandbox cannot store {self._target!r}: {result.stderr.strip()[-300:] or 'the command failed'}.",
            **details,
        )


class FileSource:
    """A file of this machine as a source."""

    def __init__(self, path: str) -> None:
        self._path = path
        with local_errors(path):
            self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        self.size: int | None = os.fstat(self._file.fileno()).st_size

    def read(self, limit: int) -> bytes:
        """The next bytes."""
        with local_errors(self._path):
            return self._file.read(limit)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class BytesSource:
    """Bytes in memory as a source."""

    def __init__(self, data: bytes) -> None:
        self.size: int | None = len(data)
        self._data = data
        self._at = 0

    def read(self, limit: int) -> bytes:
        """The next bytes."""
        data = self._data[self._at : self._at + limit]
        self._at += len(data)
        return data


async def upload_file(
    tools: SessionTools,
    local: object,
    remote: object,
    *,
    mode: str,
    progress: Progress | None,
) -> Transferred:
    """Upload one file of this machine."""
    path = local_path(local)
    target = remote_file_path(remote, session_id=tools.wire.session_id)
    source = await asyncio.to_thread(FileSource, path)
    try:
        return await Upload(tools, source, target, mode=mode, progress=progress).run()
    finally:
        source.close()


@contextlib.contextmanager
def local_errors(path: str) -> Iterator[None]:
    """Turn operating-system errors into errors that name the local file."""
    try:
        yield
    except AgentCubeError:
        raise
    except FileNotFoundError as error:
        raise LocalFileNotFoundError(f"There is no file {path!r} on this machine.", path=path) from error
    except IsADirectoryError as error:
        raise LocalFileError(
            f"{path!r} on this machine is a folder, not a file. For folders there are upload_folder and "
            "download_folder.",
            path=path,
        ) from error
    except OSError as error:
        raise LocalFileError(
            f"{path!r} on this machine cannot be read or written: {error.strerror or error}.", path=path
        ) from error


def _blocks(size: float) -> int:
    return max(BLOCK, int(size) // BLOCK * BLOCK)
