"""When a failed exchange is sent again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypeVar

from agentcube_kernel.errors import Delivery, ExchangeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which failures of an exchange are tried again, and for how long.

    Only transient failures are. `patience` is in seconds from the first failure; waits between attempts
    grow from 50 ms to 2 s with jitter, and a server's Retry-After (up to the patience) is respected.
    """

    NONE: ClassVar[RetryPolicy]
    """Never."""
    ONCE_DELIVERED: ClassVar[RetryPolicy]
    """Only what certainly did not reach the sandbox: refused connections, 429, the Router's 502."""
    IDEMPOTENT: ClassVar[RetryPolicy]
    """Also what may have reached it, and answers that were cut short."""

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
            whatever the last attempt raised.
        """
        try:
            return await attempt()
        except ExchangeError as error:
            if not self.allows(error) or self.patience <= 0:
                raise
            return await self._retry(attempt, error)

    async def _retry(self, attempt: Callable[[], Awaitable[T]], first: ExchangeError | None) -> T:
        # Imported and set up only here: the successful call, which is nearly every one, must not pay for it.
        import stamina

        def wait_for(error: Exception) -> bool | float:
            if not self.allows(error):
                return False
            after = getattr(error, "retry_after", None)
            return True if after is None else min(float(after), self.patience)

        async for trial in stamina.retry_context(
            on=wait_for,
            attempts=None,
            timeout=self.patience,
            wait_initial=0.05,
            wait_max=2.0,
            wait_jitter=0.1,
        ):
            with trial:
                if first is not None:
                    error, first = first, None
                    raise error
                return await attempt()
        raise AssertionError("unreachable: stamina raises the last error")  # pragma: no cover


RetryPolicy.NONE = RetryPolicy(patience=0.0)
RetryPolicy.ONCE_DELIVERED = RetryPolicy(deliveries=frozenset({Delivery.NEVER}))
RetryPolicy.IDEMPOTENT = RetryPolicy(deliveries=frozenset(Delivery))
