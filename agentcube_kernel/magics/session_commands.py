"""Commands about sandboxes as a whole: make, attach, use, list, give up, stop, restart, interrupt."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from ..errors import AgentCubeError, SessionNotFoundError
from ..results import Ownership
from ..sessions.kept_sessions import kept_for
from ..sessions.process_identity import Liveness, ProcessIdentity
from .command import Context, argument, assignment, command, seconds
from .session_answers import Done, SandboxTable, Several, view
from .usage import UsageError

if TYPE_CHECKING:
    import argparse

    from ..registry.entry import Entry
    from ..sessions.ledger import SessionRecord
    from .render import Answer


async def kept_before(context: Context) -> list[SessionRecord]:
    """The kept sessions of this notebook that no process uses and that are not attached here."""
    registry = context.registry
    here = {entry.session_id for entry in registry}
    known = [record for record in await registry.keeper.known() if record.session_id not in here]
    return kept_for(known, registry.notebook)


@command("")
async def status(context: Context, args: argparse.Namespace) -> Answer:
    """Show the current sandbox at a glance."""
    kept = await kept_before(context)
    if context.registry.current is None:
        return SandboxTable(sandboxes=(), kept=tuple(kept))
    return view(context.registry.current, context, kept)


@command("new")
@argument("name", nargs="?", metavar="NAME", help="a short name for it; made up when not given")
@argument("--interpreter", metavar="I", help="the CodeInterpreter to make it from")
@argument("--namespace", metavar="NS", help="the CodeInterpreter's Kubernetes namespace")
@argument(
    "--ttl",
    type=seconds,
    metavar="TIME",
    help="its longest lifetime, for example 2h; the cluster may allow less",
)
@argument("--keep", action="store_true", help="do not delete it when the notebook ends")
@argument("--keep-alive", type=seconds, metavar="TIME", help="hold it that long even when nothing is run")
@argument(
    "--env", type=assignment, action="append", metavar="K=V", help="an environment variable; may be repeated"
)
async def new(context: Context, args: argparse.Namespace) -> Answer:
    """Make a sandbox, which becomes the current one."""
    registry = context.registry
    name = registry.check_new_name(args.name)
    entry = registry.add_new(
        name,
        keep=args.keep,
        ttl=args.ttl,
        interpreter=args.interpreter,
        namespace=args.namespace,
        env=dict(args.env or ()),
    )
    try:
        async with context.progress(f"Making sandbox {name}") as progress:
            await entry.open(progress.step)
        await registry.use(entry)
    except BaseException:
        await registry.discard(entry)
        raise
    if args.keep_alive:
        entry.keep_alive(args.keep_alive)
    return view(entry, context, await kept_before(context))


@command("attach")
@argument("session_id", metavar="SESSION_ID", help="the id of any session, or the name of one that you kept")
@argument("--as", dest="name", metavar="NAME", help="a short name for it here")
@argument("--keep-alive", type=seconds, metavar="TIME", help="hold it that long even when nothing is run")
async def attach(context: Context, args: argparse.Namespace) -> Answer:
    """Use a session that exists, whoever made it. It becomes the current sandbox.

    What runs in it is not disturbed: an interpreter is started beside it by the first cell, or the one that other
    notebooks use is shared. It is never deleted from here, except with `%sandbox stop --force`; a session that you
    kept earlier on this machine is yours again.
    """
    registry = context.registry
    record = await _own_record(context, args.session_id)
    session_id = args.session_id if record is None else record.session_id
    for entry in registry:
        if entry.session_id == session_id:
            if args.name not in (None, entry.name):
                raise UsageError(
                    f"Session {session_id} is attached already, as {entry.name!r}: `%sandbox use {entry.name}`."
                )
            await registry.use(entry)
            return view(entry, context)
    wanted = args.name or (record.name if record is not None and record.name not in registry.names else None)
    entry = registry.add_new(registry.check_new_name(wanted), session_id=session_id)
    try:
        async with context.progress(f"Attaching to {session_id}") as progress:
            client = await entry.reach(progress.step)
            await client.health()
        await registry.use(entry)
    except SessionNotFoundError:
        await registry.discard(entry)
        if record is not None:
            await registry.keeper.forget(session_id)
        raise
    except BaseException:
        await registry.discard(entry)
        raise
    if record is not None and await registry.keeper.adopt(session_id):
        client.ownership = Ownership.OWNED
        entry.keep, entry.created = record.keep, record.created
    if args.keep_alive:
        entry.keep_alive(args.keep_alive)
    return view(entry, context)


async def _own_record(context: Context, word: str) -> SessionRecord | None:
    known = await context.registry.keeper.known()
    exact = [record for record in known if record.session_id == word]
    named = [record for record in known if record.name == word and record.owner.liveness() is Liveness.DEAD]
    found = exact or named
    if len(found) > 1:
        here = [record for record in found if record.notebook == context.registry.notebook]
        if len(here) != 1:
            ids = ", ".join(record.session_id for record in found)
            raise UsageError(f"Several sessions are called {word!r}; give the id of one: {ids}.")
        found = here
    return found[0] if found else None


@command("use", completes="sandbox")
@argument("name", metavar="NAME", help="a sandbox's name or session id")
@argument("--keep-alive", type=seconds, metavar="TIME", help="hold it that long even when nothing is run")
async def use(context: Context, args: argparse.Namespace) -> Answer:
    """Make another sandbox the current one."""
    entry = context.registry.find(args.name)
    await context.registry.use(entry)
    if args.keep_alive:
        await entry.reach(lambda step: None)
        entry.keep_alive(args.keep_alive)
    return view(entry, context)


@command("rename", completes="sandbox")
@argument("name", metavar="NAME", help="a sandbox's name or session id")
@argument("new", metavar="NEW", help="its name from now on")
async def rename(context: Context, args: argparse.Namespace) -> Answer:
    """Give a sandbox another name."""
    entry = context.registry.find(args.name)
    await context.registry.rename(entry, args.new)
    return view(entry, context)


@command("list")
async def list_(context: Context, args: argparse.Namespace) -> Answer:
    """List the sandboxes of this notebook, and the sessions that it kept earlier."""
    views = tuple(view(entry, context) for entry in context.registry)
    return SandboxTable(sandboxes=views, kept=tuple(await kept_before(context)))


@command("info", completes="sandbox")
@argument("name", nargs="?", metavar="NAME", help="a sandbox's name; default the current one")
async def info(context: Context, args: argparse.Namespace) -> Answer:
    """Show one sandbox, after asking whether it is still there."""
    entry = context.registry.find(args.name)
    if entry.session_id is not None:
        client = await entry.reach(lambda step: None)
        await client.health()
    return view(entry, context)


@command("detach", completes="sandbox")
@argument("name", nargs="?", metavar="NAME", help="a sandbox's name; default the current one")
async def detach(context: Context, args: argparse.Namespace) -> Answer:
    """Give a sandbox up without deleting it. What runs in it goes on; `attach` finds it again by its id or name."""
    entry = context.registry.find(args.name)
    session_id = entry.session_id
    if session_id is None or entry.sandbox is None:
        raise UsageError(f"Sandbox {entry.name!r} has no session yet; there is nothing to detach from.")
    ours = entry.ownership is Ownership.OWNED
    if ours:
        nobody = ProcessIdentity(pid=-1, started="released", host=ProcessIdentity.current().host)
        await context.registry.keeper.note(session_id, keep=True, owner=nobody, last_used=time.time())
    entry.sandbox.detach()
    await context.registry.remove(entry)
    await entry.sandbox.close()
    again = f"`%sandbox attach {entry.name if ours else session_id}` finds it again"
    return Done(
        said="Detached from",
        name=entry.name,
        session_id=session_id,
        then=f"It lives on until it idles out; {again}.",
    )


@command("stop", completes="sandbox")
@argument("name", nargs="?", metavar="NAME", help="a sandbox's name; default the current one")
@argument(
    "--all", action="store_true", help="every sandbox of this notebook; from attached ones it only detaches"
)
@argument("--force", action="store_true", help="delete also a session that somebody else made")
async def stop(context: Context, args: argparse.Namespace) -> Answer:
    """Delete a sandbox's session, with everything in it."""
    registry = context.registry
    if args.all and args.name:
        raise UsageError("%sandbox stop: give a name or --all, not both.")
    if args.all:
        done, errors = [], []
        for entry in registry:
            try:
                done.append(await _stop(context, entry, force=args.force, all_of_them=True))
            except AgentCubeError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return Several(done=tuple(done))
    return await _stop(context, registry.find(args.name), force=args.force)


async def _stop(context: Context, entry: Entry, *, force: bool, all_of_them: bool = False) -> Done:
    session_id, sandbox = entry.session_id, entry.sandbox
    if entry.ownership is Ownership.ATTACHED and not force:
        if not all_of_them:
            raise UsageError(
                f"Session {session_id} was made by somebody else, who may be using it. `%sandbox detach {entry.name}` "
                f"leaves it alone; `%sandbox stop {entry.name} --force` deletes it all the same."
            )
        assert sandbox is not None
        await context.registry.remove(entry)
        await sandbox.close()
        return Done(said="Detached from", name=entry.name, session_id=session_id)
    if sandbox is not None:
        async with context.progress(f"Stopping {entry.name}"):
            await sandbox.stop(force=force)
    if session_id is not None:
        await context.registry.keeper.forget(session_id)
    await context.registry.remove(entry)
    return Done(said="Stopped", name=entry.name, session_id=session_id)


@command("restart", completes="sandbox")
@argument("name", nargs="?", metavar="NAME", help="a sandbox's name; default the current one")
async def restart(context: Context, args: argparse.Namespace) -> Answer:
    """Start a fresh interpreter in a sandbox. Variables are gone, files stay."""
    entry = await context.default(args.name)
    async with context.progress(f"Restarting {entry.name}") as progress:
        if entry.state == "new":
            await entry.open(progress.step)
        else:
            assert entry.sandbox is not None
            await entry.sandbox.restart()
    entry.used()
    then = "Its variables are gone, its files are still there."
    return Done(said="Restarted", name=entry.name, session_id=entry.session_id, then=then)


@command("interrupt", completes="sandbox")
@argument("name", nargs="?", metavar="NAME", help="a sandbox's name; default the current one")
async def interrupt(context: Context, args: argparse.Namespace) -> Answer:
    """Interrupt what runs in a sandbox, a cell of another notebook too."""
    entry = context.registry.find(args.name)
    if entry.session_id is None:
        raise UsageError(f"Nothing runs in sandbox {entry.name!r}: it has no session yet.")
    sandbox = await entry.open(lambda step: None)
    with contextlib.suppress(TimeoutError):
        await sandbox.interrupt()
    return Done(said="Interrupted", name=entry.name, session_id=entry.session_id)
