"""`agentcube-kernel mcp`: a sandbox for an agent's host, by the Model Context Protocol."""

from __future__ import annotations

import asyncio

import click


@click.command()
@click.option("--session-id", help="Use this session, and leave it running at the end.")
@click.option(
    "--timeout",
    default=120.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that a call may take if the agent does not say.",
)
def mcp(session_id: str | None, timeout: float) -> None:
    """Serve a sandbox on standard input and output, as hosts of agents start such servers.

    The sandbox is created by the first call, keeps variables and files, and is stopped when the host hangs up.
    """
    try:
        from ..integrations.mcp import serve_stdio
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    asyncio.run(serve_stdio(session_id=session_id, timeout=timeout))
