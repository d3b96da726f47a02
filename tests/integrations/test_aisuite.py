"""aisuite calls the tools of a sandbox, and knows what each may do."""

from __future__ import annotations

import pytest

pytest.importorskip("aisuite", reason="tests/integrations/test_frameworks.py runs this where aisuite is")

import aisuite

from agentcube_kernel import ConfigurationError, Sandbox
from agentcube_kernel.integrations.aisuite import sandbox_tools
from tests.integrations.examples import output_of


def test_metadata(configured: dict[str, str]) -> None:
    """Every tool carries what aisuite's policies decide on."""
    tools = sandbox_tools(Sandbox(), prefix="first_")
    metadata = {tool.__name__: tool.__aisuite_tool_metadata__ for tool in tools}
    assert {name: each.risk_level for name, each in metadata.items()} == {
        "first_run_python": "medium",
        "first_run_shell": "medium",
        "first_read_file": "low",
        "first_write_file": "medium",
    }
    assert metadata["first_run_python"].name == "first_run_python"
    with pytest.raises(ConfigurationError, match="two tools"):
        tools + sandbox_tools(Sandbox(), prefix="first_")


def test_schemas(configured: dict[str, str]) -> None:
    """aisuite makes a schema of each tool, with a description of each argument."""
    schemas = aisuite.Tools(sandbox_tools(Sandbox())).tools()
    functions = {each["function"]["name"]: each["function"] for each in schemas}
    assert set(functions["write_file"]["parameters"]["properties"]) == {"path", "content"}
    assert functions["run_python"]["parameters"]["required"] == ["code"]


async def test_example(configured: dict[str, str]) -> None:
    """The example's agent computes with variables that stay from call to call."""
    assert await output_of("aisuite_tools.py", configured) == "The sum is 6.\n"
