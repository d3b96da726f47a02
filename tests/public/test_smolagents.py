"""smolagents' own tests of remote executors pass with ours in the place of theirs."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cache import CACHE
from tests.integrations.frameworks import environment
from tests.public import suite as public
from tests.public.suite import Suite

pytestmark = [pytest.mark.rare, pytest.mark.timeout(900)]

FILE = "tests/test_remote_executors.py"
SUITE = Suite(
    distribution="smolagents",
    version="1.26.0",
    sha256="4ec92313265f9cfbcabfc88e192b4bc4505f8475dc5f33dc872062fc567037bd",
    run=(f"{FILE}::all",),
    left_out={
        f"{FILE}::TestDockerExecutorIntegration::test_initialization": "looks at a Docker container",
        f"{FILE}::TestDockerExecutorIntegration::test_cleanup_on_deletion": "looks at a Docker container",
        f"{FILE}::TestRemotePythonExecutor": "tests the base class, with mocks",
        f"{FILE}::TestE2BExecutorUnit": "tests E2B's executor, with mocks",
        f"{FILE}::TestDockerExecutorUnit": "tests Docker's executor, with mocks",
        f"{FILE}::TestModalExecutorUnit": "tests Modal's executor, with mocks",
        f"{FILE}::TestBlaxelExecutorUnit": "tests Blaxel's executor, with mocks",
    },
)
# A module of the tests that their source distribution lacks.
MARKERS = "def require_run_all(test): return test\n"
REDIRECT = """\
import smolagents.remote_executors
from agentcube_kernel.integrations.smolagents import AgentCubeExecutor

for name in ("Docker", "E2B", "Modal"):
    setattr(smolagents.remote_executors, f"{name}Executor", AgentCubeExecutor)
"""


def test_remote_executors(endpoint_env: Mapping[str, str], tmp_path: Path) -> None:
    """Every test of an executor that runs code passes: ten as Docker's, five as E2B's and ten as Modal's."""
    root = public.unpack(SUITE, public.fetch(SUITE, CACHE / "suites"), tmp_path)
    (root / "redirect.py").write_text(REDIRECT)
    (root / "tests" / "utils").mkdir()
    for package in (root / "tests", root / "tests" / "utils"):
        (package / "__init__.py").touch()
    (root / "tests" / "utils" / "markers.py").write_text(MARKERS)
    report = root / "report.xml"
    left_out = [f"--deselect={name}" for name in SUITE.left_out]
    done = subprocess.run(
        [
            *(str(environment("smolagents")), "-m", "pytest", "-q", "--color=no", "-o", "addopts="),
            *("-p", "redirect", "-p", "no:cacheprovider", f"--junitxml={report}", *left_out, FILE),
        ],
        cwd=root,
        env={**os.environ, **endpoint_env, "PYTHONPATH": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert report.is_file(), done.stdout[-4000:]
    outcomes = public.outcomes(report)
    assert all(outcome.status == "passed" for outcome in outcomes.values()), done.stdout[-8000:]
    assert Counter(name.split("::")[1] for name in outcomes) == {
        "TestDockerExecutorIntegration": 10,
        "TestE2BExecutorIntegration": 5,
        "TestModalExecutorIntegration": 10,
    }
