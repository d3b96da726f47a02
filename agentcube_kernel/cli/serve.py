"""`agentcube-kernel serve`: the embedded gateway in the foreground."""

from __future__ import annotations

import json
import os
import sys

import click

NOTICE = (
    "AgentCube's embedded gateway: for development only, and no security boundary. "
    "Whoever has the token can run programs as you."
)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option("--json", "as_json", is_flag=True, help="Print the URLs and the token as one JSON line.")
def serve(host: str, port: int, as_json: bool) -> None:
    """Run the embedded gateway until SIGTERM or Ctrl-C, which end every sandbox in it.

    It emulates AgentCube's WorkloadManager, Router and PicoD on this machine, for development. It is no security
    boundary: sandboxes are processes of your own Python with your own rights.

    Every request must show the token, but for health, and for requests that name an existing session and show no
    credential at all: the stock agentcube-sdk sends them so. A client that has no place for a token takes it in
    the URL: http://agentcube:TOKEN@127.0.0.1:PORT.
    """
    if os.name != "posix":
        raise click.ClickException(
            "the embedded gateway runs on Linux and macOS; set ROUTER_URL to an AgentCube"
        )
    from ..gateway import server
    from ..gateway.config import GatewayConfig

    try:
        config = GatewayConfig.from_environ(os.environ, session_id_authorises=True)
    except ValueError as exc:
        raise click.ClickException(str(exc)) from exc
    try:
        listener = server.bind(host, port)
    except OSError as exc:
        raise click.ClickException(server.explain_bind(exc, host, port)) from exc

    def announce(address: server.Address) -> None:
        values = {"router_url": address.url, "workload_manager_url": address.url, "token": config.token}
        if as_json:
            click.echo(json.dumps(values))
        else:
            click.echo(f"export ROUTER_URL={address.url}")
            click.echo(f"export WORKLOAD_MANAGER_URL={address.url}")
            click.echo(f"export AGENTCUBE_TOKEN={config.token}")
        sys.stdout.flush()

    click.echo(NOTICE, err=True)
    try:
        server.serve(config, listener=listener, announce=announce)
    except (OSError, ValueError) as exc:
        raise click.ClickException(f"the gateway cannot run: {exc}") from exc


if __name__ == "__main__":
    serve()
