"""The environments in which agent frameworks are tested: one each, since their pins do not agree."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cache import CACHE, USER_HOME
from tests.public.suite import index_is_reachable

ROOT = Path(__file__).parents[2]
TOOLS = ("pytest>=9", "pytest-timeout>=2.4", "psutil>=7", "anyio>=4.13")
FRAMEWORKS: Mapping[str, tuple[str, ...]] = {
    "aisuite": ("aisuite==0.2.0", "docstring-parser", "openai", "pydantic"),
    "deepagents": ("deepagents==0.7.32", "langchain-tests==1.1.9"),
    "deepagents-code": ("deepagents-code==0.1.57",),
    "inspect": ("inspect-ai==0.3.285",),
    "mcp": ("mcp==2.3.0", "pillow"),
    "pydantic-ai": ("pydantic-ai-slim==2.68.0",),
    # Its public suite imports docker, and has agents that draw.
    "smolagents": ("smolagents==1.26.0", "docker", "numpy", "pillow"),
}


def environment(name: str) -> Path:
    """The Python of a framework's environment, which is made unless it is there; skip without a package index."""
    wanted = "\n".join((*TOOLS, *FRAMEWORKS[name], str(ROOT), sys.version))
    folder = CACHE / "environments" / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    if stamp.exists():
        return python
    _call(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet")
    if _call(*pip, "--editable", str(ROOT), *TOOLS, *FRAMEWORKS[name]):
        if not index_is_reachable():
            pytest.skip(f"{name} is installed from the package index, which cannot be reached")
        pytest.fail(f"the environment of {name} could not be made")
    stamp.touch()
    return python


def run_tests(name: str, *arguments: str, cwd: Path = ROOT, env: Mapping[str, str]) -> None:
    """Run pytest in a framework's environment, and fail with what it says."""
    done = subprocess.run(
        [str(environment(name)), "-m", "pytest", "-q", "--color=no", *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:]


def _call(*command: str) -> int:
    return subprocess.run(command, env={**os.environ, "HOME": str(USER_HOME)}).returncode
