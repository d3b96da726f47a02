"""When a failed exchange is sent again.

This is not left to a retry library: those announce every attempt on the program's own log or standard output, and set
up an object for each call, which most calls would pay for without ever failing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypeVar

from ..errors import Delivery, ExchangeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

logger = logging.getLogger("agentcube_kernel.http")

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which failures of an exchange are retried, and for how long.

    Only transient failures are. `patience` is in seconds from the first failure; waits between attempts
    grow from 50 ms to 2 s with jitter, and a server's Retry-After is respected.
    """

    NONE: ClassVar[RetryPolicy]
    """Never."""
    ONCE_DELIVERED: ClassVar[RetryPolicy]
    """Only requests that certainly did not reach the sandbox: refused connections, 429, the Router's 502."""
    IDEMPOTENT: ClassVar[RetryPolicy]
    """Also requests that may have reached it, and truncated answers."""

    deliveries: frozenset[Delivery] = frozenset()
    patience: float = 15.0

    def with_patience(self, seconds: float) -> RetryPolicy:
        """The same policy with another patience."""
        return replace(self, patience=seconds)

    def allows(self, error: BaseException) -> bool:
        """True when a request that failed with `error` may be sent again and might then succeed."""
        return isinstance(error, ExchangeError) and error.transient and error.delivery in self.deliveries

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Await `attempt()` until it succeeds, fails for good, or the patience is used up.

        Raises:
            AgentCubeError: whatever the last attempt raised.
        """
        loop = asyncio.get_running_loop()
        deadline, wait = None, _FIRST_WAIT
        while True:
            try:
                return await attempt()
            except ExchangeError as error:
                if not self.allows(error):
                    raise
                if deadline is None:
                    deadline = loop.time() + self.patience
                # Jitter keeps clients that failed together from coming back together.
                pause = max(wait * random.uniform(0.5, 1.5), getattr(error, "retry_after", None) or 0.0)
                if loop.time() + pause > deadline:
                    raise
                logger.debug("trying again in %.2f s: %s", pause, error)
            await asyncio.sleep(pause)
            wait = min(2 * wait, _LONGEST_WAIT)


RetryPolicy.NONE = RetryPolicy(patience=0.0)
RetryPolicy.ONCE_DELIVERED = RetryPolicy(deliveries=frozenset({Delivery.NEVER}))
RetryPolicy.IDEMPOTENT = RetryPolicy(deliveries=frozenset(Delivery))
