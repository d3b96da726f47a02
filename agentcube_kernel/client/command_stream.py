"""The output of a long command, as it comes.

AgentCube hands out a command's output only at its end. So the command is started detached, writing to files
outside the workspace, and short calls that wait for news read on from where the last one ended. Starting twice
under one id does nothing the second time and reading is by offset, so every call may be repeated.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
import logging
import math
from collections import deque
from typing import TYPE_CHECKING

from ..arguments import check_command, check_env, check_timeout, remote_path
from ..errors import (
    AgentCubeError,
    CommandExecutionError,
    CommandTimeoutError,
    DataPlaneError,
    Delivery,
)
from ..results import Output
from ..wire.retry import RetryPolicy
from .housekeeping import MARKER, new_execution_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from ..results import CommandResult
    from .housekeeping import SessionTools

logger = logging.getLogger("agentcube_kernel.commands")

_HOLD = 15.0
_MOST = 1024 * 1024
_PATIENT = RetryPolicy.IDEMPOTENT.with_patience(60.0)

_FOLDER = 'd="${TMPDIR:-/tmp}/agentcube-$1"\n'
_START = (
    _FOLDER
    + """\
w=$2; shift 2
mkdir -p "$w" && cd "$w" || exit 73
mask=$(umask); umask 077
mkdir "$d" 2>/dev/null || { [ -d "$d" ] && exit 0; echo "cannot create $d" >&2; exit 73; }
: >"$d/out"; : >"$d/err"
umask "$mask"
if command -v setsid >/dev/null; then s=setsid; else s=nohup; fi
$s sh -c 'd=$1; shift; "$@" >"$d/out" 2>"$d/err" </dev/null; echo $? >"$d/code.new"; mv "$d/code.new" "$d/code"' \\
  sh "$d" "$@" >/dev/null 2>&1 </dev/null &
"""
)
_READ = (
    _FOLDER
    + """\
[ -d "$d" ] || { echo LOST; exit 0; }
i=0
while :; do
  code=; [ -f "$d/code" ] && read -r code <"$d/code"
  o=$(($(wc -c <"$d/out"))); e=$(($(wc -c <"$d/err")))
  [ -n "$code" ] || [ "$o" -gt "$2" ] || [ "$e" -gt "$3" ] || [ "$i" -ge "$4" ] && break
  if [ "$i" -lt 10 ]; then sleep 0.02; i=$((i + 1)); else sleep 0.1; i=$((i + 5)); fi
done
piece() { tail -c "+$(($2 + 1))" "$1" | head -c "$3" | base64 | tr -d '\\n'; }
printf 'out %s\\n' "$(piece "$d/out" "$2" "$5")"
printf 'err %s\\n' "$(piece "$d/err" "$3" "$5")"
printf 'end %s %s %s\\n' "$o" "$e" "$code"
"""
)


class CommandStream:
    """A running command's output: an asynchronous iterator of `Output`, and a context manager that stops it.

    After its end `exit_code` is set. Iterating raises `CommandTimeoutError` when the time is up; a command that
    fails by itself is no error here, `raise_for_exit` makes it one.
    """

    def __init__(
        self,
        tools: SessionTools,
        command: str | Sequence[str],
        timeout: float | None,
        *,
        env: Mapping[str, str] | None,
        working_dir: str | None,
    ) -> None:
        self._wire = tools.wire
        self._housekeeper = tools.housekeeper
        self._given = command
        self._command = check_command(command)
        self._timeout = check_timeout(timeout, default=math.inf)
        self._env = check_env(env)
        self._folder = "." if working_dir is None else remote_path(working_dir, name="working_dir")
        self._id = new_execution_id()
        self._deadline = math.inf
        self._started = False
        self._over = False
        self._ready: deque[Output] = deque()
        self._offsets = {"stdout": 0, "stderr": 0}
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in self._offsets}
        self.exit_code: int | None = None
        """The command's exit code once it has ended; more than 128 when a signal killed it."""

    def __repr__(self) -> str:
        state = (
            "not started" if not self._started else "running" if not self._over else f"exit {self.exit_code}"
        )
        return f"<CommandStream {self._command[0]!r} {state}>"

    def __aiter__(self) -> CommandStream:
        return self

    async def __anext__(self) -> Output:
        """The next piece of output, at most a megabyte.

        Raises:
            CommandTimeoutError: the command did not end in time and was stopped.
            SessionNotFoundError, ExchangeError: the sandbox is gone or cannot be reached.
            DataPlaneError: the sandbox cannot start the command or has lost it.
        """
        try:
            await self.start()
            while not self._ready and not self._over:
                await self._fetch()
        except BaseException:
            await self.aclose()
            raise
        if self._ready:
            return self._ready.popleft()
        raise StopAsyncIteration

    async def __aenter__(self) -> CommandStream:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Start the command, unless it was started already."""
        if self._started:
            return
        self._started = True
        command = ["sh", "-c", _START, "sh", self._id, f"./{self._folder}", *self._command]
        environment = {**self._env, MARKER: self._id}
        try:
            result = await RetryPolicy.IDEMPOTENT.call(lambda: self._wire.execute(command, env=environment))
        except BaseException:
            await self.aclose()
            raise
        if result.exit_code != 0:
            self._over = True
            raise self._failed(f"could not be started: {result.stderr.strip()[-300:]}")
        self._deadline = asyncio.get_running_loop().time() + self._timeout

    async def aclose(self) -> None:
        """Stop the command if it still runs, with all its descendants. Idempotent."""
        if not self._started or self._over:
            return
        self._over = True
        stopping = self._housekeeper.stop_soon(self._id, None)
        await asyncio.wait({stopping}, timeout=5.0)
        await self._tidy()

    def raise_for_exit(self) -> None:
        """Raise `CommandExecutionError` when the command ended with another exit code than 0."""
        if self.exit_code:
            raise CommandExecutionError(self.exit_code, "", self._given, session_id=self._wire.session_id)

    async def _fetch(self) -> None:
        left = self._deadline - asyncio.get_running_loop().time()
        if left <= 0:
            await self.aclose()
            raise CommandTimeoutError(self._timeout, self._given, session_id=self._wire.session_id)
        hold = max(1, int(min(_HOLD, left) / 0.02))
        offsets = [str(self._offsets["stdout"]), str(self._offsets["stderr"])]
        command = ["sh", "-c", _READ, "sh", self._id, *offsets, str(hold), str(_MOST)]
        result = await _PATIENT.call(lambda: self._wire.execute(command, timeout=_HOLD * 2))
        await self._take(result)

    async def _take(self, result: CommandResult) -> None:
        lines = result.stdout.splitlines()
        if lines == ["LOST"]:
            self._over = True
            raise self._failed("was lost: the sandbox was restarted, or cleared its temporary files")
        try:
            out, err, end = lines
            pieces = {"stdout": _decoded(out, "out "), "stderr": _decoded(err, "err ")}
            sizes = [int(part) for part in end.split(" ")[1:3]]
            code = end.split(" ")[3] if end.startswith("end ") else ""
        except (ValueError, IndexError, binascii.Error):
            raise self._failed(
                f"cannot be followed: {(result.stderr or result.stdout).strip()[-300:]}"
            ) from None
        for stream in ("stdout", "stderr"):
            self._offsets[stream] += len(pieces[stream])
        self._over = code != "" and list(self._offsets.values()) == sizes
        for stream in ("stdout", "stderr"):
            text = self._decoders[stream].decode(pieces[stream], final=self._over)
            if text:
                self._ready.append(Output(stream="stdout" if stream == "stdout" else "stderr", text=text))
        if self._over:
            self.exit_code = int(code)
            await self._tidy()

    async def _tidy(self) -> None:
        try:
            await self._housekeeper.run(["sh", "-c", _FOLDER + 'rm -rf "$d"', "sh", self._id])
        except AgentCubeError as error:
            logger.debug("removing a command's output failed: %s", error)

    def _failed(self, reason: str) -> DataPlaneError:
        return DataPlaneError(
            f"The command {self._command[0]!r} {reason}.",
            session_id=self._wire.session_id,
            delivery=Delivery.DELIVERED,
        )


def _decoded(line: str, prefix: str) -> bytes:
    if not line.startswith(prefix):
        raise ValueError(line)
    return base64.b64decode(line.removeprefix(prefix), validate=True)
