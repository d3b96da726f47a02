"""Tokens and passwords, kept out of everything that shows values."""

from __future__ import annotations

import hmac
import json
from typing import Any

HIDDEN = "<secret>"


class Secret:
    """A token or password that no repr, traceback, log line or error message shows.

    `reveal` gives the value; only what writes it into a request calls that. Equal secrets compare equal, and one can be
    pickled, with its value.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @classmethod
    def of(cls, value: str | Secret) -> Secret:
        """The value as a secret; one that is one already is returned as it is."""
        return value if isinstance(value, Secret) else cls(value)

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._value,)

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def scrub(self, text: str) -> str:
        """A text of somebody else's with this value hidden, also where it was quoted as JSON."""
        if not self._value:
            return text
        return text.replace(self._value, HIDDEN).replace(json.dumps(self._value)[1:-1], HIDDEN)
