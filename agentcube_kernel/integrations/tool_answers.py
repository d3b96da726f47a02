"""What the tools of an agent do in a sandbox, and how they answer: always with a bounded, JSON-able dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..arguments import check_text
from ..channel.cell_result import CellResult
from ..errors import AgentCubeError, CellTimeoutError
from ..text import size
from .files import read_anywhere, write_anywhere
from .plain_text import failure_text, plain, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..channel.protocol import Event
    from ..sandbox import AsyncSandbox

# Characters of one text in an answer: some thousand tokens of a model's context.
TEXT_LIMIT = 20_000
FILE_LIMIT = 100_000
# How many tools' calls may stand before one in the queue of a sandbox, before it is given up.
_QUEUE = 10

# Models write bash; not every image has it.
_SHELL = 'command -v bash >/dev/null && exec bash -c "$1"; exec sh -c "$1"'

Answer = dict[str, Any]


async def run_python(sandbox: AsyncSandbox, code: str, timeout: float) -> Answer:
    """Run code in the sandbox's interpreter, whose variables stay."""
    return (await run_cell(sandbox, code, timeout))[0]


async def run_cell(
    sandbox: AsyncSandbox, code: str, timeout: float, *, on_event: Callable[[Event], None] | None = None
) -> tuple[Answer, CellResult]:
    """As `run_python`, with everything that the cell has put out."""
    try:
        result = await sandbox.run_cell(
            code, timeout=timeout, queue_timeout=_QUEUE * timeout, on_event=on_event
        )
    except AgentCubeError as error:
        events = error.events if isinstance(error, CellTimeoutError) else ()
        result = CellResult(status="error", execution_count=0, events=events)
        return _of_cell(result, str(error)), result
    return _of_cell(result, None if result.ok else failure_text(result)), result


def _of_cell(result: CellResult, error: str | None) -> Answer:
    shown = [event.content["data"] for event in result.events if event.type == "display_data"]
    value = result.result
    return {
        "ok": error is None,
        "stdout": _text(result.stdout),
        "stderr": _text(result.stderr),
        "result": None if value is None else _in_words(value),
        "displays": [_in_words(bundle) for bundle in shown[:20]],
        "error": None if error is None else _text(error),
    }


def _in_words(bundle: Mapping[str, Any]) -> str:
    """A mime bundle as text; what is no text is named with its size."""
    text = bundle.get("text/plain")
    others = [
        f"{mime}, {size(len(data))}"
        for mime, data in bundle.items()
        if mime.startswith("image/") and isinstance(data, str)
    ]
    words = [text] if isinstance(text, str) else []
    if others:
        words.append(f"[{'; '.join(others)}]")
    return _text(" ".join(words) or f"[{', '.join(bundle)}]")


async def run_shell(sandbox: AsyncSandbox, command: str, timeout: float) -> Answer:
    """Run a shell command in a process of its own, in the workspace."""
    try:
        await sandbox.open()
        check_text(command, name="command")
        done = await sandbox.client.execute_command_result(["sh", "-c", _SHELL, "sh", command], timeout)
    except AgentCubeError as error:
        return {"ok": False, "stdout": "", "stderr": "", "exit_code": None, "error": str(error)}
    error_text = None
    if done.timed_out:
        error_text = (
            f"The command did not end within {timeout:g} s and was stopped. Start what takes longer in the "
            "background, with its output in a file."
        )
    elif done.exit_code:
        ended = "was killed by a signal" if done.exit_code < 0 else f"failed with exit code {done.exit_code}"
        error_text = f"The command {ended}."
    return {
        "ok": error_text is None,
        "stdout": _text(done.stdout),
        "stderr": _text(done.stderr),
        "exit_code": done.exit_code,
        "error": error_text,
    }


async def read_file(sandbox: AsyncSandbox, path: str) -> Answer:
    """Read a text file."""
    try:
        await sandbox.open()
        # One character has at most 4 bytes.
        data = await read_anywhere(sandbox.client, path, max_bytes=4 * FILE_LIMIT)
    except AgentCubeError as error:
        return _no_content(str(error))
    whole = len(data) <= 4 * FILE_LIMIT
    try:
        text = data.decode() if whole else data[: 4 * FILE_LIMIT].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return _no_content("The file is not text in UTF-8. Open it with run_python.")
    if not whole and "\0" in text:
        return _no_content("The file is not text. Open it with run_python.")
    cut = not whole or len(text) > FILE_LIMIT
    return {"ok": True, "content": text[:FILE_LIMIT], "truncated": cut, "error": None}


def _no_content(error: str) -> Answer:
    return {"ok": False, "content": None, "truncated": False, "error": error}


async def write_file(sandbox: AsyncSandbox, path: str, content: str) -> Answer:
    """Write a text file; folders above it are created."""
    try:
        await sandbox.open()
        data = check_text(content, name="content").encode()
        await write_anywhere(sandbox.client, path, data)
    except AgentCubeError as error:
        return {"ok": False, "bytes": 0, "error": str(error)}
    return {"ok": True, "bytes": len(data), "error": None}


def _text(text: str) -> str:
    return shortened(plain(text), TEXT_LIMIT)
