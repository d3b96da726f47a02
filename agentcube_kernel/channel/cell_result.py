"""The result of a cell: how it ended, and everything that it put out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .protocol import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """How a cell ended and everything it put out."""

    status: str
    """`ok` or `error`."""
    execution_count: int
    events: tuple[Event, ...] = field(repr=False)
    """The events in order, `execute_reply` included; without those that `CellRun.events` gave to somebody else."""
    ename: str | None = None
    evalue: str | None = None
    traceback: tuple[str, ...] = field(default=(), repr=False)
    """Lines with terminal colours, as IPython makes them."""

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def stdout(self) -> str:
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    @property
    def result(self) -> Mapping[str, Any] | None:
        """The mime bundle of the cell's last expression."""
        for event in reversed(self.events):
            if event.type == "execute_result":
                bundle: Mapping[str, Any] = event.content["data"]
                return bundle
        return None

    @property
    def text(self) -> str | None:
        """The last expression's value as plain text."""
        value = (self.result or {}).get("text/plain")
        return value if isinstance(value, str) else None

    @property
    def displays(self) -> list[Mapping[str, Any]]:
        """The mime bundles that were displayed, `execute_result` included."""
        shown = ("display_data", "execute_result")
        return [event.content["data"] for event in self.events if event.type in shown]

    @property
    def user_expressions(self) -> Mapping[str, Any]:
        expressions: Mapping[str, Any] = self.events[-1].content.get("user_expressions", {})
        return expressions

    def _text(self, name: str) -> str:
        return "".join(
            event.content["text"]
            for event in self.events
            if event.type == "stream" and event.content["name"] == name
        )


def result_of(events: Sequence[Event]) -> CellResult:
    """Put together the events of a cell, whose last one is its reply."""
    reply = events[-1].content
    return CellResult(
        status=reply["status"],
        execution_count=reply["execution_count"],
        events=tuple(events),
        ename=reply.get("ename"),
        evalue=reply.get("evalue"),
        traceback=tuple(reply.get("traceback", ())),
    )
