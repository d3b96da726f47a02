"""Clearing away what calls leave behind in a sandbox: commands that nobody waits for, and temporary files.

AgentCube cannot cancel: a request that is hung up on leaves its command running. So a command that can be stopped
carries an id in its environment, which all its descendants inherit, and stopping it is a second command that ends
every process with that id.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import AgentCubeError
from ..wire.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..wire.data_plane import DataPlane

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


class Housekeeper:
    """Stops abandoned commands and removes temporary files of one session, in tasks that its owner closes.

    It has a connection pool of its own, so that its commands never queue behind the calls they must end.
    """

    def __init__(self, wire: DataPlane) -> None:
        self._wire = wire
        self._separate: DataPlane | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, command: list[str]) -> None:
        """Run a command that may be repeated, for at most ten seconds each time.

        Raises:
            ExchangeError: the sandbox could not be asked.
        """
        if self._separate is None:
            self._separate = self._wire.separate(max_connections=4)
        wire = self._separate
        await RetryPolicy.IDEMPOTENT.call(lambda: wire.execute(command, timeout=10.0))

    async def stop_now(self, execution_id: str, *leftovers: str) -> None:
        """End every process with the id, and remove files that the command may have left.

        Raises:
            ExchangeError: the sandbox could not be asked.
        """
        await self.run(["sh", "-c", _SCRIPT, "sh", execution_id, *leftovers])

    def stop_soon(
        self, execution_id: str, call: asyncio.Future[Any] | None, *leftovers: str
    ) -> asyncio.Task[None]:
        """Start stopping a command, and repeat it until its abandoned `call` has ended, for about 16 s at most."""
        return self._begin(self._stop(execution_id, call, leftovers))

    async def remove(self, *paths: str) -> None:
        """Remove temporary files from the workspace, waiting up to five seconds.

        A failure is logged and not raised; a cancelled call does not stop the removal.
        """
        names = [name for path in paths for name in (f"./{path}", f"./{path}.d")]
        await asyncio.wait({self._begin(self._quietly(["rm", "-rf", "--", *names]))}, timeout=5.0)

    async def aclose(self, *, patience: float = 3.0) -> None:
        """Wait up to `patience` seconds for unfinished work, cancel the rest and close the connections. Idempotent."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=patience)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._separate is not None:
            await self._separate.aclose()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _quietly(self, command: list[str]) -> None:
        try:
            await self.run(command)
        except AgentCubeError as error:
            logger.debug("clearing away failed: %s", error)

    async def _stop(
        self, execution_id: str, call: asyncio.Future[Any] | None, leftovers: tuple[str, ...]
    ) -> None:
        for delay in _DELAYS:
            try:
                await self.stop_now(execution_id, *leftovers)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTools:
    """What commands, files and folders of one session are made with."""

    wire: DataPlane
    housekeeper: Housekeeper
