"""An agent of aisuite that computes in a sandbox. The model is scripted.

pip install agentcube-kernel aisuite
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aisuite
from aisuite.framework.message import ChatCompletionMessageToolCall, Function, Message
from aisuite.provider import Provider

from agentcube_kernel import AsyncSandbox
from agentcube_kernel.integrations.aisuite import asandbox_tools

CALLS = (
    ("run_python", {"code": "numbers = [1, 2, 3]"}),
    ("run_python", {"code": "sum(numbers)"}),
)


class Reply:
    """A completion with one choice, as aisuite's providers return it."""

    def __init__(self, message: Message) -> None:
        self.choices = [self]
        self.message = message
        self.finish_reason = "stop"


class ScriptedProvider(Provider):
    """Stands in for a language model: it calls the tools that it was given to call, and repeats the last result."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = list(CALLS)

    def chat_completions_create(self, model: str, messages: list[Any], **options: Any) -> Reply:
        """The next call of a tool, or the answer."""
        if not self.calls:
            result = json.loads(messages[-1]["content"])["result"]
            return Reply(Message(role="assistant", content=f"The sum is {result}.", tool_calls=None))
        name, arguments = self.calls.pop(0)
        call = ChatCompletionMessageToolCall(
            id=f"call{len(self.calls)}",
            type="function",
            function=Function(name=name, arguments=json.dumps(arguments)),
        )
        return Reply(Message(role="assistant", content=None, tool_calls=[call]))


async def main() -> None:
    """Ask, and print the answer."""
    client = aisuite.Client()
    client.providers["openai"] = ScriptedProvider()
    async with AsyncSandbox() as sandbox:
        reply = await client.chat.completions.acreate(
            model="openai:scripted",
            messages=[{"role": "user", "content": "What is the sum of 1, 2 and 3?"}],
            tools=asandbox_tools(sandbox),
            max_turns=5,
        )
    print(reply.choices[0].message.content)


if __name__ == "__main__":
    asyncio.run(main())
