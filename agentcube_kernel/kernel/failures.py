"""Failures as Jupyter tells them: `error` messages and replies with the status error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import AgentCubeError
from ..text import harmless

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
            return cls(ename=name, evalue=harmless(str(error), lines=True), traceback=traceback)
        text = harmless(str(error), lines=True) or "no message"
        return cls(ename=name, evalue=f"{text} (inside the kernel; its log has the details)")

    @property
    def content(self) -> dict[str, Any]:
        line = f"{RED}{self.ename}{PLAIN}: {self.evalue}" if self.evalue else f"{RED}{self.ename}{PLAIN}"
        return {"ename": self.ename, "evalue": self.evalue, "traceback": list(self.traceback) or [line]}

    @property
    def reply(self) -> dict[str, Any]:
        return {"status": "error", **self.content}
