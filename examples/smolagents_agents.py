"""Three agents of smolagents at once, each with its code in a sandbox of its own. The model is scripted.

pip install 'agentcube-kernel[smolagents]'
"""

from __future__ import annotations

import asyncio
from typing import Any

from smolagents import CodeAgent
from smolagents.models import ChatMessage, MessageRole, Model

from agentcube_kernel.integrations.smolagents import AgentCubeExecutor, arun

STEPS = (
    "Thought: I count.\n<code>\nnumbers = list(range(10))\nprint(sum(numbers))\n</code>",
    "Thought: I use what I have.\n<code>\nfinal_answer(max(numbers) * {factor})\n</code>",
)


class ScriptedModel(Model):
    """Stands in for a language model: it says what it was given to say."""

    def __init__(self, *steps: str) -> None:
        super().__init__(model_id="scripted")
        self.steps = list(steps)

    def generate(self, messages: list[Any], **options: Any) -> ChatMessage:
        """The next step."""
        return ChatMessage(role=MessageRole.ASSISTANT, content=self.steps.pop(0))


async def answer(factor: int) -> Any:
    """What one agent finds."""
    model = ScriptedModel(*(step.replace("{factor}", str(factor)) for step in STEPS))
    with CodeAgent(tools=[], model=model, executor=AgentCubeExecutor(timeout=60), verbosity_level=0) as agent:
        return await arun(agent, f"Multiply the largest digit by {factor}.")


async def main() -> None:
    """Run the agents and print what they found."""
    print(await asyncio.gather(*(answer(factor) for factor in (1, 2, 3))))


if __name__ == "__main__":
    asyncio.run(main())
