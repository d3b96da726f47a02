"""Bearer tokens: checked before they are sent, and fetched once for all who wait for one."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ..errors import ArgumentTypeError, ConfigurationError
from ..secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

_REFRESH_BUFFER = 30.0


class FetchedToken(ABC):
    """A token fetched when first needed, once for all who wait for it.

    It is renewed 30 seconds before it expires, or half-way for tokens that live less than a minute. `clock` gives
    seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._token: Secret | None = None
        self._expires = 0.0
        self._fetches: dict[asyncio.AbstractEventLoop, asyncio.Task[Secret]] = {}

    async def get_token(self) -> str:
        """A token that is valid for a while yet. Cancelling one waiter does not disturb the others.

        Raises:
            AuthenticationError: no token could be fetched.
        """
        if self._token is not None and self._clock() < self._expires:
            return self._token.reveal()
        loop = asyncio.get_running_loop()
        fetch = self._fetches.get(loop)
        if fetch is None:
            fetch = self._fetches[loop] = loop.create_task(self._renew())
            fetch.add_done_callback(lambda task: self._fetched(loop, task))
        return (await asyncio.shield(fetch)).reveal()

    def invalidate(self, token: str) -> None:
        """Fetch a new token at the next request, unless that has happened already."""
        if self._token is not None and token == self._token.reveal():
            self._token = None

    @abstractmethod
    async def _fetch(self) -> tuple[Secret, float]:
        """A new token and its lifetime in seconds. Raises AuthenticationError."""

    async def _renew(self) -> Secret:
        token, lifetime = await self._fetch()
        self._token, self._expires = token, self._clock() + max(lifetime - _REFRESH_BUFFER, lifetime / 2)
        return token

    def _fetched(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Secret]) -> None:
        self._fetches.pop(loop, None)
        if not task.cancelled():
            task.exception()  # every waiter may have been cancelled


def check_token(token: object, name: str) -> Secret:
    """A token that can stand in a header; the message never shows it."""
    if isinstance(token, Secret):
        token = token.reveal()
    if not isinstance(token, str):
        raise ArgumentTypeError(f"{name} must be a str, not {type(token).__name__}.", name=name)
    if not token:
        raise ConfigurationError(f"{name} must not be empty.", name=name)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(f"{name} must be one line of printable ASCII without spaces.", name=name)
    return Secret(token)
