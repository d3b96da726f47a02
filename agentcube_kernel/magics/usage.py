"""Mistakes in a `%sandbox` line, and failures of the cells that it runs."""

from __future__ import annotations

import difflib
import keyword
from typing import TYPE_CHECKING

from IPython.core.error import UsageError as IPythonUsageError

from ..errors import AgentCubeError, SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class UsageError(AgentCubeError, IPythonUsageError):
    """A `%sandbox` line that cannot be done as it stands; nothing was done."""

    def _render_traceback_(self) -> list[str]:
        return [f"UsageError: {self}"]


class RemoteCellError(SandboxError):
    """A cell ended with an error in its sandbox. The error's own name, text and traceback are attributes.

    It is raised as a subclass that has the name of the error in the sandbox, so that it is shown as there.
    """

    def __init__(self, *, ename: str, evalue: str, traceback: Sequence[str], session_id: str | None) -> None:
        super().__init__(evalue, session_id=session_id)
        self.ename = ename
        self.evalue = evalue
        self.traceback = list(traceback)

    def _render_traceback_(self) -> list[str]:
        return self.traceback or [f"{self.ename}: {self.evalue}"]


def remote_error(
    *, ename: str, evalue: str, traceback: Sequence[str], session_id: str | None
) -> RemoteCellError:
    """The error of a sandbox as an exception of ours whose class has the same name."""
    usable = ename.isidentifier() and not keyword.iskeyword(ename) and len(ename) < 100
    kind: type[RemoteCellError] = type(
        ename if usable else "RemoteCellError", (RemoteCellError,), {"__module__": __name__}
    )
    return kind(ename=ename, evalue=evalue, traceback=traceback, session_id=session_id)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest known word, or an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
