"""The command line starts quickly, and its help needs none of the commands."""

from __future__ import annotations

import subprocess
import sys

from tests.commands import run_cli


def test_help_lists_every_command() -> None:
    """The four commands are listed with one line each."""
    told = run_cli("--help").stdout
    for name in ("doctor", "install", "serve", "sessions"):
        assert f"\n  {name} " in told


def test_help_imports_no_heavy_module() -> None:
    """What takes long to import waits until a command needs it."""
    look = (
        "import sys; from click.testing import CliRunner; from agentcube_kernel.cli.main import cli; "
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0; "
        "heavy = {'httpx', 'IPython', 'ipykernel', 'jupyter_client', 'rich', 'starlette', 'zmq'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_an_unknown_command_is_named() -> None:
    """A misspelt command ends with status 2 and its name."""
    assert "instal" in run_cli("instal", status=2).stderr
