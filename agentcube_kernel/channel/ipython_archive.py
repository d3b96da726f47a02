"""IPython for sandboxes that have none: the installed one and its pure-Python dependencies, in one archive."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_core.paths import jupyter_data_dir
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOTS = ("ipython", "comm", "matplotlib-inline")

# jedi carries 3 MB of type stubs; IPython completes without it, by looking at the objects. psutil is not pure Python
# and serves terminals only.
_LEFT_OUT = frozenset({"jedi", "parso", "psutil", "colorama"})

_SKIPPED_FOLDERS = frozenset({"tests", "__pycache__"})
_SKIPPED_SUFFIXES = (".pyc", ".pyi", ".so", ".pyd", ".exe", ".md", ".rst")
_EPOCH = (1980, 1, 1, 0, 0, 0)

PART_SIZE = 1024 * 1024
"""Bytes per uploaded part: small enough for any limit on one request and for slow lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IPythonArchive:
    """A zip file, named by its content."""

    data: bytes
    hash: str
    oldest_python: tuple[int, int]
    """The oldest Python that this IPython runs on."""

    @property
    def parts(self) -> list[bytes]:
        return [self.data[start : start + PART_SIZE] for start in range(0, len(self.data), PART_SIZE)]


@functools.cache
def build_archive() -> IPythonArchive:
    """Collect the archive from the installed distributions; takes a second the first time, so call it in a thread.

    It is kept in Jupyter's data directory, under a name that changes with the versions of what is in it.
    """
    distributions = _distributions()
    versions = ",".join(sorted(f"{item.name}={item.version}" for item in distributions))
    name = f"ipython-{hashlib.sha256(versions.encode()).hexdigest()[:16]}.zip"
    kept = Path(jupyter_data_dir()) / "agentcube" / name
    try:
        data = kept.read_bytes()
        zipfile.ZipFile(io.BytesIO(data)).close()
    except (OSError, zipfile.BadZipFile):
        data = _zip(distributions)
        _keep(kept, data)
    return IPythonArchive(
        data=data, hash=hashlib.sha256(data).hexdigest()[:16], oldest_python=_oldest_python(distributions)
    )


def _zip(distributions: list[metadata.Distribution]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(_files(distributions)):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _keep(path: Path, data: bytes) -> None:
    """Best effort: without the kept file the archive is just built again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError:
        return


def _oldest_python(distributions: list[metadata.Distribution]) -> tuple[int, int]:
    ipython = next(item for item in distributions if canonicalize_name(item.name) == "ipython")
    required = ipython.metadata["Requires-Python"] or ""
    versions = [
        part.strip().removeprefix(">=") for part in required.split(",") if part.strip().startswith(">=")
    ]
    major, minor = ([*versions[0].split("."), "0"])[:2] if versions else ("3", "11")
    return int(major), int(minor)


def _files(distributions: list[metadata.Distribution]) -> Iterator[tuple[str, bytes]]:
    for distribution in distributions:
        for file in distribution.files or ():
            parts = file.parts
            if (
                parts[0] == ".."
                or _SKIPPED_FOLDERS.intersection(parts)
                or file.name.endswith(_SKIPPED_SUFFIXES)
            ):
                continue
            if parts[0].endswith(".dist-info") and file.name not in ("METADATA", "entry_points.txt"):
                continue
            yield file.as_posix(), file.read_binary()


def _distributions() -> list[metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    waiting = list(_ROOTS)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found or name in _LEFT_OUT:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = distribution
        for text in distribution.requires or ():
            requirement = Requirement(text)
            # typing_extensions and the like depend on the sandbox's Python, which is not known here: take them.
            if requirement.marker is None or "extra" not in str(requirement.marker):
                waiting.append(requirement.name)
    return list(found.values())
