"""What owners and the reaper say to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import errors
from ..errors import AgentCubeError, Delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = b"now"
"""An owner's last word when nobody will take its sandboxes over."""

TAKEN = b"taken"
"""An owner's word that it has heard of its new session."""


def error_to_dict(error: AgentCubeError) -> dict[str, Any]:
    """The error as JSON data, so that its owner can raise the same."""
    fields = {name: value for name, value in error.__dict__.items() if name != "__notes__"}
    delivery = fields.pop("delivery", None)
    return {
        "class": type(error).__name__,
        "message": str(error),
        "fields": {
            name: value for name, value in fields.items() if isinstance(value, str | int | float | None)
        },
        "delivery": delivery.value if isinstance(delivery, Delivery) else None,
        "notes": list(getattr(error, "__notes__", ())),
    }


def error_from_dict(told: Mapping[str, Any]) -> AgentCubeError:
    """The error that `error_to_dict` has written down."""
    kind = getattr(errors, str(told["class"]), AgentCubeError)
    if not (isinstance(kind, type) and issubclass(kind, AgentCubeError)):
        kind = AgentCubeError
    fields: dict[str, Any] = dict(told["fields"])
    if told["delivery"] is not None:
        fields["delivery"] = Delivery(told["delivery"])
    error = errors.restored(kind, str(told["message"]), fields)
    for note in told["notes"]:
        error.add_note(str(note))
    return error
