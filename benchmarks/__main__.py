"""`python -m benchmarks`: print a table of ratios."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.measures import MEASURES, Bench, Rows
from benchmarks.result import Skipped
from tests.endpoints import endpoint_from, start_embedded


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Fewer samples: a look, not a measurement.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--check", is_flag=True, help="End with status 1 when a target is missed.")
def main(*, names: tuple[str, ...], quick: bool, as_json: bool, check: bool) -> None:
    """Measure the kernel and its parts, each beside a baseline of the same run.

    On the embedded gateway, or on the AgentCube that ROUTER_URL and WORKLOAD_MANAGER_URL, or AGENTCUBE_PICOD_URL,
    name. NAME is one of kernel, channel, cells, latency, startup, output, idle; by default all of them.
    """
    if unknown := set(names) - set(MEASURES):
        raise click.UsageError(f"There is no measurement {', '.join(sorted(unknown))}.")
    rows: Rows = []
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        given = endpoint_from(os.environ)
        endpoint = given or stack.enter_context(start_embedded(Path(home)))
        bench = Bench(endpoint=endpoint, effort=0.1 if quick else 1.0)
        for name in names or MEASURES:
            with console.status(f"{name} ..."):
                rows += MEASURES[name](bench)
    if as_json:
        click.echo(
            json.dumps(
                {"endpoint": endpoint.kind, "rows": [dataclasses.asdict(row) for row in rows]}, indent=2
            )
        )
    else:
        console = Console()
        # What is not a terminal counts as 80 columns wide, in which a table is hard to read.
        console.width = max(console.width, 120)
        console.print(_table(rows, endpoint.kind))
    missed = [row.name for row in rows if not isinstance(row, Skipped) and row.met is False]
    sys.exit(1 if check and missed else 0)


def _table(rows: Rows, kind: str) -> Table:
    table = Table(title=f"AgentCube Remote on {kind}", title_justify="left")
    for heading in ("measurement", "ours", "baseline", "ratio", "target", ""):
        table.add_column(heading, justify="right" if heading == "ratio" else "left")
    for row in rows:
        if isinstance(row, Skipped):
            table.add_row(row.name, f"skipped: {row.reason}", style="dim")
            continue
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[row.met]
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, row.ours, row.baseline, ratio, row.target, verdict)
    return table


if __name__ == "__main__":
    main()
