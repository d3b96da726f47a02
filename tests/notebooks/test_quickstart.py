"""The quickstart notebook gives the outputs that are stored in it."""

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

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.config import Settings

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


@pytest.fixture
async def needs_pandas(endpoint_env: Mapping[str, str]) -> None:
    """Skip where the sandbox's python3 lacks what the notebook imports."""
    async with AsyncCodeInterpreterClient(settings=Settings.load(endpoint_env)) as client:
        done = await client.data_plane.execute(["python3", "-c", "import matplotlib, pandas"])
    if done.exit_code:
        pytest.skip("the sandbox's python3 has no pandas or no matplotlib")


@pytest.mark.timeout(180)
async def test_nbval(needs_pandas: None, endpoint_env: Mapping[str, str], tmp_path: Path) -> None:
    """nbval runs every cell with the notebook's own kernel and finds the same outputs."""
    copy = shutil.copy(NOTEBOOK, tmp_path)
    done = await anyio.run_process(
        [
            *(sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"),
            "-c",
            os.devnull,
            copy,
        ],
        check=False,
        cwd=tmp_path,
        env={**os.environ, **endpoint_env, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stdout.decode()[-6000:]


def test_is_ready_to_open() -> None:
    """The notebook is valid, names this kernel, is stored run in order, and hides no error but the one on purpose."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "agentcube"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    failing = [cell for cell in cells if any(output.output_type == "error" for output in cell.outputs)]
    assert [cell.metadata.get("tags") for cell in failing] == [["raises-exception"]]
    kinds = {kind for cell in cells for output in cell.outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert "/tmp/" not in json.dumps(notebook)
