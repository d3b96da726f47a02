"""The benchmarks run and tell what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(120)
def test_a_quick_look(endpoint_env: Mapping[str, str]) -> None:
    """Each chosen measurement gives its row, with a ratio to the baseline of the same run."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", "kernel", "channel", "latency"],
        cwd=ROOT,
        env={**os.environ, **endpoint_env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 4
    assert all(row["ratio"] > 0 for row in rows)


def test_an_unknown_name_is_named() -> None:
    """A misspelt measurement ends with status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "speed" in done.stderr
