"""The front end of a cell in an IPython: how to show there what a command puts out, and how to wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..channel.events import Form, event_type
from ..frontend.progress import METADATA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from IPython.core.interactiveshell import InteractiveShell

T = TypeVar("T")

# A queue cannot be interrupted on Windows; waiting in short steps lets Ctrl-C through.
_TICK: Final = 0.1 if sys.platform == "win32" else None
_FAR_BEHIND = 500
_PATIENCE_AFTER_INTERRUPT = 25.0


class IPythonHost:
    """The front end of the cell that runs now: outputs are handed to the thread of the cell, which shows them."""

    def __init__(self, shell: InteractiveShell, loop: asyncio.AbstractEventLoop) -> None:
        request = _request(shell)
        self.allow_stdin = bool(request.get("allow_stdin", True))
        # The way in which nbval runs cells, to which any passing output is a difference.
        self.quiet = not self.allow_stdin and not request.get("store_history", True)
        self._shell = shell
        self._loop = loop
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._shown: dict[str, Any] = {}

    # On the event loop.

    def publish(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] | None = None,
    ) -> None:
        self._work.put(lambda: show(self._shell, msg_type, content))

    async def drain(self) -> None:
        while self._work.qsize() > _FAR_BEHIND:  # noqa: ASYNC110 - the other thread's queue tells no loop
            await asyncio.sleep(0.01)

    async def ask(self, prompt: str, *, password: bool = False) -> str | None:
        answer: asyncio.Future[str | None] = self._loop.create_future()

        def give(value: str | None) -> None:
            if not answer.done():
                answer.set_result(value)

        def ask() -> None:
            value = None
            with contextlib.suppress(EOFError):
                value = _read_line(prompt, password=password)
            self._loop.call_soon_threadsafe(give, value)

        self._work.put(ask)
        return await answer

    # On the cell's own thread.

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await `call()` on the loop, and meanwhile show what it puts out. Ctrl-C cancels it."""
        ended: list[T | BaseException] = []
        task: list[asyncio.Task[None]] = []

        async def run() -> None:
            try:
                ended.append(await call())
            except BaseException as error:
                ended.append(error)
                if not isinstance(error, Exception | asyncio.CancelledError):
                    raise
            finally:
                self._work.put(None)

        def begin() -> None:
            task.append(self._loop.create_task(run()))

        self._loop.call_soon_threadsafe(begin)
        try:
            self._show_until_end()
        except KeyboardInterrupt:
            self._loop.call_soon_threadsafe(lambda: task[0].cancel())
            self._show_until_end(_PATIENCE_AFTER_INTERRUPT)
            raise KeyboardInterrupt from None
        (outcome,) = ended
        if isinstance(outcome, asyncio.CancelledError):
            raise KeyboardInterrupt from None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _show_until_end(self, patience: float | None = _TICK) -> None:
        while True:
            try:
                work = self._work.get(timeout=patience)
            except queue.Empty:
                if patience == _TICK:
                    continue
                return
            if work is None:
                return
            work()


def show(shell: InteractiveShell, msg_type: str, content: Mapping[str, Any]) -> None:
    """Show the content of a Jupyter message in an IPython."""
    row = event_type(msg_type)
    if row is None:
        return
    if row.form is Form.TEXT:
        stream = sys.stderr if content["name"] == "stderr" else sys.stdout
        stream.write(content["text"])
        stream.flush()
    elif row.form is Form.BUNDLE:
        update = msg_type == "update_display_data"
        if _is_terminal(shell):
            _show_in_terminal(content, update=update)
            return
        shell.display_pub.publish(
            data=dict(content["data"]),
            metadata=dict(content.get("metadata") or {}),
            transient=dict(content.get("transient") or {}),
            update=update,
        )
    elif row.form is Form.CLEAR:
        shell.display_pub.clear_output(  # type: ignore[no-untyped-call]
            wait=bool(content.get("wait"))
        )


def _is_terminal(shell: InteractiveShell) -> bool:
    return not hasattr(shell, "kernel")


def _show_in_terminal(content: Mapping[str, Any], *, update: bool) -> None:
    data = content["data"]
    text = data.get("text/plain")
    progress = (content.get("metadata") or {}).get(METADATA)
    if progress is not None:
        if sys.stderr.isatty():  # one line that is written over
            sys.stderr.write(f"\r\x1b[K{text}" + ("\n" if progress == "done" else ""))
            sys.stderr.flush()
        return
    if text is None:
        text = f"<{', '.join(map(str, data))}>"
    if not update:
        sys.stdout.write(f"{text}\n")


def _request(shell: InteractiveShell) -> Mapping[str, Any]:
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return {}
    content = kernel.get_parent().get("content", {})
    return content if isinstance(content, dict) else {}


def _read_line(prompt: str, *, password: bool) -> str:
    if password:
        import getpass

        return getpass.getpass(prompt)
    return input(prompt)
