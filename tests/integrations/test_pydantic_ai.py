"""A sandbox as a workspace of pydantic-ai: its conformance suite, and what that leaves open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

pytest.importorskip(
    "pydantic_ai", reason="tests/integrations/test_frameworks.py runs this where pydantic-ai is"
)

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from pydantic_ai.workspaces import WorkspaceOutputLimitError, WorkspaceRef
from pydantic_ai.workspaces.conformance import WorkspaceBackendSuite

from agentcube_kernel import AsyncCodeInterpreterClient
from agentcube_kernel.integrations.pydantic_ai import AgentCubeWorkspace
from agentcube_kernel.integrations.tools import asandbox_tools
from tests.integrations.examples import output_of
from tests.sandboxes import opened

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("needs_sessions")]


@pytest.fixture
async def made(configured: dict[str, str]) -> AsyncIterator[list[AgentCubeWorkspace]]:
    """The workspaces of a test, which are deleted at its end."""
    made: list[AgentCubeWorkspace] = []
    yield made
    for workspace in made:
        await workspace.delete()


class TestConformance(WorkspaceBackendSuite):
    """pydantic-ai's own suite, with every optional rule."""

    @pytest.fixture
    def backend(self, made: list[AgentCubeWorkspace]) -> AgentCubeWorkspace:
        """A workspace."""
        made.append(AgentCubeWorkspace())
        return made[-1]

    @pytest.fixture
    def fresh_backend(self, made: list[AgentCubeWorkspace]) -> Callable[[], AgentCubeWorkspace]:
        """Makes workspaces."""

        def make() -> AgentCubeWorkspace:
            made.append(AgentCubeWorkspace())
            return made[-1]

        return make

    @pytest.fixture
    def attach_backend(self, made: list[AgentCubeWorkspace]) -> Callable[[WorkspaceRef], AgentCubeWorkspace]:
        """Makes workspaces of what is there."""

        def attach(ref: WorkspaceRef) -> AgentCubeWorkspace:
            made.append(AgentCubeWorkspace(ref))
            return made[-1]

        return attach

    @pytest.fixture
    def destroy_environment(self) -> Callable[[AgentCubeWorkspace], Awaitable[None]]:
        """Deletes the session behind a workspace, as somebody else does it."""

        async def destroy(workspace: AgentCubeWorkspace) -> None:
            assert workspace.ref is not None
            await AsyncCodeInterpreterClient(session_id=workspace.ref.id).stop(force=True)

        return destroy


async def test_output_limit(made: list[AgentCubeWorkspace]) -> None:
    """Too much output is an error that has the beginning."""
    made.append(AgentCubeWorkspace())
    with pytest.raises(WorkspaceOutputLimitError) as caught:
        await made[0].run("head -c 11000000 /dev/zero | tr '\\0' x", shell=True)
    assert caught.value.stdout.startswith("xxx")


async def test_signal(made: list[AgentCubeWorkspace]) -> None:
    """A program that a signal has ended has the exit code that a shell would say."""
    made.append(AgentCubeWorkspace())
    assert (await made[0].run(["sh", "-c", "kill -9 $$"])).exit_code == 137


def test_foreign_ref(configured: dict[str, str]) -> None:
    """The workspace of another provider is refused."""
    with pytest.raises(ValueError, match="e2b"):
        AgentCubeWorkspace(WorkspaceRef(provider="e2b", id="x"))


async def test_plain_tools(configured: dict[str, str]) -> None:
    """The plain functions are tools of an agent as they are, with a description of each argument."""
    model = TestModel()
    async with opened() as sandbox:
        agent = Agent(model, tools=asandbox_tools(sandbox))
        assert '"ok":true' in (await agent.run("task")).output
    parameters = model.last_model_request_parameters
    assert parameters is not None
    schemas = {tool.name: tool.parameters_json_schema for tool in parameters.function_tools}
    assert set(schemas) == {"run_python", "run_shell", "read_file", "write_file"}
    assert all(each["description"] for each in schemas["write_file"]["properties"].values())


async def test_example(configured: dict[str, str]) -> None:
    """The example's second run finds what the first has left."""
    assert await output_of("pydantic_ai_workspace.py", configured) == "hello\n"
