"""An agent of pydantic-ai that works in a sandbox, and a later run that goes on there. The model is scripted.

pip install 'agentcube-kernel[pydantic-ai]'
"""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from agentcube_kernel.integrations.pydantic_ai import AgentCubeWorkspace


def scripted(command: str) -> FunctionModel:
    """Stands in for a language model: it calls the tool once, and answers with the tool's result."""

    def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[-1]
        if isinstance(last, ToolReturnPart):
            return ModelResponse(parts=[TextPart(str(last.content) or "done")])
        return ModelResponse(parts=[ToolCallPart("shell", {"command": command})])

    return FunctionModel(respond)


agent = Agent()


@agent.tool
async def shell(ctx: RunContext[None], command: str) -> str:
    """Run a shell command."""
    return (await ctx.workspace.run(command, shell=True)).stdout


async def main() -> None:
    """Run twice in one session, the second time by its name alone."""
    workspace = AgentCubeWorkspace()
    try:
        await agent.run("Write a file.", model=scripted("echo hello > note.txt"), workspace=workspace)
        later = AgentCubeWorkspace(workspace.ref)
        answer = await agent.run("Read it.", model=scripted("cat note.txt"), workspace=later)
        print(answer.output.strip())
        await later.close()
    finally:
        await workspace.delete()


if __name__ == "__main__":
    asyncio.run(main())
