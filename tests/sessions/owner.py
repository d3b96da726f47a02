"""A stand-in for a kernel: it owns a session, and waits to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.sessions.creation import SessionNotes
from agentcube_kernel.sessions.keeper import Keeper
from agentcube_kernel.sessions.ledger import Ledger, SessionRecord
from agentcube_kernel.sessions.reaper_address import ReaperAddress, state_path
from agentcube_kernel.wire.control_plane import AsyncControlPlaneClient


async def make_session(keeper: Keeper, notes: SessionNotes) -> str:
    """Create a session that the reaper knows of, and leave it."""
    client = AsyncCodeInterpreterClient(keeper=keeper, notes=notes)
    await client.open()
    session_id = client.detach()
    await client.close()
    return session_id


async def make_without_reaper(notes: SessionNotes) -> str:
    """Create a session that only the ledger knows of, as after a power loss."""
    async with AsyncControlPlaneClient() as client:
        session_id = await client.create_session()
    url = os.environ["WORKLOAD_MANAGER_URL"]
    Ledger().record(SessionRecord.new(session_id, workload_manager_url=url, **notes.to_dict()))
    return session_id


def main(connection_file: str | None, keep: bool, with_reaper: bool) -> None:
    """Make the session, say its id and the reaper's pid, and wait for a line."""
    keeper = Keeper(connection_file=connection_file)
    notes = SessionNotes(connection_file=connection_file, keep=keep)
    reaper = None
    if with_reaper:
        session_id = asyncio.run(make_session(keeper, notes))
        reaper = ReaperAddress.read(state_path(keeper.ledger.path))
    else:
        session_id = asyncio.run(make_without_reaper(notes))
    sys.stdout.write(json.dumps([session_id, None if reaper is None else reaper.pid]) + "\n")
    sys.stdout.flush()
    command = sys.stdin.readline().strip()
    if command:
        keeper.close(takeover=command == "takeover")


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    main(order["connection_file"], order["keep"], order["with_reaper"])
