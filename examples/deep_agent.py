"""A deep agent of LangChain that works in a sandbox. The model is scripted.

pip install 'agentcube-kernel[deepagents]'
"""

from __future__ import annotations

from typing import Any

from deepagents import create_deep_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage

from agentcube_kernel.integrations.deepagents import AgentCubeBackend


class ScriptedModel(GenericFakeChatModel):
    """Stands in for a language model: it says what it was given to say."""

    def bind_tools(self, tools: Any, **options: Any) -> ScriptedModel:
        """Tools are known from the script."""
        return self


def call(name: str, **arguments: Any) -> AIMessage:
    """A message that calls a tool."""
    return AIMessage(content="", tool_calls=[{"name": name, "args": arguments, "id": f"call-{name}"}])


def main() -> None:
    """Have a file written and read, and print what was read."""
    backend = AgentCubeBackend()
    try:
        script = [
            call("write_file", file_path="/tmp/agentcube-note.txt", content="hello from the sandbox"),  # noqa: S108
            call("execute", command="cat /tmp/agentcube-note.txt; rm /tmp/agentcube-note.txt"),
            AIMessage(content="done"),
        ]
        agent = create_deep_agent(model=ScriptedModel(messages=iter(script)), backend=backend)
        result = agent.invoke({"messages": [{"role": "user", "content": "Write a note and read it."}]})
        answers = [message.content for message in result["messages"] if isinstance(message, ToolMessage)]
        print(answers[-1].splitlines()[0])
    finally:
        backend.close()


if __name__ == "__main__":
    main()
