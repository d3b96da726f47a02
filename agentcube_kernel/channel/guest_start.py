"""Starting the guest, or finding the one that runs, with nothing but python3 in the sandbox."""

from __future__ import annotations

import asyncio
import base64
import errno
import functools
import hashlib
import io
import json
import time
import zipfile
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..errors import GuestStartError
from .exit import admit_text
from .ipython_archive import IPythonArchive, build_archive
from .protocol import VERSION, Answer, IncompleteAnswerError, ProtocolError, decode_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .relay import CommandRunner

OLDEST_PYTHON = (3, 10)
OLDEST_IPYTHON = (8, 12)
_TIMEOUT = 60.0
_FOLDER = ".agentcube-kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A guest that answers."""

    pid: int
    fd: int
    answer: Answer
    started: bool
    """Whether it was started just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootOptions:
    client_id: str
    generation: str | None = None
    """Only this interpreter will do."""
    acknowledged: int = 0
    must_run: bool = False
    """Do not start a guest where none runs."""
    env: Mapping[str, str] = field(default_factory=dict)


class GuestNotRunningError(Exception):
    """`must_run` was asked for and no guest runs."""


async def boot(
    runner: CommandRunner, options: BootOptions, notify: Callable[[str], None] | None = None
) -> Hello:
    """Start the guest unless it runs, shipping IPython where there is none; say hello to it.

    Raises `GuestStartError` with what is missing and what to do, `GuestNotRunningError`, `IncompleteAnswerError` when
    the answer was cut off, and whatever the runner raises. Asking again after any failure is right: files appear under
    their final names only when they are whole, and a lock in the sandbox lets one guest start.
    """
    report = await _run_boot(runner, options, None)
    if report.get("error") == "need_ipython":
        # Mostly not needed and a second's work, so it is built only now; an earlier kernel may have sent it already.
        archive = await asyncio.to_thread(build_archive)
        report = await _run_boot(runner, options, archive)
        if report.get("error") == "need_ipython":
            await _ship(runner, archive, notify)
            report = await _run_boot(runner, options, archive)
        if report.get("error") == "need_ipython":
            raise GuestStartError("IPython was sent to the sandbox and is not there; is its disk full?")
    return _read(report)


async def _run_boot(
    runner: CommandRunner, options: BootOptions, archive: IPythonArchive | None
) -> dict[str, Any]:
    library, library_hash = guest_library()
    arguments = {
        "version": VERSION,
        "client": options.client_id,
        "generation": options.generation,
        "ack": options.acknowledged,
        "must_run": options.must_run,
        "env": dict(options.env),
        "oldest": OLDEST_PYTHON,
        "ipython": OLDEST_IPYTHON,
        "library_hash": library_hash,
        "archive_hash": archive.hash if archive else "none",
        "archive_parts": len(archive.parts) if archive else 1,
        "archive_oldest": archive.oldest_python if archive else OLDEST_PYTHON,
    }
    command = ["python3", "-c", _boot_source(), json.dumps(arguments), library]
    result = await runner.execute(command, timeout=_TIMEOUT)
    return _parse(result.stdout, result.stderr, result.exit_code)


def _parse(stdout: str, stderr: str, exit_code: int) -> dict[str, Any]:
    if not stdout.endswith("\n.\n"):
        if exit_code in (1, 127) and "python3" in stderr and "not found" in stderr:
            raise GuestStartError(
                "There is no python3 in this sandbox, so no Python cell can run in it. Shell cells (%%bash, !command) "
                "still work; for Python use a CodeInterpreter whose image has python3."
            )
        if exit_code in (-1, 124):
            raise IncompleteAnswerError("the guest's start was stopped")
        detail = admit_text(stderr)
        if "No space left" in detail:
            raise _storage_error(errno.ENOSPC, detail)
        raise GuestStartError(
            f"python3 in the sandbox could not start the guest (exit code {exit_code}):\n{detail}"
        )
    try:
        report = json.loads(stdout.splitlines()[-2])
    except (ValueError, IndexError) as exc:
        raise ProtocolError("the guest's start gave no readable report") from exc
    if not isinstance(report, dict):
        raise ProtocolError("the guest's start gave no readable report")
    return report


def _read(report: dict[str, Any]) -> Hello:
    error = report.get("error")
    if error is None:
        pid, fd, answer = report.get("pid"), report.get("fd"), report.get("answer")
        if not isinstance(pid, int) or not isinstance(fd, int) or not isinstance(answer, str):
            raise ProtocolError("the guest's start gave a report of a wrong shape")
        return Hello(pid=pid, fd=fd, answer=decode_answer(answer), started=report.get("started") is True)
    if error == "gone":
        raise GuestNotRunningError
    version = _dotted(report.get("pyversion"))
    detail = admit_text(report.get("detail", ""), 4000)
    if error == "too_old":
        raise GuestStartError(
            f"python3 in this sandbox is {version}; cells need {_dotted(OLDEST_PYTHON)} or newer. Shell cells (%%bash, "
            "!command) still work; for Python use a CodeInterpreter with a newer image."
        )
    if error == "too_old_for_ipython":
        raise GuestStartError(
            f"This sandbox has no IPython, and the one that would be sent needs a newer python3 than its {version}. "
            f"Install IPython {_dotted(OLDEST_IPYTHON)} or newer in the image, or use an image with a newer python3. "
            "Shell cells (%%bash, !command) still work."
        )
    if error == "version":
        raise GuestStartError(
            "The guest in this session was started by another version of agentcube-kernel. Use that version, or "
            "start a new session."
        )
    if error == "os":
        raise _storage_error(report.get("errno"), detail)
    raise GuestStartError(
        f"The guest could not be started in the sandbox: {detail or admit_text(error, 200)}"
    )


def _storage_error(number: object, detail: str) -> GuestStartError:
    reasons = {
        errno.ENOSPC: "its disk is full. Delete files there (%%bash works without the guest), or use a new session.",
        errno.EDQUOT: "its disk quota is used up. Delete files there (%%bash works without the guest).",
        errno.EROFS: "its workspace is read-only. Use a CodeInterpreter whose workspace can be written.",
        errno.EACCES: "its workspace cannot be written by its user. Use a CodeInterpreter whose workspace can be.",
    }
    known = number if isinstance(number, int) else 0
    reason = reasons.get(known, "an operation of its system failed.")
    return GuestStartError(f"The guest cannot work in this sandbox: {reason} It says: {detail}")


def _dotted(version: object) -> str:
    numbers = version[:3] if isinstance(version, list | tuple) else ()
    return ".".join(str(part) for part in numbers if isinstance(part, int))


async def _ship(runner: CommandRunner, archive: IPythonArchive, notify: Callable[[str], None] | None) -> None:
    started = time.monotonic()
    parts = archive.parts
    for number, part in enumerate(parts):
        if notify is not None and time.monotonic() - started > 1.0:
            notify(f"Sending IPython to the sandbox: {number} of {len(parts)} MB")
        await runner.write(f"{_FOLDER}/ipython-{archive.hash}.{number}", part)


@functools.cache
def _boot_source() -> str:
    return resources.files("agentcube_kernel.guest").joinpath("boot.py").read_text(encoding="utf-8")


@functools.cache
def guest_library() -> tuple[str, str]:
    """The guest's source as a base64 zip file, and a hash of its content."""
    package = resources.files("agentcube_kernel")
    sources = {"_agentcube_guest/__init__.py": b"", "_agentcube_guest/channel/__init__.py": b""}
    sources["_agentcube_guest/channel/protocol.py"] = package.joinpath("channel", "protocol.py").read_bytes()
    for file in package.joinpath("guest").iterdir():
        if file.name.endswith(".py") and file.name != "boot.py":
            sources[f"_agentcube_guest/guest/{file.name}"] = file.read_bytes()
    buffer, digest = io.BytesIO(), hashlib.sha256()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            digest.update(name.encode() + b"\0" + sources[name])
            archive.writestr(
                zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), sources[name], zipfile.ZIP_DEFLATED
            )
    return base64.b64encode(buffer.getvalue()).decode("ascii"), digest.hexdigest()[:16]
