"""Run other projects' own test suites against this kernel.

A suite's tests come from its source distribution, which pip downloads from the package index and which is
checked against a hash. Nothing in it is changed: a kernelspec named "python3" that starts this kernel is put
in front of every other one, so that whatever asks for the default kernel gets this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cache import USER_HOME

# Warnings that these suites would end on, of versions of their tools that are newer than they are.
NEWER_TOOLS = ("-o", "asyncio_default_fixture_loop_scope=function")
# Plugins of this environment that these suites were not written for.
NOT_THEIRS = ("-p", "no:cacheprovider", "-p", "no:nbval", "-p", "no:anyio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The tests of one release: which are run, and why the others are not."""

    distribution: str
    version: str
    sha256: str
    run: tuple[str, ...]
    left_out: Mapping[str, str]

    @classmethod
    def load(cls, name: str) -> Suite:
        """Read a table that lies beside this file."""
        table = tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))
        run = tuple(f"{file}::{test}" for file, tests in table["run"].items() for test in tests)
        left_out = {
            f"{file}::{test}": reason
            for file, tests in table["left_out"].items()
            for test, reason in tests.items()
        }
        return cls(
            distribution=table["distribution"],
            version=table["version"],
            sha256=table["sha256"],
            run=run,
            left_out=left_out,
        )

    @property
    def archive(self) -> str:
        """The file name of the source distribution."""
        return f"{self.distribution}-{self.version}.tar.gz"

    @property
    def files(self) -> list[str]:
        """The test files that have tests to run."""
        return sorted({name.partition("::")[0] for name in self.run})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one test of a suite ended, and what it said."""

    status: str
    details: str


def index_is_reachable() -> bool:
    """Whether pip's package index answers at all."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(USER_HOME)},
    )
    url = os.environ.get("PIP_INDEX_URL") or asked.stdout.strip() or "https://pypi.org/simple"
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/ipykernel/", timeout=20):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def fetch(suite: Suite, cache: Path) -> Path:
    """Download a suite unless the cache has it, and return the archive; skip without a package index."""
    archive = cache / suite.archive
    if archive.is_file() and _hash_of(archive) == suite.sha256:
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    requirement = f"{suite.distribution}=={suite.version}"
    options = ("--no-deps", "--no-binary", suite.distribution, "--disable-pip-version-check", "-q")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "-d", str(cache), requirement],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(USER_HOME)},
    )
    if done.returncode:
        if not index_is_reachable():
            pytest.skip(
                f"the tests of {requirement} are fetched from the package index, which cannot be reached"
            )
        pytest.fail(f"pip could not download {requirement}:\n{done.stderr}")
    assert _hash_of(archive) == suite.sha256, f"{suite.archive} is not the file that was looked at"
    return archive


def _hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpack(suite: Suite, archive: Path, folder: Path) -> Path:
    """Unpack a suite and return its root."""
    # The hash of the archive is known; the filter, which Python 3.11.4 brought, keeps newer ones from warning.
    options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **options)  # type: ignore[arg-type]
    return folder / f"{suite.distribution}-{suite.version}"


def redirect(folder: Path, *, name: str = "python3", env: Mapping[str, str] | None = None) -> Path:
    """Make a Jupyter data folder in which kernel `name` is this one; JUPYTER_PATH is to point to it."""
    spec = {
        "argv": [sys.executable, "-m", "agentcube_kernel", "-f", "{connection_file}"],
        "display_name": "AgentCube Remote",
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"supported_encryption": ["curve"]},
        "env": dict(env or {}),
    }
    kernel = folder / "kernels" / name
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    return folder


def run(suite: Suite, root: Path, jupyter_path: Path, *, timeout: float) -> dict[str, Outcome]:
    """Run a suite's files but for what is left out, and return what became of each of its tests."""
    report = root / "report.xml"
    left_out = [f"--deselect={name}" for name in suite.left_out]
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--color=no", f"--junitxml={report}"),
            *(*NEWER_TOOLS, *NOT_THEIRS, *left_out, *suite.files),
        ],
        cwd=root,
        env={
            **os.environ,
            "JUPYTER_PATH": str(jupyter_path),
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert report.is_file(), f"pytest ended with {done.returncode} and no report:\n{done.stdout[-4000:]}"
    return outcomes(report)


def outcomes(report: Path) -> dict[str, Outcome]:
    """What a report in JUnit's format says of each test."""
    return {name: outcome for case in ET.parse(report).iter("testcase") for name, outcome in [_outcome(case)]}


def _outcome(case: ET.Element) -> tuple[str, Outcome]:
    module, *classes = case.attrib["classname"].removeprefix("tests.").split(".")
    name = "::".join([f"tests/{module}.py", *classes, case.attrib["name"]])
    problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
    if problem is None:
        return name, Outcome(status="passed", details="")
    captured = "\n".join(child.text or "" for child in case if child.tag in ("system-out", "system-err"))
    return name, Outcome(
        status=problem.tag, details=f"{problem.get('message')}\n{problem.text}\n{captured}"[-6000:]
    )
