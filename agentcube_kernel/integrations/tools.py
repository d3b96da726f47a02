"""A sandbox as plain functions, which every agent framework can use as tools.

The functions have annotations and docstrings that frameworks make schemas of, and never raise for what an agent did:
each answers a dictionary with `ok` and `error`. This module needs no framework. Annotations are evaluated on purpose,
since some frameworks read them as they are.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, SupportsIndex

from ..arguments import check_timeout
from ..errors import ArgumentTypeError, ConfigurationError
from ..sandbox import AsyncSandbox
from ..sync_sandbox import Sandbox
from . import tool_answers

Tool = Callable[..., dict[str, Any]]
AsyncTool = Callable[..., Awaitable[dict[str, Any]]]

DEFAULT_TIMEOUT = 120.0


class ToolList(list[Any]):
    """A list of tools that refuses a second one of the same name, of which frameworks would call only one."""

    def __add__(self, other: list[Any]) -> "ToolList":
        return ToolList([*self, *checked_names(other, known=self)])

    def __radd__(self, other: list[Any]) -> "ToolList":
        return ToolList([*other, *checked_names(self, known=other)])

    def __iadd__(self, other: Iterable[Any]) -> "ToolList":
        self.extend(other)
        return self

    def extend(self, other: Iterable[Any]) -> None:
        """Add tools.

        Raises:
            ConfigurationError: a name exists twice; nothing was added.
        """
        super().extend(checked_names(other, known=self))

    def append(self, tool: Any) -> None:
        """Add a tool. Raises like `extend`."""
        self.extend([tool])

    def insert(self, index: SupportsIndex, tool: Any) -> None:
        """Add a tool at a place. Raises like `extend`."""
        super().insert(index, *checked_names([tool], known=self))


def checked_names(tools: Iterable[Any], *, known: Iterable[Any] = ()) -> list[Any]:
    """The tools, whose names differ from each other and from those that are known.

    Raises:
        ConfigurationError: a name exists twice.
    """
    names = {name_of(tool) for tool in known}
    checked = []
    for tool in tools:
        name = name_of(tool)
        if name in names:
            raise ConfigurationError(
                f"There are two tools named {name!r}, and an agent could call only one of them. Give one sandbox's "
                'tools another prefix, for example sandbox_tools(sandbox, prefix="second_").',
                name="prefix",
            )
        names.add(name)
        checked.append(tool)
    return checked


def name_of(tool: Any) -> str:
    """What a framework calls a tool: its `name` if it has one, else the name of the function."""
    name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
    return name if isinstance(name, str) else repr(tool)


def sandbox_tools(sandbox: Sandbox, *, timeout: float = DEFAULT_TIMEOUT, prefix: str = "") -> list[Tool]:
    """`run_python`, `run_shell`, `read_file` and `write_file` on a sandbox, as functions.

    The sandbox remains the caller's, who stops it. The first call opens it.

    Args:
        timeout: seconds that one cell or command may take; then it is interrupted, and the answer says so.
        prefix: put before the names, for an agent that has several sandboxes.

    Raises:
        ConfigurationError: a wrong `timeout` or `prefix`, or no `Sandbox`.
    """
    if not isinstance(sandbox, Sandbox):
        raise ArgumentTypeError(
            f"sandbox must be a Sandbox, not {type(sandbox).__name__}; asandbox_tools takes an AsyncSandbox.",
            name="sandbox",
        )
    seconds = check_timeout(timeout, default=DEFAULT_TIMEOUT)

    def run_python(code: str) -> dict[str, Any]:
        return sandbox._run(lambda core: tool_answers.run_python(core, code, seconds))

    def run_shell(command: str) -> dict[str, Any]:
        return sandbox._run(lambda core: tool_answers.run_shell(core, command, seconds))

    def read_file(path: str) -> dict[str, Any]:
        return sandbox._run(lambda core: tool_answers.read_file(core, path))

    def write_file(path: str, content: str) -> dict[str, Any]:
        return sandbox._run(lambda core: tool_answers.write_file(core, path, content))

    return ToolList(_named([run_python, run_shell, read_file, write_file], prefix))


def asandbox_tools(
    sandbox: AsyncSandbox, *, timeout: float = DEFAULT_TIMEOUT, prefix: str = ""
) -> list[AsyncTool]:
    """As `sandbox_tools`, as coroutine functions on an `AsyncSandbox`.

    A cancelled call interrupts its cell, or stops its command.
    """
    if not isinstance(sandbox, AsyncSandbox):
        raise ArgumentTypeError(
            f"sandbox must be an AsyncSandbox, not {type(sandbox).__name__}; sandbox_tools takes a Sandbox.",
            name="sandbox",
        )
    seconds = check_timeout(timeout, default=DEFAULT_TIMEOUT)

    async def run_python(code: str) -> dict[str, Any]:
        return await tool_answers.run_python(sandbox, code, seconds)

    async def run_shell(command: str) -> dict[str, Any]:
        return await tool_answers.run_shell(sandbox, command, seconds)

    async def read_file(path: str) -> dict[str, Any]:
        return await tool_answers.read_file(sandbox, path)

    async def write_file(path: str, content: str) -> dict[str, Any]:
        return await tool_answers.write_file(sandbox, path, content)

    return ToolList(_named([run_python, run_shell, read_file, write_file], prefix))


_DESCRIPTIONS = {
    "run_python": """Run Python code in a sandbox. Variables, imports and files stay for later calls.

    The value of the last expression is the result; plots and other displays are listed by kind. IPython's `!command`
    and top-level `await` work.

    Args:
        code: The Python code to run.

    Returns:
        A dictionary: `ok`, `stdout`, `stderr`, `result` (the last value as text), `displays`, `error` (the traceback).
    """,
    "run_shell": """Run a shell command in the sandbox's working folder.

    Each call is a new shell: `cd` and variables do not stay, files do.

    Args:
        command: The command line, with pipes and redirections if needed.

    Returns:
        A dictionary: `ok`, `stdout`, `stderr`, `exit_code`, `error`.
    """,
    "read_file": """Read a text file of the sandbox.

    Args:
        path: Where the file is; a relative path counts from the sandbox's working folder.

    Returns:
        A dictionary: `ok`, `content`, `truncated` (true if the file goes on), `error`.
    """,
    "write_file": """Write a text file in the sandbox. It is replaced if it exists; missing folders are created.

    Args:
        path: Where to write; a relative path counts from the sandbox's working folder.
        content: The whole text of the file.

    Returns:
        A dictionary: `ok`, `bytes`, `error`.
    """,
}


def _named(functions: list[Any], prefix: str) -> list[Any]:
    if not f"{prefix}run".isidentifier() or not f"{prefix}".isascii():
        raise ConfigurationError(
            f"prefix must consist of letters, digits and underscores, not {prefix!r}.", name="prefix"
        )
    for function in functions:
        function.__doc__ = _DESCRIPTIONS[function.__name__]
        function.__name__ = function.__qualname__ = f"{prefix}{function.__name__}"
    return functions
