"""Commands that stop when their call is given up, and code snippets that leave no file behind."""

from __future__ import annotations

import ast
import asyncio
import logging
import math
from typing import TYPE_CHECKING

from ..arguments import (
    MAX_ARGUMENT_BYTES,
    check_env,
    check_text,
    check_timeout,
    remote_path,
)
from ..errors import CommandExecutionError, CommandTimeoutError, ConfigurationError
from ..wire.retry import RetryPolicy
from .housekeeping import MARKER, new_execution_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from ..results import CommandResult
    from ..wire.http import HttpAnswer
    from .housekeeping import SessionTools

logger = logging.getLogger("agentcube_kernel.commands")

_LANGUAGES = {"python": "python3", "py": "python3", "python3": "python3", "bash": "bash", "sh": "bash"}

# Python gets its code as a file, for the lines in tracebacks and for sys.path; the file goes with the run.
_RUN_SCRIPT = 'printf %s "$3" >"$2" || exit; "$1" "$2"; code=$?; rm -f -- "$2"; exit $code'
_RUN_UPLOADED = '"$1" "$2"; code=$?; rm -f -- "$2"; exit $code'


async def run_command(
    tools: SessionTools,
    command: Sequence[str],
    *,
    timeout: float | None,
    env: Mapping[str, str] | None,
    working_dir: str | None,
    leftovers: tuple[str, ...] = (),
) -> CommandResult:
    """Run a command to its end; when the call is cancelled or times out, the command is stopped.

    `leftovers` are files in the workspace to remove if it comes to that.
    """
    wire, housekeeper = tools.wire, tools.housekeeper
    seconds = check_timeout(timeout, default=wire.timeout)
    execution_id = new_execution_id()
    environment = {**check_env(env), MARKER: execution_id}
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def abandoned(exchange: asyncio.Task[HttpAnswer]) -> None:
        housekeeper.stop_soon(execution_id, exchange, *leftovers)

    def attempt() -> Awaitable[CommandResult]:
        return wire.execute(
            command, timeout=seconds, env=environment, working_dir=working_dir, on_abandon=abandoned
        )

    # PicoD kills only the command itself when its time is up, and then waits for whoever still holds its output.
    overdue = (
        None
        if math.isinf(seconds)
        else loop.call_later(seconds + 0.5, housekeeper.stop_soon, execution_id, ended)
    )
    try:
        result = await RetryPolicy.ONCE_DELIVERED.call(attempt)
    finally:
        if overdue is not None:
            overdue.cancel()
        if not ended.done():
            ended.set_result(None)
    if result.timed_out:
        await housekeeper.stop_now(execution_id, *leftovers)
    return result


async def run_code(
    tools: SessionTools,
    language: str,
    code: str,
    timeout: float | None,
    *,
    env: Mapping[str, str] | None,
    working_dir: str | None,
) -> CommandResult:
    """Run a snippet; a file that it needs is gone afterwards."""
    interpreter = _interpreter(language)
    code = check_text(code, name="code")
    if "\0" in code:
        raise ConfigurationError("code must not contain a zero byte.", name="code")
    if interpreter == "python3":
        code = _unescape(code)
    data = code.encode()
    if interpreter == "bash" and len(data) <= MAX_ARGUMENT_BYTES:
        command = ["bash", "-c", code]
        return await run_command(tools, command, timeout=timeout, env=env, working_dir=working_dir)
    suffix = ".py" if interpreter == "python3" else ".sh"
    name = f".agentcube-{new_execution_id()}{suffix}"
    folder = "." if working_dir is None else remote_path(working_dir, name="working_dir")
    path = name if folder == "." else f"{folder}/{name}"
    if len(data) <= MAX_ARGUMENT_BYTES:
        command = ["sh", "-c", _RUN_SCRIPT, "sh", interpreter, name, code]
    else:
        await RetryPolicy.IDEMPOTENT.call(lambda: tools.wire.write(path, data))
        command = ["sh", "-c", _RUN_UPLOADED, "sh", interpreter, name]
    return await run_command(
        tools, command, timeout=timeout, env=env, working_dir=working_dir, leftovers=(path,)
    )


def output_or_raise(
    result: CommandResult, command: str | Sequence[str], timeout: float, session_id: str | None
) -> str:
    """The standard output of a command that succeeded.

    Raises:
        CommandTimeoutError, CommandExecutionError: it did not.
    """
    if result.timed_out:
        raise CommandTimeoutError(
            timeout, command, stdout=result.stdout, stderr=result.stderr, session_id=session_id
        )
    if result.exit_code != 0:
        raise CommandExecutionError(
            result.exit_code, result.stderr, command, stdout=result.stdout, session_id=session_id
        )
    return result.stdout


def _interpreter(language: str) -> str:
    interpreter = _LANGUAGES.get(check_text(language, name="language").lower())
    if interpreter is None:
        raise ConfigurationError(
            f"language must be one of {', '.join(_LANGUAGES)}, not {language!r}.", name="language"
        )
    return interpreter


def _unescape(code: str) -> str:
    """Undo a doubled escaping of newlines, where only that makes the code Python, as the stock SDK does."""
    if "\\n" not in code or _is_python(code):
        return code
    unescaped = code.replace("\\n", "\n")
    if not _is_python(unescaped):
        return code
    logger.info("the code's newlines were escaped twice; running it with newlines")
    return unescaped


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
