"""Commands that tell: stats, config, trust, help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..channel.trust import Trust
from ..config import Credentials
from ..text import duration, size
from .command import COMMANDS, Context, argument, command, find_command
from .render import Answer, Id, Line, Pairs

if TYPE_CHECKING:
    import argparse

    from .render import Value


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Stats(Pairs):
    """What a sandbox uses. Sizes are in bytes, `cpu` in percent of one processor."""

    name: str
    session_id: str | None
    cells: int
    cpu: float | None
    memory: int | None
    memory_total: int | None
    memory_used: int | None
    processors: int | None
    age: float | None

    def _pairs(self) -> list[tuple[str, Value]]:
        pairs: list[tuple[str, Value]] = [
            ("sandbox", self.name),
            ("session", Id(self.session_id or "none yet")),
            ("last cell", f"In[{self.cells}]" if self.cells else "none yet"),
        ]
        if self.age is not None:
            pairs.append(("known for", duration(self.age)))
        if self.memory is not None:
            pairs.append(("memory of the interpreter", size(self.memory)))
        if self.memory_used is not None and self.memory_total is not None:
            pairs.append(("memory of the sandbox", f"{size(self.memory_used)} of {size(self.memory_total)}"))
        if self.cpu is not None:
            pairs.append(("processor", f"{self.cpu:.0f} % of {self.processors or '?'}"))
        return pairs


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Configuration(Pairs):
    """The settings in force, and where each came from. Credentials are only named."""

    settings: dict[str, tuple[str, str]]

    def _pairs(self) -> list[tuple[str, Value]]:
        return [(name, f"{value}  ({origin})") for name, (value, origin) in self.settings.items()]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Help(Answer):
    """A help text."""

    text: str

    def _text(self) -> str:
        return self.text

    def _html(self) -> str:
        import html

        return f"<pre>{html.escape(self.text)}</pre>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrustSaid(Line):
    """What a sandbox's output may do in the user's front end."""

    name: str
    trust: Trust

    def _line(self) -> list[Value]:
        if self.trust is Trust.ON:
            return [f"Sandbox {self.name} is trusted: its HTML, scripts and widgets are shown as they come."]
        return [
            f"Sandbox {self.name} is not trusted: of its output only text, images and cleaned HTML are shown, and no "
            "scripts, vector graphics or widgets."
        ]


@command("trust")
@argument(
    "value", nargs="?", choices=tuple(level.value for level in Trust), help="default: only say how it is"
)
@argument("--in", dest="sandbox", metavar="NAME", help="a sandbox's name; default the current one")
async def trust(context: Context, args: argparse.Namespace) -> Answer:
    """Say or set whether a sandbox's output may run scripts and widgets in your browser.

    It holds for cells that run from now on. Whoever controls what runs in a sandbox controls its output: switch it
    off for sandboxes that run code of strangers, for example an agent's.
    """
    entry = await context.default(args.sandbox)
    if args.value is not None:
        entry.trust = Trust(args.value)
    return TrustSaid(name=entry.name, trust=entry.trust)


@command("stats", completes="sandbox")
@argument("name", nargs="?", metavar="NAME", help="a sandbox's name; default the current one")
async def stats(context: Context, args: argparse.Namespace) -> Answer:
    """Show what a sandbox uses: processor, memory, cells run."""
    import time

    entry = await context.default(args.name)
    async with context.progress("Asking the sandbox") as progress:
        usage: dict[str, Any] = await (await entry.open(progress.step)).usage()
    memory = usage.get("host_virtual_memory")
    memory = memory if isinstance(memory, dict) else {}
    return Stats(
        name=entry.name,
        session_id=entry.session_id,
        cells=entry.cells,
        cpu=_number(usage.get("kernel_cpu")),
        memory=_whole(usage.get("kernel_memory")),
        memory_total=_whole(memory.get("total")),
        memory_used=_whole(memory.get("used")),
        processors=_whole(usage.get("cpu_count")),
        age=None if entry.created is None else time.time() - entry.created,
    )


@command("config")
async def config(context: Context, args: argparse.Namespace) -> Answer:
    """Show which AgentCube is used, with which settings, and where each setting came from."""
    settings = context.registry.settings
    found: dict[str, tuple[str, str]] = {}
    if settings.uses_embedded_gateway:
        found["AgentCube"] = (
            "the embedded gateway on this machine, for development",
            "nothing else is configured",
        )
    for row, value, origin in settings.in_force():
        found[row.name] = (value, origin)
    if settings.uses_embedded_gateway:
        found["credential"] = ("the gateway's own", "made by the gateway")
    elif settings.credentials == Credentials():
        file = settings.credentials.service_account_file
        found["credential"] = (f"the pod's service account, if {file} is there", "default")
    found["ledger"] = (str(context.registry.keeper.ledger.path), "Jupyter's data directory")
    return Configuration(settings=found)


@command("help", completes="command")
@argument("topic", nargs="?", metavar="COMMAND", help="a command's name")
async def help_(context: Context, args: argparse.Namespace) -> Answer:
    """Show all commands, or how one is used."""
    if args.topic is not None:
        return Help(text=cell_help() if args.topic == "cell" else find_command(args.topic).help())
    width = max(len(name) for name in COMMANDS) + 2
    lines = ["%sandbox COMMAND ...      `%sandbox help COMMAND` tells more", ""]
    lines += [f"  {name or '(nothing)':<{width + 5}}{COMMANDS[name].summary}" for name in COMMANDS]
    lines += ["", cell_help()]
    return Help(text="\n".join(lines))


def cell_help() -> str:
    """How `%%sandbox` is used."""
    from .cell_magic import CELL

    return CELL.help().replace("Usage: %sandbox cell", "Usage: %%sandbox", 1)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
