"""smolagents' agents with their code in a sandbox."""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "smolagents", reason="tests/integrations/test_frameworks.py runs this where smolagents is"
)

from smolagents import CodeAgent, FinalAnswerTool
from smolagents.models import ChatMessage, MessageRole, Model
from smolagents.utils import AgentError

from agentcube_kernel import (
    AsyncCodeInterpreterClient,
    ClientStateError,
    ConfigurationError,
    Sandbox,
    SessionNotFoundError,
)
from agentcube_kernel.integrations.smolagents import AgentCubeExecutor, arun
from tests.integrations.examples import output_of

pytestmark = pytest.mark.timeout(120)


class Scripted(Model):
    """A model that says what it was given to say, after some thinking."""

    def __init__(self, *codes: str, thinking: float = 0.0) -> None:
        super().__init__(model_id="scripted")
        self.codes = list(codes)
        self.thinking = thinking
        self.heard: list[str] = []

    def generate(self, messages: list[Any], **options: Any) -> ChatMessage:
        """The next code, or an answer when there is no more."""
        self.heard.append(str(messages[-1]))
        time.sleep(self.thinking)
        code = self.codes.pop(0) if self.codes else "final_answer('no more')"
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"Thought: so.\n<code>\n{code}\n</code>")


@pytest.fixture
def executor(configured: dict[str, str]) -> Iterator[AgentCubeExecutor]:
    """An executor with a sandbox of its own."""
    executor = AgentCubeExecutor(timeout=30)
    yield executor
    executor.cleanup()


def agent_with(executor: AgentCubeExecutor, model: Model) -> CodeAgent:
    """An agent that prints nothing."""
    return CodeAgent(tools=[], model=model, executor=executor, verbosity_level=0)


def test_state_and_answer(executor: AgentCubeExecutor) -> None:
    """Variables stay from step to step, and the answer arrives as what it was."""
    model = Scripted("x = {'a': (1, 2)}; print('seen')", "final_answer(x)")
    assert agent_with(executor, model).run("task") == {"a": (1, 2)}
    assert "seen" in model.heard[1]
    assert executor("x['a']").output == "(1, 2)"


def test_failed_step_keeps_what_was_printed(executor: AgentCubeExecutor) -> None:
    """The model reads what was printed before an error, and the error without colours."""
    model = Scripted("print('before'); 1 / 0")
    agent_with(executor, model).run("task")
    assert "before" in model.heard[1]
    assert "ZeroDivisionError" in model.heard[1]
    assert "\\x1b" not in model.heard[1]


def test_time_limit(configured: dict[str, str]) -> None:
    """Code that takes too long is interrupted, and the next step goes on with its variables."""
    executor = AgentCubeExecutor(timeout=1)
    try:
        with pytest.raises(AgentError, match="did not end within 1 s"):
            executor("x = 5; print('begun'); import time; time.sleep(60)")
        assert executor.state["_print_outputs"] == "begun\n"
        assert executor("x").output == "5"
    finally:
        executor.cleanup()


def test_packages_that_are_there_are_not_installed(executor: AgentCubeExecutor) -> None:
    """What the sandbox has is found without pip; what no index has is an error that names it."""
    executor.install_packages(["json", "os.path", "pip"])
    with pytest.raises(AgentError, match="no-such-package"):
        executor.install_packages(["no-such-package-of-agentcube==99"])


def test_cleanup_stops_what_it_made(configured: dict[str, str], needs_sessions: None) -> None:
    """A sandbox of the executor's own is stopped; one that was given is not."""
    with Sandbox() as given:
        executor = AgentCubeExecutor(sandbox=given)
        executor("x = 1")
        executor.cleanup()
        assert given.run_cell("x").text == "1"
    executor = AgentCubeExecutor()
    executor("x = 1")
    session = executor.sandbox.session_id
    executor.delete()
    executor.cleanup()
    assert executor.sandbox.closed
    gone = Sandbox(AsyncCodeInterpreterClient(session_id=session))
    with pytest.raises(Exception, match=str(session)):
        gone.run_cell("1")
    gone.close()


def answer(executor: AgentCubeExecutor, value: str) -> Any:
    """What becomes of an exception that claims to be a final answer."""
    code = "class FinalAnswerException(BaseException): pass"
    return executor(f"{code}\nraise FinalAnswerException({value})").output


def test_hostile_answers(executor: AgentCubeExecutor, tmp_path: Path) -> None:
    """No answer runs code here, takes much memory, or ends the agent with anything but an error it can read."""
    assert answer(executor, "'safe:[1, 2]'") == [1, 2]
    pickled = base64.b64encode(
        b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    ).decode()
    strange = [
        f"'pickle:{pickled}'",
        f"'{pickled}'",
        "'safe:{'",
        "'safe:' + '[' * 100000",
        "'safe:' + '9' * 100000",
        """'safe:{"__type__": "PIL.Image", "data": "AAAA"}'""",
        """'safe:{"__type__": "PIL.Image"}'""",
        """'safe:{"__type__": "ndarray", "data": [1, 2], "dtype": "S999999999"}'""",
        """'safe:{"__type__": "ndarray", "data": [1], "dtype": "O"}'""",
        "''",
    ]
    for value in strange:
        with pytest.raises(AgentError, match="cannot be read"):
            answer(executor, value)
    assert not (tmp_path / "ran").exists()


def test_image_bomb(executor: AgentCubeExecutor) -> None:
    """An image of a few kilobytes that would take gigabytes is not opened, as an answer or as a result."""
    make = (
        "import base64, struct, zlib\n"
        "chunk = lambda k, d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))\n"
        "head = chunk(b'IHDR', struct.pack('>IIBBBBB', 50000, 50000, 8, 2, 0, 0, 0))\n"
        "png = b'\\x89PNG\\r\\n\\x1a\\n' + head + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')\n"
    )
    executor(make)
    data = """'safe:{"__type__": "PIL.Image", "data": "' + base64.b64encode(png).decode() + '"}'"""
    with pytest.raises(AgentError, match="cannot be read"):
        answer(executor, data)
    with pytest.raises(AgentError, match="image cannot be shown"):
        executor("from IPython.display import Image; Image(png)")


def test_image_result(executor: AgentCubeExecutor) -> None:
    """An image that is the last value is an image here."""
    shown = executor("import PIL.Image; PIL.Image.new('RGB', (3, 2))").output
    assert shown.size == (3, 2)
    executor.send_tools({"final_answer": FinalAnswerTool()})
    assert executor("final_answer(PIL.Image.new('RGB', (5, 4)))").output.size == (5, 4)


def test_managed_agents_are_refused(executor: AgentCubeExecutor) -> None:
    """An agent that manages others cannot have its code in a sandbox, and is told so at once."""
    managed = agent_with(executor, Scripted())
    managed.name, managed.description = "helper", "helps"
    agent = CodeAgent(
        tools=[], model=Scripted(), executor=executor, managed_agents=[managed], verbosity_level=0
    )
    with pytest.raises(ConfigurationError, match="helper"):
        agent.run("task")


def test_wrong_arguments(configured: dict[str, str]) -> None:
    """What cannot work is refused when the executor is made."""
    with pytest.raises(ConfigurationError, match="timeout"):
        AgentCubeExecutor(timeout=0)
    with pytest.raises(ConfigurationError, match="Sandbox"):
        AgentCubeExecutor(sandbox="abc")  # type: ignore[arg-type]


async def test_runs_at_once(configured: dict[str, str]) -> None:
    """Agents that wait do so at the same time, more of them than the machine has processors."""
    agents = [
        agent_with(AgentCubeExecutor(), Scripted(f"x = {n}", "final_answer(x)", thinking=0.5))
        for n in range(4)
    ]
    try:
        for agent in agents:
            await asyncio.to_thread(agent.python_executor, "1")
        begun = time.monotonic()
        assert await asyncio.gather(*(arun(agent, "task") for agent in agents)) == [0, 1, 2, 3]
        assert time.monotonic() - begun < 4 * 2 * 0.5
    finally:
        for agent in agents:
            await asyncio.to_thread(agent.cleanup)


async def test_misuse_is_detected(executor: AgentCubeExecutor) -> None:
    """One agent runs once at a time, and one sandbox serves one agent at a time."""
    agent = agent_with(executor, Scripted("import time; time.sleep(1)"))
    other = agent_with(executor, Scripted())
    run = asyncio.create_task(arun(agent, "task"))
    await asyncio.sleep(0)
    with pytest.raises(ClientStateError, match="running already"):
        await arun(agent, "task")
    with pytest.raises(ClientStateError, match="executor of its own"):
        await arun(other, "task")
    with pytest.raises(ConfigurationError, match="stream"):
        await arun(other, "task", stream=True)
    assert await run == "no more"
    assert await arun(other, "task") == "no more"


async def test_cancelled_run(executor: AgentCubeExecutor) -> None:
    """A cancelled run ends its code within moments, and agent and sandbox can be used again."""
    await asyncio.to_thread(executor, "x = 7")
    model = Scripted("open('begun', 'w').close(); import time; time.sleep(60)")
    run = asyncio.create_task(arun(agent_with(executor, model), "task"))
    async with AsyncCodeInterpreterClient(session_id=executor.sandbox.session_id) as watcher:
        while (await watcher.execute_command_result(["test", "-e", "begun"])).exit_code != 0:
            assert not run.done()
    begun = time.monotonic()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert time.monotonic() - begun < 5
    assert (await asyncio.to_thread(executor, "x")).output == "7"


async def test_example(configured: dict[str, str]) -> None:
    """The example prints what its agents find."""
    assert await output_of("smolagents_agents.py", configured) == "[9, 18, 27]\n"


ABANDONED = """
import os, signal, sys
from agentcube_kernel.integrations.smolagents import AgentCubeExecutor

executor = AgentCubeExecutor()
executor("x = 1")
print(executor.sandbox.session_id, flush=True)
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
async def test_nothing_outlives_the_process(
    end: str, configured: dict[str, str], needs_sessions: None
) -> None:
    """A sandbox that nobody has cleaned up is deleted after its process, however that ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ABANDONED, end, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    session = output.decode().strip()
    assert session
    async with AsyncCodeInterpreterClient(session_id=session) as client:
        async with asyncio.timeout(30):
            while True:
                try:
                    await client.health()
                except SessionNotFoundError:
                    break
                await asyncio.sleep(0.2)
