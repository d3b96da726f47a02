"""What commands about sandboxes answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..results import Ownership
from ..sessions.kept_sessions import how_to_attach
from ..text import ago
from .lifetime import describe_lifetime
from .render import Id, Line, Pairs, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..registry.entry import Entry
    from ..sessions.ledger import SessionRecord
    from .command import Context
    from .render import Value


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SandboxView(Pairs):
    """One sandbox at a glance."""

    name: str
    session_id: str | None
    state: str
    owned: bool
    keep: bool
    namespace: str
    interpreter: str
    cells: int
    created: float | None
    lifetime: str
    current: bool
    instead: str = "none yet"
    """What there is while there is no session."""
    kept: tuple[SessionRecord, ...] = ()

    def _pairs(self) -> list[tuple[str, Value]]:
        whose = "made here" if self.owned else "attached: it is never deleted from here"
        if self.owned and self.keep:
            whose += ", kept when the notebook ends"
        age = "" if self.created is None else f", {ago(self.created)}"
        return [
            ("sandbox", self.name + (" (current)" if self.current else "")),
            ("session", Id(self.session_id) if self.session_id else self.instead),
            ("state", self.state + (f", last cell In[{self.cells}]" if self.cells else "")),
            ("interpreter", f"{self.namespace}/{self.interpreter}"),
            ("ownership", whose + age),
            ("lifetime", self.lifetime),
            *((f"kept: {record.name or '-'}", _offer(record, self.kept)) for record in self.kept),
        ]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SandboxTable(Table):
    """All sandboxes of this notebook."""

    sandboxes: tuple[SandboxView, ...]
    kept: tuple[SessionRecord, ...] = ()

    def _columns(self) -> Sequence[str]:
        return ("", "NAME", "SESSION", "STATE", "OWNERSHIP", "LAST CELL", "LIFETIME")

    def _rows(self) -> list[tuple[Value, ...]]:
        rows: list[tuple[Value, ...]] = [
            (
                "*" if view.current else "",
                view.name,
                Id(view.session_id or ""),
                view.state,
                ("owned, kept" if view.keep else "owned") if view.owned else "attached",
                f"In[{view.cells}]" if view.cells else "",
                view.lifetime,
            )
            for view in self.sandboxes
        ]
        rows += [
            ("", r.name or "", Id(r.session_id), "kept", "owned", "", _offer(r, self.kept)) for r in self.kept
        ]
        return rows

    def _empty(self) -> str:
        return "No sandboxes. Make one with `%sandbox new`."


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Done(Line):
    """Something was done with a sandbox."""

    said: str
    name: str
    session_id: str | None = None
    then: str = ""

    def _line(self) -> list[Value]:
        line: list[Value] = [f"{self.said} {self.name}"]
        if self.session_id:
            line += [" (session ", Id(self.session_id), ")"]
        return [*line, "." if not self.then else f". {self.then}"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Several(Table):
    """Something was done with several sandboxes."""

    done: tuple[Done, ...]

    def _columns(self) -> Sequence[str]:
        return ("SANDBOX", "SESSION", "")

    def _rows(self) -> list[tuple[Value, ...]]:
        return [(done.name, Id(done.session_id or ""), done.said.lower()) for done in self.done]

    def _empty(self) -> str:
        return "No sandboxes."


def _offer(record: SessionRecord, kept: Sequence[SessionRecord]) -> str:
    return f"kept from before, used {ago(record.last_used)}: `{how_to_attach(record, kept)}`"


def view(entry: Entry, context: Context, kept: Sequence[SessionRecord] = ()) -> SandboxView:
    """What can be said of a sandbox without asking anybody."""
    client = None if entry.sandbox is None else entry.sandbox.client
    settings = context.registry.settings
    return SandboxView(
        name=entry.name,
        session_id=entry.session_id,
        state=entry.state,
        owned=entry.ownership is Ownership.OWNED,
        keep=entry.keep,
        namespace=settings.namespace if client is None else client.namespace,
        interpreter=settings.interpreter if client is None else client.name,
        cells=entry.cells,
        created=entry.created,
        lifetime=describe_lifetime(entry) if settings.picod_url is None else "as long as the PicoD runs",
        instead="none yet" if settings.picod_url is None else "none: one PicoD, which has no sessions",
        current=context.registry.current is entry,
        kept=tuple(kept),
    )
