"""Files anywhere in a sandbox: AgentCube's own file calls reach the workspace alone, commands reach all of it."""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import TYPE_CHECKING

from ..arguments import check_command, check_text
from ..errors import (
    RemoteFileNotFoundError,
    RemoteIsADirectoryError,
    RemoteStorageError,
    ResponseError,
)
from ..text import one_line

if TYPE_CHECKING:
    from ..client.code_interpreter import AsyncCodeInterpreterClient
    from ..results import CommandResult

# What fits into the answer of one command, and into one argument of it.
_ONE_ANSWER = 256 * 1024
_ONE_ARGUMENT = 90 * 1024

_IS_FOLDER, _IS_MISSING, _IS_FORBIDDEN, _IS_PIPE = 71, 72, 73, 74
_LOOK = '[ -d "$1" ] && exit 71; [ -e "$1" ] || exit 72; [ -r "$1" ] || exit 73; [ -p "$1" ] && exit 74; '
_READ = _LOOK + 'head -c "$2" <"$1" | base64'
_COPY_OUT = _LOOK + 'head -c "$2" <"$1" >"$3"'
_PLACE = '[ -d "$1" ] && exit 71; mkdir -p -- "$(dirname -- "$1")" || exit; '
_WRITE = _PLACE + 'printf %s "$2" | base64 -d >"$1"'
_COPY_IN = _PLACE + 'cat <"$2" >"$1"; code=$?; rm -f -- "$2"; exit $code'


async def read_anywhere(client: AsyncCodeInterpreterClient, path: str, *, max_bytes: int) -> bytes:
    """Read a file; a relative path counts from the workspace.

    A cancelled call may leave a hidden temporary file in the workspace.

    Returns:
        its beginning of at most `max_bytes` + 1 bytes, so that a result longer than `max_bytes` is not the whole file.

    Raises:
        RemoteFileNotFoundError, RemoteIsADirectoryError, RemoteStorageError: as their names say.
        ConfigurationError: the path is empty or no text.
        ExchangeError: the sandbox could not be asked.
    """
    path = checked_path(path)
    wanted = max_bytes + 1
    count = min(wanted, _ONE_ANSWER + 1)
    done = await client.execute_command_result(["sh", "-c", _READ, "sh", path, str(count)])
    _raise_for(done, path, "read")
    try:
        data = base64.b64decode(done.stdout)
    except (binascii.Error, ValueError) as error:
        raise ResponseError(f"The sandbox's answer for the file {one_line(path)} is damaged.") from error
    if len(data) > count:
        raise ResponseError(f"The sandbox sent more of the file {one_line(path)} than it was asked for.")
    if len(data) <= _ONE_ANSWER:
        return data
    spare = spare_name()
    try:
        done = await client.execute_command_result(["sh", "-c", _COPY_OUT, "sh", path, str(wanted), spare])
        _raise_for(done, path, "read")
        return (await client.read_file(spare))[:wanted]
    finally:
        await client.execute_command_result(["rm", "-f", "--", spare])


async def write_anywhere(client: AsyncCodeInterpreterClient, path: str, data: bytes) -> None:
    """Write a file, and the folders above it; a relative path counts from the workspace.

    A file that exists keeps its mode, and a link is followed. A call that fails or is cancelled may leave the file
    incomplete, and a hidden temporary file in the workspace.

    Raises:
        RemoteIsADirectoryError, RemoteStorageError: as their names say.
        ConfigurationError: the path is empty or no text.
        ExchangeError: the sandbox could not be asked.
    """
    path = checked_path(path)
    if len(data) <= _ONE_ARGUMENT:
        command = ["sh", "-c", _WRITE, "sh", path, base64.b64encode(data).decode()]
    else:
        spare = spare_name()
        await client.write_file(data, spare)
        command = ["sh", "-c", _COPY_IN, "sh", path, spare]
    _raise_for(await client.execute_command_result(command), path, "written")


def checked_path(path: str) -> str:
    """A path that a command can be given.

    Raises:
        ConfigurationError: it is empty, no text, or has a zero byte.
    """
    check_text(path, name="path")
    check_command([path], name="path")
    # What looks like an option would be taken for one.
    return f"./{path}" if path.startswith("-") else path


def spare_name() -> str:
    """A name for a hidden temporary file in the workspace."""
    return f".agentcube-{uuid.uuid4().hex}"


def _raise_for(done: CommandResult, path: str, verb: str) -> None:
    if done.exit_code == 0:
        return
    name = one_line(path)
    if done.exit_code == _IS_FOLDER:
        raise RemoteIsADirectoryError(f"{name} is a directory, not a file.", path=path)
    if done.exit_code == _IS_MISSING:
        raise RemoteFileNotFoundError(f"The sandbox has no file {name}.", path=path)
    known = {_IS_FORBIDDEN: "permission denied", _IS_PIPE: "it is a pipe, which may never end"}
    reason = known.get(done.exit_code) or one_line(done.stderr)
    raise RemoteStorageError(f"The file {name} could not be {verb} in the sandbox: {reason}", path=path)
