"""`%%sandbox`: a cell that runs in one or several named sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import SessionNotFoundError
from .cells import CellEnd, Display, NamedCell, run_everywhere
from .command import COMMANDS, Command, Context, argument, command, seconds, split
from .usage import UsageError, names_as_usage
from .variable_commands import PICKLE_WARNING
from .variables import SandboxVariables, bring_back

if TYPE_CHECKING:
    import argparse

    from ..errors import AgentCubeError
    from ..registry.entry import Entry
    from .render import Answer


@command("cell", completes="sandbox")
@argument("names", nargs="*", metavar="NAME", help="sandboxes to run in; default the current one")
@argument("--all", action="store_true", help="run in every sandbox of this notebook")
@argument(
    "--bash", action="store_true", help="the cell is a bash script; an exit code that is not 0 is an error"
)
@argument("--timeout", type=seconds, metavar="TIME", help="interrupt it after that long, for example 90s")
@argument(
    "--out", metavar="VAR", help="bring the last value back as this variable; a dict of names for several"
)
@argument("--pickle", action="store_true", help="with --out: also values that have no safe format")
async def _cell(context: Context, args: argparse.Namespace) -> Answer | None:
    """Run the cell in one or several sandboxes.

    Output of several sandboxes says whose it is. The cell fails if it fails in one of them.
    """
    raise AssertionError("run_cell_magic does this")


CELL: Command = COMMANDS.pop("cell")


async def run_cell_magic(line: str, body: str, context: Context) -> None:
    """Run what stands below `%%sandbox`.

    A cancelled call has interrupted the cell wherever it ran.

    Raises:
        UsageError: the line or the cell is wrong; nothing was run.
        RemoteCellError: the cell ended with an error, shown as in the sandbox.
        CellTimeoutError: it took too long and was interrupted.
        AgentCubeError: the sandbox could not be used.
    """
    args = CELL.parse(split(line))
    if args.names and args.names[0] in COMMANDS and args.names[0] not in context.registry.names:
        raise UsageError(
            f"`%%sandbox` runs the cell below it in sandboxes. For the command write `%sandbox {args.names[0]}`, "
            "with one %."
        )
    if not body.strip():
        raise UsageError("The cell below `%%sandbox` is empty; nothing was run.")
    if args.out is not None and not args.out.isidentifier():
        raise UsageError(f"--out needs the name of a variable, not {args.out!r}; nothing was run.")
    if args.out is not None and args.bash:
        raise UsageError("--out brings back the last value of a Python cell, and with --bash there is none.")
    await context.registry.restore()
    with names_as_usage():
        entries = await _entries(context, args)
    code = f"%%bash\n{body}" if args.bash else body
    async with context.progress("Waiting for the sandbox") as progress:
        runs = [
            NamedCell(
                entry=entry,
                code=code,
                timeout=args.timeout,
                script=args.bash,
                display=Display(context.host, entry.name, label=len(entries) > 1, step=progress.step),
                on_start=progress.quiet,
            )
            for entry in entries
        ]
        ends = await run_everywhere(runs)
    for end in ends:
        if isinstance(end.error, SessionNotFoundError) and end.error.session_id is not None:
            await context.registry.keeper.forget(end.error.session_id)
    if args.out is not None:
        await _bring_back(context, args, entries, ends)
    _raise_failures(ends)


async def _entries(context: Context, args: argparse.Namespace) -> list[Entry]:
    if args.all:
        if args.names:
            raise UsageError("%%sandbox: give names or --all, not both.")
        if not len(context.registry):
            raise UsageError("There is no sandbox yet. Make one with `%sandbox new`.")
        return list(context.registry)
    if not args.names:
        return [await context.default()]
    found = [context.registry.find(name) for name in args.names]
    return list(dict.fromkeys(found))


async def _bring_back(
    context: Context, args: argparse.Namespace, entries: list[Entry], ends: list[CellEnd]
) -> None:
    """Set the variable of --out from the cells that ended well; a cell without a last value gives None."""
    outputs = [
        (SandboxVariables(entry, lambda step: None), end.execution_count if end.has_result else None)
        for entry, end in zip(entries, ends, strict=True)
        if end.ok
    ]
    if not outputs:
        return
    if args.pickle and not isinstance(context.variables, SandboxVariables):
        context.note(PICKLE_WARNING)
    async with context.progress(f"Bringing back {args.out}") as progress:
        await bring_back(
            outputs,
            context.variables,
            args.out,
            several=len(entries) > 1,
            pickle=args.pickle,
            progress=progress.bytes,
        )


def _raise_failures(ends: list[CellEnd]) -> None:
    failed = [end for end in ends if end.error is not None]
    if not failed:
        return
    first = failed[0].error
    assert first is not None
    if len(ends) > 1:
        _say_where(first, failed, len(ends))
    raise first


def _say_where(error: AgentCubeError, failed: list[CellEnd], total: int) -> None:
    names = ", ".join(end.name for end in failed)
    lines = [f"The cell failed in {len(failed)} of {total} sandboxes: {names}."]
    for end in failed:
        render = getattr(end.error, "_render_traceback_", None)
        shown = render() if render is not None else [f"{type(end.error).__name__}: {end.error}"]
        lines += [f"[{end.name}]", *shown]
    error.traceback = lines  # type: ignore[attr-defined]
    error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
