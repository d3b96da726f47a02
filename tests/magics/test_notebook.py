"""The sessions notebook gives the outputs that are stored in it, in both kernels."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import nbformat
import pytest

from tests.magics.notebooks import MODULES

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "sessions.ipynb"


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("needs_sessions")
@pytest.mark.parametrize("kind", sorted(MODULES))
async def test_nbval(kind: str, endpoint_env: Mapping[str, str], tmp_path: Path) -> None:
    """nbval runs every cell and finds the same outputs."""
    copy = shutil.copy(NOTEBOOK, tmp_path)
    spec = {
        "argv": [sys.executable, "-m", MODULES[kind], "-f", "{connection_file}"],
        "display_name": kind,
        "language": "python",
        "interrupt_mode": "message" if kind == "agentcube" else "signal",
    }
    folder = tmp_path / "jupyter" / "kernels" / f"test-{kind}"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
    done = await anyio.run_process(
        [
            *(sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"),
            *("--nbval-kernel-name", f"test-{kind}", "-c", os.devnull, copy),
        ],
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            **endpoint_env,
            "JUPYTER_PATH": str(tmp_path / "jupyter"),
            "PYTHONWARNINGS": "ignore",
        },
    )
    assert done.returncode == 0, done.stdout.decode()[-6000:]


def test_is_ready_to_open() -> None:
    """The notebook is valid, names this kernel, and holds nothing of the machine that it was made on."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "agentcube"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "/tmp/" not in json.dumps(notebook)
