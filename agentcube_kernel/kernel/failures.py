"""Failures as Jupyter tells them: `error` messages and replies with the status error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import AgentCubeError

RED, PLAIN = "\x1b[31m", "\x1b[39m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a request was not done: the content of an `error` message."""

    ename: str
    evalue: str
    traceback: tuple[str, ...] = ()
    """The sandbox's own, where the error happened there."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception to the user. What is not one of ours is a defect of the kernel and says so."""
        name = type(error).__name__
        if isinstance(error, AgentCubeError | KeyboardInterrupt):
            traceback = tuple(getattr(error, "traceback", ()))
            return cls(ename=name, evalue=_harmless(str(error)), traceback=traceback)
        text = _harmless(str(error)) or "no message"
        return cls(ename=name, evalue=f"{text} (inside the kernel; its log has the details)")

    @property
    def content(self) -> dict[str, Any]:
        line = f"{RED}{self.ename}{PLAIN}: {self.evalue}" if self.evalue else f"{RED}{self.ename}{PLAIN}"
        return {"ename": self.ename, "evalue": self.evalue, "traceback": list(self.traceback) or [line]}

    @property
    def reply(self) -> dict[str, Any]:
        return {"status": "error", **self.content}


def _harmless(text: str) -> str:
    """The text without control characters: a message may quote what a sandbox or a proxy said."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
