"""Tab completion of `%sandbox` lines: commands, options, names, paths and variables."""

from __future__ import annotations

import glob
import os
import re
from typing import TYPE_CHECKING, Any

from .dispatch import CELL, COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from IPython.core.interactiveshell import InteractiveShell

    from ..registry.registry import Registry

_LINE = re.compile(r"\s*%%?sandbox(\s.*)?$", re.DOTALL)


def candidates(line: str, *, cell: bool, names: list[str]) -> tuple[str, list[str], str]:
    """The word under the cursor at the end of `line` (what follows `%sandbox`), what it may become of what is known
    here, and what kind of thing has to be looked up: `local`, `remote`, `variable`, `remote-variable` or nothing.
    """
    words = line.split()
    word = "" if not line or line[-1].isspace() else words.pop()
    if cell:
        found = [*names, *CELL.options] if word.startswith("-") else names
        return word, _beginning(word, found), ""
    if not words:
        return word, _beginning(word, [name for name in COMMANDS if name]), ""
    command = COMMANDS.get(words[0])
    if command is None:
        return word, [], ""
    if word.startswith("-"):
        return word, _beginning(word, list(command.options)), ""
    if words[-1] in ("--to", "--from", "--in") and command.completes in ("variable", "remote-variable"):
        return word, _beginning(word, names), ""
    if words[-1] == "--in":
        return word, _beginning(word, names), ""
    if command.completes == "sandbox":
        return word, _beginning(word, names), ""
    if command.completes == "command":
        return word, _beginning(word, [name for name in (*COMMANDS, "cell") if name]), ""
    if words[-1] == "--to":
        return word, [], {"local": "remote", "remote": "local"}.get(command.completes, "")
    return word, [], command.completes


def _beginning(word: str, known: list[str]) -> list[str]:
    return [item for item in known if item.startswith(word)]


def local_paths(word: str) -> list[str]:
    """Paths of this machine that begin with `word`; folders end with a slash."""
    begun = os.path.expanduser(word)
    found = sorted(glob.glob(glob.escape(begun) + "*"))[:500]
    head = word[: len(word) - len(os.path.basename(word))]
    return [head + os.path.basename(path) + ("/" if os.path.isdir(path) else "") for path in found]


async def remote_names(registry: Registry, word: str, kind: str) -> list[str]:
    """Paths or variables of the current sandbox that begin with `word`; none when it is not there. Starts nothing."""
    from .file_commands import complete_remote

    entry = registry.current
    if entry is None or entry.sandbox is None or entry.session_id is None:
        return []
    if kind != "remote" and entry.state not in ("ready", "busy"):
        return []
    if kind == "remote":
        return await complete_remote(entry.sandbox.client, word)
    if not word.isidentifier():
        return []
    reply = await entry.sandbox.complete(word, len(word))
    return [match for match in reply.get("matches", []) if isinstance(match, str) and match.isidentifier()]


class Completer:
    """Completion for IPython's own completer."""

    def __init__(self, registry: Callable[[], Registry], namespace: Callable[[], Mapping[str, Any]]) -> None:
        self._registry = registry
        self._namespace = namespace
        self._matcher: Any = None

    def install(self, shell: InteractiveShell) -> None:
        """Add a matcher to the shell's completer."""
        from IPython.core.completer import SimpleCompletion, context_matcher

        @context_matcher(identifier="agentcube.sandbox", priority=1000)  # type: ignore[untyped-decorator]
        def sandbox_matcher(context: Any) -> Any:
            line = context.line_with_cursor if hasattr(context, "line_with_cursor") else context.full_text
            line = line[: context.cursor_position]
            match = _LINE.match(line)
            if match is None or match[1] is None:
                return {"completions": []}
            word, found = self.complete(match[1], cell=line.lstrip().startswith("%%"))
            return {
                "completions": [SimpleCompletion(text=item) for item in found],
                "matched_fragment": word,
                "suppress": True,
            }

        self._matcher = sandbox_matcher
        shell.Completer.custom_matchers.insert(0, sandbox_matcher)

    def uninstall(self, shell: InteractiveShell) -> None:
        """Take the matcher out again."""
        if self._matcher in shell.Completer.custom_matchers:
            shell.Completer.custom_matchers.remove(self._matcher)

    def complete(self, line: str, *, cell: bool) -> tuple[str, list[str]]:
        """The word at the end of the line, and what it may become."""
        from ..client.sync.portal import portal

        registry = self._registry()
        word, found, kind = candidates(line, cell=cell, names=registry.names)
        if kind == "local":
            found = local_paths(word)
        elif kind == "variable":
            found = sorted(n for n in self._namespace() if n.startswith(word) and not n.startswith("_"))
        elif kind:
            try:
                found = portal().run(lambda: remote_names(registry, word, kind))
            except Exception:
                return word, []  # completion never disturbs
        return word, found
