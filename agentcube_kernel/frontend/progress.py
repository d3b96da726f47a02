"""Progress of one operation: nothing at first, then one line that is updated and ends as one quiet line."""

from __future__ import annotations

import asyncio
import html
import time
import uuid
from typing import TYPE_CHECKING, Any

from ..text import harmless, size

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .host import Host

QUIET_SECONDS = 1.0
REFRESH_SECONDS = 0.25

METADATA = "agentcube_progress"
"""Marks a display as progress, for front ends that have a better place for it than a cell's output."""


class Progress:
    """Shows how far an operation is, when it takes longer than a moment and somebody looks.

    ::

        async with context.progress("Uploading model.bin") as progress:
            await client.upload_file(..., progress=progress.bytes)

    `patience` is how many seconds nothing is shown. At its end the line is `done` or `failed` where these are given,
    else the title.
    """

    def __init__(
        self,
        host: Host,
        title: str,
        *,
        patience: float = QUIET_SECONDS,
        done: str | None = None,
        failed: str | None = None,
    ) -> None:
        self._host = host
        self._title = title
        self._patience = patience
        self._outcomes = (done, failed)
        self._step = ""
        self._done = 0
        self._total: int | None = None
        self._started = time.monotonic()
        self._display_id = uuid.uuid4().hex
        self._shown = False
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if not self._host.quiet:
            self._ticker = asyncio.get_running_loop().create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait({self._ticker})
        if self._shown:
            moved = f", {size(self._done)}" if self._done else ""
            self._show(f"{self._outcome(error)} ({self._elapsed():.0f} s{moved})", final=True)

    def _outcome(self, error: BaseException | None) -> str:
        done, failed = self._outcomes
        if error is None:
            return done or self._title
        return failed or f"{self._title}: {'failed' if isinstance(error, Exception) else 'interrupted'}"

    def title(self, text: str) -> None:
        """Go over to the next of several things."""
        self._title, self._done, self._total = text, 0, None

    def quiet(self) -> None:
        """Go on without showing anything, and end what was shown."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._shown:
            self._show(f"{self._title} ({self._elapsed():.0f} s)", final=True)
            self._shown = False

    def step(self, text: str) -> None:
        """Say what is being done now."""
        self._step = text

    def bytes(self, done: int, total: int | None) -> None:
        """Say how many bytes have gone over."""
        self._done, self._total = done, total

    async def _tick(self) -> None:
        await asyncio.sleep(self._patience)
        while True:
            self._show(self._line())
            await asyncio.sleep(REFRESH_SECONDS)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _line(self) -> str:
        if self._done or self._total:
            of = "" if self._total is None else f" of {size(self._total)}, {self._percent()} %"
            rate = self._done / max(self._elapsed(), 0.001)
            return f"{self._title}: {size(self._done)}{of} ({size(rate)}/s)"
        return f"{self._title}: {self._step or 'working'} ({self._elapsed():.0f} s)"

    def _percent(self) -> int:
        return 100 if not self._total else min(100, 100 * self._done // self._total)

    def _show(self, text: str, *, final: bool = False) -> None:
        text = harmless(text)
        bar = ""
        if self._total and not final:
            bar = f'<progress value="{self._percent()}" max="100" style="vertical-align:middle"></progress> '
        content: dict[str, Any] = {
            "data": {"text/plain": text, "text/html": f"<small>{bar}{html.escape(text)}</small>"},
            "metadata": {METADATA: "done" if final else "running"},
            "transient": {"display_id": self._display_id},
        }
        self._host.publish("update_display_data" if self._shown else "display_data", content)
        self._shown = True
