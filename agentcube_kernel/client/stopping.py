"""Stopping a command in a sandbox.

AgentCube has no call for it, and a request that is hung up on leaves its command running. So a command that can
be stopped carries an id in its environment, which all its descendants inherit, and stopping it is a second command
that ends every process with that id.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("agentcube_kernel.commands")

MARKER = "AGENTCUBE_EXECUTION_ID"

# TERM first, KILL for what is left after about a second; then the files named after the id are removed. /proc is
# how Linux shows environments, ps is for the rest.
_SCRIPT = f"""\
id=$1; shift
find_all() {{
  if [ -d /proc/self ]; then
    grep -ls "{MARKER}=$id" /proc/[0-9]*/environ 2>/dev/null | sed 's,/proc/,,; s,/environ,,'
  else
    ps axeww -o pid= -o command= 2>/dev/null | grep "{MARKER}=$id" | grep -v grep | sed 's/^ *//; s/ .*//'
  fi
}}
pids=$(find_all)
if [ -n "$pids" ]; then
  kill -TERM $pids 2>/dev/null
  for i in 1 2 3 4 5 6 7 8 9 10; do
    pids=$(find_all)
    [ -n "$pids" ] || break
    sleep 0.1
  done
  [ -z "$pids" ] || kill -KILL $pids 2>/dev/null
fi
[ $# -eq 0 ] || rm -rf -- "$@"
exit 0
"""
# A command whose request was still on its way when the first attempt ran is met by a later one.
_DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


def new_execution_id() -> str:
    """A fresh id that no other command carries."""
    return secrets.token_hex(12)


def stop_command(execution_id: str, *leftovers: str) -> list[str]:
    """The command that stops every process with the id, and removes files that it may have left."""
    return ["sh", "-c", _SCRIPT, "sh", execution_id, *leftovers]


class Stopper:
    """Stops the commands of abandoned calls, in tasks that its owner closes."""

    def __init__(self, run: Callable[[list[str]], Awaitable[object]]) -> None:
        self._run = run
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(
        self, execution_id: str, call: asyncio.Future[Any] | None, *leftovers: str
    ) -> asyncio.Task[None]:
        """Start stopping, again and again until the abandoned `call` has ended or it is hopeless."""
        task = asyncio.get_running_loop().create_task(self._stop(execution_id, call, leftovers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self, *, patience: float = 3.0) -> None:
        """Let what is being stopped be stopped, for at most `patience` seconds."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=patience)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _stop(
        self, execution_id: str, call: asyncio.Future[Any] | None, leftovers: tuple[str, ...]
    ) -> None:
        for delay in _DELAYS:
            try:
                await self._run(stop_command(execution_id, *leftovers))
            except AgentCubeError as error:
                logger.debug("stopping a command failed: %s", error)
            else:
                if call is None:
                    return
            if call is not None:
                await asyncio.wait({call}, timeout=delay)
                if call.done():
                    return
            else:
                await asyncio.sleep(delay)
        logger.warning("a command that was to be stopped may still be running in the sandbox")
