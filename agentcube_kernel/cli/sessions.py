"""`agentcube-kernel sessions`: what this machine owns, by its ledger."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import click

from ..arguments import check_segment
from ..config import Settings
from ..errors import AgentCubeError
from ..sessions.access import Access
from ..sessions.cleanup import Deletion, Outcome, delete_sessions
from ..sessions.ledger import Ledger, SessionRecord
from ..sessions.process_identity import Liveness
from ..text import ago, duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

OUTCOMES = {
    Outcome.DELETED: "deleted",
    Outcome.GONE: "had ended already",
    Outcome.TAKEN: "left to another process that uses or deletes it",
    Outcome.FAILED: "not deleted",
}

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group()
def sessions() -> None:
    """List, stop and clean up the sessions that kernels, notebooks and clients of yours own on this machine.

    Sessions that you only attached to belong to somebody else and are not listed.
    """


@sessions.command("list")
@as_json
def list_(as_json: bool) -> None:
    """Show every owned session: its age, name and notebook, and whether its kernel still lives."""
    records = Ledger().sessions()
    if as_json:
        click.echo(json.dumps([describe(record) for record in records], indent=2))
        return
    if records:
        _print(_sessions_table(records))
    for creation in Ledger().creations():
        click.echo(
            f"Being created at {creation.server_url} for process {creation.owner.pid}, since "
            f"{duration(time.time() - creation.begun)}."
        )
    if not records:
        click.echo("No sessions.")


@sessions.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--force", is_flag=True, help="Also delete sessions that the ledger does not know.")
@as_json
def stop(ids: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Delete sessions, by id, by the beginning of an id, or by name.

    Nothing is deleted unless every ID is found. Exit status 1 when a session could not be deleted.
    """
    ledger = Ledger()
    known = ledger.sessions()
    wanted = {record.session_id: record for word in ids for record in _find(word, known, force=force)}
    report(asyncio.run(_delete(wanted.values(), ledger)), as_json=as_json)


@sessions.command()
@click.option("--kept", is_flag=True, help="Also the kept sessions whose kernel is dead.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@as_json
def prune(kept: bool, dry_run: bool, as_json: bool) -> None:
    """Delete the sessions whose kernel is dead, unless they were to be kept.

    Exit status 1 when a session could not be deleted.
    """
    ledger = Ledger()
    left = [record for record in ledger.sessions() if record.orphaned or (kept and _is_left_kept(record))]
    if dry_run:
        if as_json:
            click.echo(json.dumps([describe(record) for record in left], indent=2))
        elif left:
            _print(_sessions_table(left))
        else:
            click.echo("Nothing to clean up.")
        return
    report(asyncio.run(_delete(left, ledger)), as_json=as_json)


@sessions.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def forget(ids: tuple[str, ...]) -> None:
    """Drop sessions from the list without deleting them, for example those of an AgentCube that is gone for good.

    What still runs ends by its idle timeout. Nothing is dropped unless every ID is found.
    """
    ledger = Ledger()
    known = ledger.sessions()
    wanted = {record.session_id: record for word in ids for record in _find(word, known, force=False)}
    for session_id in wanted:
        ledger.forget(session_id)
        click.echo(f"Forgot {session_id}.")


def state(record: SessionRecord) -> str:
    """What is to be said of a session in one word: in use, kept, orphaned, or elsewhere."""
    liveness = record.owner.liveness()
    if liveness is Liveness.ALIVE:
        return "in use"
    if liveness is Liveness.UNKNOWN:
        return "elsewhere"
    return "kept" if record.keep else "orphaned"


def describe(record: SessionRecord) -> dict[str, Any]:
    """The session as JSON shows it. Times are seconds since the epoch."""
    return {
        "session_id": record.session_id,
        "name": record.name,
        "state": state(record),
        "keep": record.keep,
        "notebook": record.notebook,
        "namespace": record.namespace,
        "interpreter": record.interpreter,
        "workload_manager_url": record.workload_manager_url,
        "router_url": record.router_url,
        "created": record.created,
        "last_used": record.last_used,
        "kernel": {
            "pid": record.owner.pid,
            "host": record.owner.host,
            "alive": {Liveness.ALIVE: True, Liveness.DEAD: False}.get(record.owner.liveness()),
            "connection_file": record.connection_file,
        },
    }


def report(deletions: Sequence[Deletion], *, as_json: bool) -> None:
    """Say how deletions went; exit with status 1 if one failed."""
    failed = [deletion for deletion in deletions if not deletion.done]
    if as_json:
        told = [
            {
                "session_id": deletion.session.session_id,
                "outcome": deletion.outcome.value,
                "error": None if deletion.error is None else str(deletion.error),
            }
            for deletion in deletions
        ]
        click.echo(json.dumps(told, indent=2))
    elif not deletions:
        click.echo("Nothing to clean up.")
    else:
        for deletion in deletions:
            named = f" ({deletion.session.name})" if deletion.session.name else ""
            click.echo(f"{deletion.session.session_id}{named}: {OUTCOMES[deletion.outcome]}")
            if deletion.error is not None:
                click.echo(f"  {deletion.error}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _find(word: str, known: Sequence[SessionRecord], *, force: bool) -> list[SessionRecord]:
    exact = [record for record in known if word in (record.session_id, record.name)]
    found = exact or [record for record in known if len(word) >= 4 and record.session_id.startswith(word)]
    if len(found) == 1:
        return found
    if found:
        ids = ", ".join(record.session_id for record in found)
        raise AgentCubeError(f"{word!r} may mean any of these; give more of the id: {ids}")
    if force:
        return [_stranger(word)]
    raise AgentCubeError(
        f"No session {word!r} is owned on this machine; `agentcube-kernel sessions list` shows those that "
        "are. To delete a session that somebody else may use, give its whole id and --force.",
        session_id=word,
    )


def _stranger(session_id: str) -> SessionRecord:
    settings = Settings.load()
    url = settings.workload_manager_url
    if settings.uses_embedded_gateway:
        from ..gateway.launcher import running_gateways

        url = next((gateway.workload_manager_url for gateway in running_gateways()), None)
    return SessionRecord.new(
        check_segment(session_id, name="ID"),
        workload_manager_url=url,
        router_url=settings.router_url,
        embedded=settings.uses_embedded_gateway,
    )


async def _delete(records: Iterable[SessionRecord], ledger: Ledger) -> list[Deletion]:
    wanted = list(records)
    strangers = [
        r.session_id for r in wanted if await asyncio.to_thread(ledger.session, r.session_id) is None
    ]
    for record in wanted:
        if record.session_id in strangers:
            await asyncio.to_thread(ledger.record, record)
    try:
        access = Access.of(Settings.load())
        return await delete_sessions(wanted, ledger, [access] if access is not None else [])
    finally:
        for session_id in strangers:
            await asyncio.to_thread(ledger.forget, session_id)


def _is_left_kept(record: SessionRecord) -> bool:
    return record.keep and record.owner.liveness() is Liveness.DEAD


def _sessions_table(records: Sequence[SessionRecord]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("SESSION", no_wrap=True)
    for title in ("NAME", "STATE", "KERNEL", "AGE", "LAST USED", "NOTEBOOK"):
        table.add_column(title, overflow="fold")
    now = time.time()
    for record in records:
        alive = record.owner.liveness()
        where = "" if alive is not Liveness.UNKNOWN else f" on {record.owner.host}"
        # Text, not str: a name or path may hold what rich takes for markup.
        table.add_row(
            Text(record.session_id),
            Text(record.name or ""),
            Text(state(record)),
            Text(f"{record.owner.pid}{where} {'' if where else alive.value}".strip()),
            Text(duration(now - record.created)),
            Text(ago(record.last_used)),
            Text(record.notebook or ""),
        )
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    console = Console()
    # Ids are there to be copied, also out of a pipe or a narrow window.
    Console(width=max(console.width, 110)).print(table)
