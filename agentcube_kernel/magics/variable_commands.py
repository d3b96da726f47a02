"""Variables between plain cells and sandboxes: push and pull."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..text import size
from .command import Context, argument, command
from .render import Line
from .settable import check_settable
from .usage import UsageError
from .variables import SandboxVariables, send

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from .render import Answer, Value

PICKLE_WARNING = (
    "Warning: --pickle reads what the sandbox sent with pickle. Whoever controls the sandbox can thereby run programs "
    "here as you. Use it only with sandboxes whose code you trust."
)

_PICKLE = argument("--pickle", action="store_true", help="send what has no safe format as a pickle")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sent(Line):
    """Variables that were sent."""

    names: tuple[str, ...]
    source: str
    target: str
    size: int
    pickled: tuple[str, ...] = ()

    def _line(self) -> list[Value]:
        pickled = f" As pickle: {', '.join(self.pickled)}." if self.pickled else ""
        return [f"{', '.join(self.names)}: {self.source} → {self.target} ({size(self.size)}).{pickled}"]


@command("push", completes="variable")
@argument(
    "names", nargs="+", metavar="VAR", help="variables of the notebook; VAR:NEW gives another name there"
)
@argument("--to", action="append", metavar="NAME", help="a sandbox; may be repeated; default the current one")
@_PICKLE
async def push(context: Context, args: argparse.Namespace) -> Answer:
    """Copy variables of the notebook into a sandbox.

    Plain data, NumPy arrays and pandas frames travel in formats that carry no code. All are sent or none.
    """
    names = _names(args.names)
    source = context.variables
    entries = [await context.default(name) for name in args.to or [None]]
    async with context.progress(f"Pushing {', '.join(names)}") as progress:
        targets = [SandboxVariables(entry, progress.step) for entry in entries]
        others = [target for target in targets if not _same(source, target)]
        if not others and all(old == new for old, new in names.items()):
            await targets[0].check(names)
            return _nowhere(names, targets[0])
        done = await send(source, others or targets, names, pickle=args.pickle, progress=progress.bytes)
    where = ", ".join(target.title for target in targets)
    return Sent(
        names=tuple(names.values()), source=source.title, target=where, size=done.size, pickled=done.pickled
    )


@command("pull", completes="remote-variable")
@argument("names", nargs="+", metavar="VAR", help="variables of the sandbox; VAR:NEW gives another name here")
@argument("--from", dest="source", metavar="NAME", help="a sandbox; default the current one")
@_PICKLE
async def pull(context: Context, args: argparse.Namespace) -> Answer:
    """Copy variables of a sandbox into the notebook.

    Plain data, NumPy arrays and pandas frames travel in formats that carry no code. All are sent or none.
    """
    names = _names(args.names)
    check_settable(names.values())
    target = context.variables
    entry = await context.default(args.source)
    if args.pickle and not isinstance(target, SandboxVariables):
        context.note(PICKLE_WARNING)
    async with context.progress(f"Pulling {', '.join(names)}") as progress:
        source = SandboxVariables(entry, progress.step)
        if _same(target, source) and all(old == new for old, new in names.items()):
            await source.check(names)
            return _nowhere(names, source)
        done = await send(source, [target], names, pickle=args.pickle, progress=progress.bytes)
    return Sent(
        names=tuple(names.values()),
        source=source.title,
        target=target.title,
        size=done.size,
        pickled=done.pickled,
    )


def _nowhere(names: Iterable[str], where: SandboxVariables) -> Sent:
    return Sent(names=tuple(names), source=where.title, target="itself, where plain cells run", size=0)


def _same(one: object, other: SandboxVariables) -> bool:
    return isinstance(one, SandboxVariables) and one.entry is other.entry


def _names(words: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for word in ",".join(words).split(","):
        if not word:
            continue
        old, colon, new = word.partition(":")
        new = new if colon else old
        if not old.isidentifier() or not new.isidentifier():
            raise UsageError(f"{word!r} is not the name of a variable; nothing was sent.")
        names[old] = new
    if len(set(names.values())) != len(names):
        raise UsageError("Two variables would get the same name; nothing was sent.")
    return names
