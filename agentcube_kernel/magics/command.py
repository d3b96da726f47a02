"""What a `%sandbox` command is: a coroutine with declared arguments, found by its name."""

from __future__ import annotations

import inspect
import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core import magic_arguments
from IPython.core.error import UsageError as IPythonUsageError

from ..frontend.progress import Progress
from ..text import did_you_mean
from .usage import UsageError, names_as_usage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Mapping

    from ..frontend.host import Host
    from ..registry.entry import Entry
    from ..registry.registry import Registry
    from .render import Answer
    from .variables import Variables

    Run = Callable[["Context", argparse.Namespace], Awaitable[Answer | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a command works on: the notebook's sandboxes, and the front end of the cell that it stands in.

    `variables` are those of plain cells: this process's own in IPython, the current sandbox's in the kernel.
    """

    registry: Registry
    host: Host
    variables: Variables

    def progress(self, title: str) -> Progress:
        """Progress that shows up when the operation takes longer than a moment."""
        return Progress(self.host, title)

    def note(self, text: str) -> None:
        """Say something beside the answer."""
        self.host.publish("stream", {"name": "stderr", "text": f"{text}\n"})

    async def default(self, name: str | None = None) -> Entry:
        """The sandbox that a command is about; the first one is made when there is none and none was named."""
        return await self.registry.default() if name is None else self.registry.find(name)


@dataclass(frozen=True, slots=True)
class Command:
    """One command, with IPython's parser for its arguments."""

    name: str
    run: Run
    parser: Any
    summary: str
    options: tuple[str, ...]
    completes: str
    """What its arguments are: `sandbox`, `local`, `remote`, `variable`, `remote-variable`, `command`, or nothing."""

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Raises UsageError, which names the command."""
        try:
            parsed: argparse.Namespace = self.parser.parse_args(words)
        except IPythonUsageError as error:
            raise UsageError(f"%sandbox {self.name}: {error}. See `%sandbox help {self.name}`.") from None
        return parsed

    def help(self) -> str:
        """The full help text."""
        text: str = self.parser.format_help()
        return text.replace("::\n\n  %", "Usage: %", 1).rstrip()


COMMANDS: dict[str, Command] = {}

argument: Callable[..., Callable[[Run], Run]] = magic_arguments.argument
"""IPython's decorator that declares one argument, with a type."""


def command(name: str, *, completes: str = "") -> Callable[[Run], Run]:
    """Make a coroutine function a command; its arguments are declared with IPython's `argument` decorators."""

    def register(run: Run) -> Run:
        run.__doc__ = inspect.cleandoc(run.__doc__ or "")
        summary = run.__doc__.split("\n\n")[0].replace("\n", " ")
        if not hasattr(run, "decorators"):
            run.has_arguments = True  # type: ignore[attr-defined]
            run.decorators = []  # type: ignore[attr-defined]
        magic_arguments.magic_arguments(  # type: ignore[no-untyped-call]
            f"sandbox {name}".strip()
        )(run)
        parser = run.parser  # type: ignore[attr-defined]
        options = tuple(option for action in parser._actions for option in action.option_strings)
        COMMANDS[name] = Command(name, run, parser, summary, options, completes)
        return run

    return register


def split(line: str) -> list[str]:
    """The words of a line, as a shell would split it.

    Raises:
        UsageError: a quote does not close.
    """
    try:
        if os.name == "posix":
            return shlex.split(line)
        return [
            word[1:-1] if word[:1] in "\"'" and word[-1:] == word[:1] else word
            for word in shlex.split(line, posix=False)
        ]
    except ValueError as error:
        raise UsageError(f"The line cannot be read: {str(error).lower()}.") from None


def find_command(name: str) -> Command:
    """Raises UsageError with the nearest command for an unknown one."""
    found = COMMANDS.get(name)
    if found is None:
        hint = did_you_mean(name, COMMANDS) or " `%sandbox help` lists all commands."
        raise UsageError(f"There is no command `%sandbox {name}`.{hint}")
    return found


async def run_line(line: str, context: Context) -> Answer | None:
    """Run what follows `%sandbox`. Raises UsageError and other AgentCubeErrors."""
    words = split(line)
    name = words[0] if words else ""
    if name in ("-h", "--help"):
        name, words = "help", ["help", *words[1:]]
    found = find_command(name)
    await context.registry.restore()
    if any(word in ("-h", "--help") for word in words[1:]):
        return await COMMANDS["help"].run(context, COMMANDS["help"].parse([found.name]))
    with names_as_usage():
        return await found.run(context, found.parse(words[1:]))


_UNITS: Mapping[str, float] = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|min|m|h|d)")


def seconds(text: str) -> float:
    """A length of time such as `90`, `90s`, `30m`, `2h` or `1h30m`. For argparse: raises ValueError."""
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        value = float(text)
    else:
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(text)
        value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < value < 1e9:
        raise ValueError(text)
    return value


seconds.__name__ = "length of time (try 90s, 30m or 2h)"


def assignment(text: str) -> tuple[str, str]:
    """`K=V`. For argparse: raises ValueError."""
    key, equals, value = text.partition("=")
    if not equals or not key or not key.isprintable() or "\0" in value:
        raise ValueError(text)
    return key, value


assignment.__name__ = "setting (give NAME=VALUE)"
