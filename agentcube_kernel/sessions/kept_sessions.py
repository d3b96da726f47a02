"""Sessions that a notebook kept when it was closed, offered when it is opened again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import LedgerError
from ..text import ago
from .process_identity import Liveness

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .ledger import Ledger, SessionRecord


def this_notebook() -> str | None:
    """The path of the notebook that this process runs for, as Jupyter's server tells it, or None."""
    return os.environ.get("JPY_SESSION_NAME") or None


def kept_for(records: Iterable[SessionRecord], notebook: str | None) -> list[SessionRecord]:
    """The kept sessions of a notebook that no process uses, the one used last first; none for no notebook."""
    found = [
        record
        for record in records
        if record.keep
        and notebook is not None
        and record.notebook == notebook
        and record.owner.liveness() is Liveness.DEAD
    ]
    return sorted(found, key=lambda record: -record.last_used)


def how_to_attach(record: SessionRecord, among: Sequence[SessionRecord]) -> str:
    """The command that finds a kept session again: by its name, where that says which."""
    alone = record.name is not None and sum(other.name == record.name for other in among) == 1
    return f"%sandbox attach {record.name if alone else record.session_id}"


def offers(ledger: Ledger) -> list[str]:
    """One line for each kept session of this notebook. Blocks; says nothing when the ledger cannot be read."""
    notebook = this_notebook()
    if notebook is None:
        return []
    try:
        kept = kept_for(ledger.sessions(), notebook)
    except LedgerError:
        return []
    return [
        f"This notebook kept a session, last used {ago(record.last_used)}. To go on in it, if it is still there: "
        f"{how_to_attach(record, kept)}"
        for record in kept
    ]
