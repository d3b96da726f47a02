"""Type checkers over what users write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("typical_use.py")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "--follow-imports=silent"],
        [sys.executable, "-m", "pyright", "--warnings"],
    ],
    ids=["mypy", "pyright"],
)
def test_typical_use(command: list[str]) -> None:
    """No complaint about right uses, and one about each wrong use."""
    pytest.importorskip(command[2])
    done = subprocess.run(
        [*command, str(FILE)], cwd=FILE.parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
