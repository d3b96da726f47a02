"""One request of a front end, kept for as long as something may refer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """A message from a front end with the routing identities that lead back to it.

    Outputs and replies name it as their parent. It is saved when the request arrives, because the kernel's notion of a
    current parent has moved on by the time that most output comes.
    """

    message: dict[str, Any]
    identities: list[bytes]

    @property
    def id(self) -> str:
        return str(self.message["header"]["msg_id"])

    @property
    def content(self) -> dict[str, Any]:
        content = self.message.get("content")
        return content if isinstance(content, dict) else {}


class BadRequestError(ValueError):
    """A request lacks a field or has one of a wrong type; the message names it."""


def field(request: Request, name: str, kind: type | tuple[type, ...], *default: Any) -> Any:
    """Return one field of the request's content, checked for its type.

    A missing field, or one that is null, takes `default`.

    Raises:
        BadRequestError: the type is wrong, or the field is missing and there is no default.
    """
    value = request.content.get(name)
    if value is None:
        if default:
            return default[0]
        raise BadRequestError(f"The request has no {name!r}.")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise BadRequestError(f"The request's {name!r} must not be a {type(value).__name__}.")
    return value
