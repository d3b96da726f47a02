"""`agentcube-kernel`: the entry point, and which module holds which command."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from ..errors import AgentCubeError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Each command's module is imported when the command is used; its one-line help is here, so that `--help`
# needs none of them.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "doctor": ("agentcube_kernel.cli.doctor", "Try every step from the configuration to a cell's answer."),
    "install": ("agentcube_kernel.cli.install", "Install a kernelspec, with AgentCube settings if wanted."),
    "mcp": (
        "agentcube_kernel.cli.mcp",
        "Serve a sandbox to an agent by the Model Context Protocol, on stdio.",
    ),
    "serve": ("agentcube_kernel.cli.serve", "Run the embedded gateway, an AgentCube for development."),
    "sessions": ("agentcube_kernel.cli.sessions", "List, stop and clean up the sessions of this machine."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported one by one, and whose expected errors end as one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what this package raises on purpose becomes a message and exit status 1."""
        try:
            return super().invoke(ctx)
        except AgentCubeError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("agentcube-kernel"), prog_name="agentcube-kernel")
def cli() -> None:
    """Run notebooks inside AgentCube sandboxes."""


def main() -> None:
    """Run the command line and exit with its status."""
    cli(prog_name="agentcube-kernel")


if __name__ == "__main__":
    main()
