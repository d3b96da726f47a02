"""What is said where a framework is not installed."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest

MODULES = {
    "smolagents": ("smolagents", "smolagents"),
    "deepagents": ("deepagents", "deepagents"),
    "deepagents_code": ("deepagents_code", "deepagents-code"),
    "inspect_ai": ("inspect_ai", "inspect"),
    "mcp": ("mcp", "mcp"),
    "pydantic_ai": ("pydantic_ai", "pydantic-ai"),
}


@pytest.mark.parametrize("module", MODULES)
def test_missing_framework(module: str) -> None:
    """Importing an integration without its framework is one sentence that names the extra."""
    framework, extra = MODULES[module]
    if importlib.util.find_spec(framework):
        pytest.skip(f"{framework} is installed")
    with pytest.raises(ImportError, match=rf"pip install 'agentcube-kernel\[{extra}\]'"):
        importlib.import_module(f"agentcube_kernel.integrations.{module}")


def test_missing_mcp_on_the_command_line() -> None:
    """The command says it too, without a traceback."""
    if importlib.util.find_spec("mcp"):
        pytest.skip("mcp is installed")
    done = subprocess.run(
        [sys.executable, "-m", "agentcube_kernel.cli.main", "mcp"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1
    assert "agentcube-kernel[mcp]" in done.stderr
    assert "Traceback" not in done.stderr
