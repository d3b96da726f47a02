"""smolagents' agents with their code in a sandbox: state, images, time limits and an interrupt, without Docker.

::

    with CodeAgent(tools=[], model=model, executor=AgentCubeExecutor()) as agent:
        agent.run("…")
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from ..arguments import check_timeout
from ..channel.cell_result import CellResult
from ..errors import AgentCubeError, ArgumentTypeError, CellTimeoutError, ConfigurationError
from ..sessions.keeper import Keeper
from ..sync_sandbox import Sandbox
from .final_answers import PREFIX, UnsafeAnswerError, check_answer, opened_image
from .missing import missing_framework
from .own_sandbox import own_sandbox
from .plain_text import failure_text, plain, shortened

try:
    from smolagents import Tool
    from smolagents.local_python_executor import CodeOutput
    from smolagents.monitoring import AgentLogger, LogLevel
    from smolagents.remote_executors import RemotePythonExecutor
    from smolagents.tools import get_tools_definition_code
    from smolagents.utils import AgentError
except ImportError as error:
    raise missing_framework("smolagents", "smolagents") from error

from .smolagents_runs import arun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..sandbox import AsyncSandbox

__all__ = ["AgentCubeExecutor", "arun"]

# CPython 3.11 fails when several threads parse large sources at once, which is how smolagents looks a tool's up.
_READING_SOURCES = threading.Lock()
_LOG_LIMIT = 50_000  # characters, as smolagents' own executor has it
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "cv2": "opencv-python", "bs4": "beautifulsoup4"}
# What is there is not installed again: pip takes a minute to find that out.
_INSTALL = """\
def _agentcube_install(wanted):
    import importlib.metadata, importlib.util, re, subprocess, sys
    def there(requirement):
        name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
        try:
            importlib.metadata.version(name)
            return name == requirement
        except importlib.metadata.PackageNotFoundError:
            return requirement.isidentifier() and importlib.util.find_spec(requirement) is not None
    missing = [requirement for requirement in wanted if not there(requirement)]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", *missing]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise ImportError("pip could not install " + ", ".join(missing) + ": " + done.stderr[-2000:])
try:
    _agentcube_install({wanted!r})
finally:
    del _agentcube_install
"""


class AgentCubeExecutor(RemotePythonExecutor):
    """Runs the code of a `CodeAgent` in a sandbox, for `CodeAgent(executor=…)`.

    Constructing does no I/O. One executor serves one agent at a time; `arun` runs several agents at once.

    Args:
        additional_imports: packages that the code may need; those that the sandbox lacks are installed first.
        logger: smolagents' logger; by default one that shows nothing.
        allow_pickle: as in smolagents. True lets the sandbox run code on this machine.
        sandbox: use this one, which remains the caller's; by default a new one, which `cleanup` stops.
        timeout: seconds that one step's code may take, after which it is interrupted; None is no limit.
    """

    def __init__(
        self,
        additional_imports: Sequence[str] = (),
        logger: Any = None,
        allow_pickle: bool = False,
        sandbox: Sandbox | None = None,
        timeout: float | None = None,
    ) -> None:
        if sandbox is not None and not isinstance(sandbox, Sandbox):
            raise ArgumentTypeError(
                f"sandbox must be a Sandbox, not {type(sandbox).__name__}.", name="sandbox"
            )
        if timeout is not None:
            check_timeout(timeout, default=1.0)
        logger = AgentLogger(level=LogLevel.OFF) if logger is None else logger
        super().__init__([_distribution(name) for name in additional_imports], logger, allow_pickle)
        self._keeper: Keeper | None = None
        if sandbox is None:
            self._keeper = Keeper()
            sandbox = own_sandbox(self._keeper)
        self.sandbox = sandbox
        self.timeout = timeout
        self.state: dict[str, Any] = {"_print_outputs": ""}
        """`_print_outputs` is what the latest code has printed, also when it failed."""
        self._busy = threading.Lock()
        self._call: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._prepared = not self.additional_imports

    def __repr__(self) -> str:
        return f"<AgentCubeExecutor on {self.sandbox!r}>"

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        """Run code and return its value, what it printed, and whether it is the final answer.

        Raises:
            AgentError: it failed, took too long or was interrupted, or the sandbox was lost; the agent reads why.
        """
        if not self._busy.acquire(blocking=False):
            raise AgentError(
                "This executor is running another agent's code. Give every agent an executor of its own.",
                self.logger,
            )
        try:
            if not self._prepared:
                self._run(_INSTALL.replace("{wanted!r}", repr(self.additional_imports)))
                self.installed_packages = list(self.additional_imports)
                self._prepared = True
            return self._output_of(self._run(code))
        finally:
            self._busy.release()

    def send_tools(self, tools: dict[str, Any]) -> None:
        """Define the tools in the sandbox.

        Raises:
            ConfigurationError: there are managed agents among them, which cannot run in a sandbox.
        """
        for name, tool in tools.items():
            if not isinstance(tool, Tool):
                raise ConfigurationError(
                    f"{name!r} is no tool but {type(tool).__name__}: agents that an agent manages cannot be sent into "
                    "a sandbox. Give this agent no managed_agents.",
                    name="tools",
                )
        with _READING_SOURCES:
            if "final_answer" in tools:
                self._patch_final_answer_with_exception(tools["final_answer"])
            wanted = {package for tool in tools.values() for package in tool.to_dict()["requirements"]}
            code = get_tools_definition_code(tools)
        missing = sorted(wanted - {"smolagents", *self.installed_packages})
        if missing:
            self.installed_packages += self.install_packages(missing)
        if code:
            self.run_code_raise_errors(code)

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        """Install what the sandbox lacks. Raises AgentError when pip fails."""
        wanted = [_distribution(name) for name in additional_imports]
        if wanted:
            self.run_code_raise_errors(_INSTALL.replace("{wanted!r}", repr(wanted)))
        return additional_imports

    def interrupt(self) -> None:
        """Interrupt the code that runs now, from any thread; its step ends with an error. Variables are kept."""
        call = self._call
        if call is not None:
            loop, task = call
            with contextlib.suppress(RuntimeError):  # the loop has ended, and so the call
                loop.call_soon_threadsafe(task.cancel)

    def cleanup(self) -> None:
        """Stop the sandbox if this executor made it. Idempotent."""
        if self._keeper is None:
            return
        try:
            self.sandbox.stop()
        except AgentCubeError as error:
            self.logger.log(str(error), level=LogLevel.ERROR)
        self._keeper.close()

    delete = cleanup

    def _run(self, code: str) -> CellResult:
        self.state["_print_outputs"] = ""

        async def run(core: AsyncSandbox) -> CellResult:
            task = asyncio.current_task()
            assert task is not None
            self._call = asyncio.get_running_loop(), task
            try:
                return await core.run_cell(code, timeout=self.timeout)
            finally:
                self._call = None

        try:
            result = self.sandbox._run(run)
        except CellTimeoutError as error:
            seen = CellResult(status="error", execution_count=0, events=error.events)
            raise self._error(self._keep_logs(seen), str(error)) from error
        except AgentCubeError as error:
            raise self._error("", str(error)) from error
        except (concurrent.futures.CancelledError, asyncio.CancelledError) as error:
            raise self._error("", "The code was interrupted. Variables are kept.") from error
        logs = self._keep_logs(result)
        if not result.ok and result.ename != self.FINAL_ANSWER_EXCEPTION:
            raise self._error(logs, f"Executing the code failed:\n{failure_text(result)}")
        return result

    def _keep_logs(self, result: CellResult) -> str:
        logs = shortened(plain(result.stdout), _LOG_LIMIT)
        self.state["_print_outputs"] = logs
        return logs

    def _error(self, logs: str, message: str) -> AgentError:
        text = shortened(message, _LOG_LIMIT)
        return AgentError(f"{logs}\n{text}" if logs else text, self.logger)

    def _output_of(self, result: CellResult) -> CodeOutput:
        logs = self.state["_print_outputs"]
        if result.ok:
            return CodeOutput(output=self._value_of(result), logs=logs, is_final_answer=False)
        encoded = result.evalue or ""
        try:
            if encoded.startswith(PREFIX):
                check_answer(encoded)
            answer = self._deserialize_final_answer(encoded, self.allow_pickle)
        except Exception as error:  # whatever a strange answer leads to is for the agent to read
            raise self._error(logs, f"The final answer cannot be read: {error}") from error
        return CodeOutput(output=answer, logs=logs, is_final_answer=True)

    def _value_of(self, result: CellResult) -> Any:
        """The last expression's value: an image, else the richest text that there is."""
        bundle = result.result
        if bundle is None:
            return None
        for mime in ("image/jpeg", "image/png"):
            if mime in bundle:
                try:
                    return opened_image(base64.b64decode(bundle[mime]))
                except (UnsafeAnswerError, ValueError) as error:
                    raise self._error(
                        self.state["_print_outputs"], f"The image cannot be shown: {error}"
                    ) from error
        return bundle.get("text/plain", next(iter(bundle.values()), None))


def _distribution(name: str) -> str:
    """What pip calls the package that an import names; requirements with versions stay as they are."""
    if name.replace(".", "").replace("_", "").isalnum():
        name = name.split(".")[0] if all(part.isidentifier() for part in name.split(".")) else name
    return _DISTRIBUTIONS.get(name, name)
