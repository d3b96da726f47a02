"""A sandbox for deep agents: LangChain's own suite for such backends, and what that leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

pytest.importorskip(
    "langchain_tests", reason="tests/integrations/test_frameworks.py runs this where deepagents is"
)

from langchain_core.tools import StructuredTool
from langchain_tests.integration_tests import SandboxIntegrationTests

from agentcube_kernel import ConfigurationError, Sandbox
from agentcube_kernel.integrations.deepagents import AgentCubeBackend
from agentcube_kernel.integrations.tools import sandbox_tools
from tests.integrations.examples import output_of

pytestmark = [
    pytest.mark.timeout(180),
    # The suite has fixtures as pytest 10 will no longer have them.
    pytest.mark.filterwarnings("ignore:Class-scoped fixtures"),
]


@pytest.fixture(scope="module")
def backend(endpoint_env: Mapping[str, str]) -> Iterator[AgentCubeBackend]:
    """A backend with a sandbox of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in endpoint_env.items():
            patch.setenv(name, value)
        backend = AgentCubeBackend()
        backend.sandbox.open()
    yield backend
    backend.close()


# In deepagents 0.7.32 these hold for no backend that is a BaseSandbox: its own glob and write do otherwise.
ABSOLUTE = "glob answers absolute paths"
NOT_THERE_YET = {
    "test_glob": ABSOLUTE,
    "test_glob_basic_pattern": ABSOLUTE,
    "test_glob_hidden_files_explicitly": ABSOLUTE,
    "test_glob_with_character_class": ABSOLUTE,
    "test_glob_with_question_mark": ABSOLUTE,
    "test_glob_with_directories": "glob answers files alone",
    "test_write_existing_file_fails": "write replaces a file",
}


class TestSuite(SandboxIntegrationTests):
    """LangChain's own suite."""

    @pytest.fixture(scope="class")
    def sandbox(self, backend: AgentCubeBackend) -> AgentCubeBackend:
        """What is tested."""
        return backend

    @pytest.fixture(autouse=True)
    def left_out(self, request: pytest.FixtureRequest) -> None:
        """Expect what deepagents itself does not do yet."""
        reason = NOT_THERE_YET.get(request.node.name)
        if reason:
            request.applymarker(pytest.mark.xfail(reason=reason))


def test_background_child(backend: AgentCubeBackend) -> None:
    """What a command leaves running in the background does not hold it up."""
    done = backend.execute("sleep 30 & echo done")
    assert (done.output, done.exit_code) == ("done\n", 0)


def test_long_command(backend: AgentCubeBackend) -> None:
    """A command longer than an argument may be is run all the same, and both outputs come in order."""
    done = backend.execute(f"echo one; echo two >&2; echo three\n# {'x' * 300_000}\nexit 3")
    assert (done.output, done.exit_code) == ("one\ntwo\nthree\n", 3)


def test_time_limit(backend: AgentCubeBackend) -> None:
    """A command that takes too long is stopped, and says so."""
    done = backend.execute("sleep 60", timeout=1)
    assert done.exit_code == 124
    assert "was stopped" in done.output


def test_own_and_given_sandboxes(configured: dict[str, str]) -> None:
    """A sandbox that was given is not stopped."""
    with Sandbox() as sandbox:
        backend = AgentCubeBackend(sandbox)
        assert backend.id == sandbox.session_id
        backend.close()
        assert sandbox.run_cell("1").text == "1"
    with pytest.raises(ConfigurationError, match="Sandbox"):
        AgentCubeBackend("x")  # type: ignore[arg-type]


def test_plain_tools(backend: AgentCubeBackend) -> None:
    """The plain functions are tools of LangChain, which reads their descriptions from their docstrings."""
    functions = sandbox_tools(backend.sandbox)
    tools = [StructuredTool.from_function(each, parse_docstring=True) for each in functions]
    assert [tool.name for tool in tools] == ["run_python", "run_shell", "read_file", "write_file"]
    assert tools[0].args["code"]["description"] == "The Python code to run."
    assert tools[0].invoke({"code": "6 * 7"})["result"] == "42"


async def test_example(configured: dict[str, str]) -> None:
    """The example's agent uses its files and its shell."""
    assert await output_of("deep_agent.py", configured) == "hello from the sandbox\n"
