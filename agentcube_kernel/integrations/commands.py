"""Commands as frameworks of agents expect them to end: when the program ends, with its own exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files import spare_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..client.code_interpreter import AsyncCodeInterpreterClient
    from ..results import CommandResult

# Output goes to files that have no name any more, since PicoD waits for whoever holds its pipes, children in the
# background too. A shell in between says 128 + n of a signal, and 127 of a program that does not exist.
_SCRIPT = """\
folder=$1 input=$2 limit=$3; shift 3
o=$(mktemp) && e=$(mktemp) && exec 3>"$o" 4>"$e" 5<"$o" 6<"$e" && rm -f -- "$o" "$e" || exit 126
exec <"$input" || exit 126
case $input in *.agentcube-*) rm -f -- "$input";; esac
if cd -- "$folder"; then "$@" >&3 2>&4 3>&- 4>&- 5<&- 6<&-; else (exit 126); fi
code=$?
head -c "$limit" <&5; head -c "$limit" <&6 >&2
exit $code
"""


async def run_program(
    client: AsyncCodeInterpreterClient,
    command: Sequence[str],
    *,
    timeout: float,
    folder: str = ".",
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
    limit: int,
) -> CommandResult:
    """Run a program to its end, whatever it has started in the background and left there.

    When the call is cancelled or times out, the program and its children are stopped.

    Args:
        folder: where it starts; a relative path counts from the workspace.
        input: its standard input; by default empty.
        limit: bytes of each output that are kept; one more says that there is more.

    Returns:
        its end; a timeout is one too (`timed_out`), without the output so far.

    Raises:
        ConfigurationError: an argument that no program can get.
        ExchangeError: the sandbox could not be asked.
    """
    source = "/dev/null"
    if input is not None:
        source = spare_name()
        await client.write_file(input, source)
    script = ["sh", "-c", _SCRIPT, "sh", folder, source, str(limit + 1), *command]
    return await client.execute_command_result(script, timeout, env=env)
