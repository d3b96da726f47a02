"""What the README shows works as it is written there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from agentcube_kernel.config import SETTINGS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
OUTPUTS = ("21\n", "hello\n 21\n", "42\n\n")


def run(command: list[str], env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, with this environment's programs first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        env={**os.environ, "PATH": path, **env},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("code", "output"), list(zip(PYTHON, OUTPUTS, strict=True)))
def test_python_examples(code: str, output: str, endpoint_env: Mapping[str, str], tmp_path: Path) -> None:
    """Each Python example runs as a script and prints what its reader expects."""
    done = run([sys.executable, "-W", "error", "-c", code], endpoint_env, tmp_path)
    assert (done.stdout, done.returncode) == (output, 0), done.stderr


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("agentcube-kernel ")])
def test_commands(line: str, endpoint_env: Mapping[str, str], tmp_path: Path) -> None:
    """Each command of ours ends well."""
    done = run(shlex.split(line), endpoint_env, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_is_one_line_of_ours_or_of_pip() -> None:
    """There is no shell example that no test looks at; `dev.py` is what runs the tests themselves."""
    assert COMMANDS[:2] == ["python3 dev.py lab", "python3 dev.py test"]
    rest = [line for line in COMMANDS[2:] if not line.startswith("agentcube-kernel ")]
    assert rest == ["pip install agentcube-kernel"]


def test_links_lead_somewhere() -> None:
    """Each link into the repository names a file or folder that is there."""
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_names_only_settings_that_exist() -> None:
    """Each variable in the README is one of a setting."""
    known = {variable for row in SETTINGS for variable in row.variables}
    named = set(re.findall(r"`((?:AGENTCUBE_|ROUTER_|WORKLOAD_)[A-Z_]+)", README))
    assert named
    assert named <= known


def test_the_page_of_settings_is_the_table() -> None:
    """docs/settings.md has a row for each setting, with its variables, what it is and its default."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = [
        f"| `{row.name}` | {', '.join(f'`{name}`' for name in row.variables)} | {row.help} | {row.default} |"
        for row in SETTINGS
    ]
    assert re.findall(r"^\| `[a-z_]+` .*$", page, re.MULTILINE) == rows
