"""Mistakes in a `%sandbox` line, and failures of the cells that it runs."""

from __future__ import annotations

import contextlib
import keyword
from typing import TYPE_CHECKING

from IPython.core.error import UsageError as IPythonUsageError

from ..errors import AgentCubeError, SandboxError, SandboxNameError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class UsageError(AgentCubeError, IPythonUsageError):
    """A `%sandbox` line that cannot be done as it stands; nothing was done."""

    def _render_traceback_(self) -> list[str]:
        return [f"UsageError: {self}"]


@contextlib.contextmanager
def names_as_usage() -> Iterator[None]:
    """Turn a wrong name of a sandbox into the mistake in a line that it is here."""
    try:
        yield
    except SandboxNameError as error:
        raise UsageError(str(error)) from None


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
