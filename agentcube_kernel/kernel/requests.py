"""One request of a front end, kept for as long as something may refer to it."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Any

_MARK = "~"


@dataclass(frozen=True, slots=True)
class Request:
    """A message from a front end with the routing identities that lead back to it.

    Outputs and replies name it as their parent. It is saved when the request arrives, because the kernel's notion of a
    current parent has moved on by the time that most output comes.
    """

    message: dict[str, Any]
    identities: list[bytes]
    nonce: str = dataclasses.field(default_factory=lambda: secrets.token_hex(6))

    @property
    def task_id(self) -> str:
        """What the request is called in the sandbox, where the same id means the same request.

        A msg_id alone will not do: clients that one kernel manager makes one after the other use the same ones again.
        """
        return f"{self.message['header']['msg_id']}{_MARK}{self.nonce}"

    @property
    def content(self) -> dict[str, Any]:
        content = self.message.get("content")
        return content if isinstance(content, dict) else {}


def msg_id_of(task_id: str) -> str:
    """The msg_id of the request that has this name in the sandbox."""
    msg_id, mark, _ = task_id.rpartition(_MARK)
    return msg_id if mark else task_id


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
