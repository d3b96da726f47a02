"""`agentcube-kernel doctor`: try every step from the configuration to a cell's answer, and say what to do."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import click
from rich.console import Console
from rich.text import Text

from ..text import harmless
from .checkup import Checkup, Status, Step

STYLES = {Status.OK: "green", Status.NOTE: "yellow", Status.FAILED: "bold red", Status.SKIPPED: "dim"}
STATUS_WIDTH = max(len(status.value) for status in Status) + 2
NAME_WIDTH = 14


@click.command()
@click.option("--kernel", metavar="NAME", help="Use the settings written into this kernelspec, too.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=150.0, show_default=True, help="Seconds per step."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def doctor(*, kernel: str | None, timeout: float, as_json: bool) -> None:
    """Try every step from the configuration to a cell's answer.

    Creates a session, runs cells in it and deletes it again. Ends with status 0 when every step works and with 1
    when one failed; the message says what to do.
    """
    environ = {**os.environ, **(_settings_of(kernel) if kernel else {})}
    if as_json:
        checkup = Checkup(environ=environ, timeout=timeout)
        _run(checkup)
        click.echo(
            json.dumps({"ok": checkup.ok, "steps": [_plain(step) for step in checkup.steps]}, indent=2)
        )
    else:
        console = Console(highlight=False)
        with console.status("") as progress:
            checkup = Checkup(
                environ=environ,
                timeout=timeout,
                on_start=lambda name: progress.update(f"{name} ..."),
                on_step=lambda step: console.print(_line(step), soft_wrap=True),
                on_notice=lambda text: progress.update(harmless(text, lines=True)),
            )
            _run(checkup)
        console.print("Everything works." if checkup.ok else "Not everything works; see above.", style="bold")
    sys.exit(0 if checkup.ok else 1)


def _run(checkup: Checkup) -> None:
    try:
        asyncio.run(checkup.run())
    except KeyboardInterrupt:
        raise click.Abort from None


def _settings_of(kernel: str) -> dict[str, str]:
    """The environment variables of a kernelspec."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec(kernel)
    except NoSuchKernel:
        known = ", ".join(sorted(KernelSpecManager().find_kernel_specs()))
        raise click.BadParameter(f"Jupyter knows no kernel {kernel!r}; it knows {known}.") from None
    return dict(spec.env)


def _plain(step: Step) -> dict[str, object]:
    return {
        "name": step.name,
        "status": step.status.value,
        "detail": step.detail,
        "seconds": round(step.seconds, 3),
    }


def _line(step: Step) -> Text:
    """One step for a terminal; what a server or a sandbox said may be in it, so control characters are not."""
    first, *more = harmless(step.detail, lines=True).splitlines() or [""]
    took = f"  [{step.seconds:.1f} s]" if step.seconds >= 0.1 else ""
    indent = " " * (STATUS_WIDTH + NAME_WIDTH)
    return Text.assemble(
        (step.status.value.ljust(STATUS_WIDTH), STYLES[step.status]),
        (step.name.ljust(NAME_WIDTH), "bold"),
        first,
        (took, "dim"),
        *(f"\n{indent}{line}" for line in more),
    )
