"""A stand-in for a kernel: it makes a session, writes it down, starts a reaper, and waits to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from agentcube_kernel.sessions import reaper
from agentcube_kernel.sessions.ledger import Ledger, SessionRecord
from agentcube_kernel.wire.control_plane import AsyncControlPlaneClient


async def make_session() -> str:
    """Create a session at the environment's WorkloadManager."""
    async with AsyncControlPlaneClient() as client:
        return await client.create_session()


def main(connection_file: str | None, keep: bool, with_reaper: bool) -> None:
    """Make the session, say its id and the reaper's pid, and wait for a line."""
    session_id = asyncio.run(make_session())
    Ledger().record(
        SessionRecord.new(
            session_id,
            workload_manager_url=os.environ["WORKLOAD_MANAGER_URL"],
            connection_file=connection_file,
            keep=keep,
        )
    )
    handle = reaper.start(connection_file=connection_file) if with_reaper else None
    sys.stdout.write(json.dumps([session_id, None if handle is None else handle.pid]) + "\n")
    sys.stdout.flush()
    command = sys.stdin.readline().strip()
    if handle is not None and command:
        handle.close(takeover=command == "takeover")


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    main(order["connection_file"], order["keep"], order["with_reaper"])
