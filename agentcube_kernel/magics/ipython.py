"""The magics in an IPython: in a terminal, in ipykernel, under nbclient. Plain cells run here; sandboxes elsewhere."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import queue
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from IPython.core.magic import Magics, line_cell_magic, magics_class

from ..errors import AgentCubeError
from ..kept import offers
from ..ledger import Ledger
from .completion import Completer
from .custody import Custody
from .dispatch import Context, run_cell_magic, run_line
from .notebook_sandbox import NotebookSandbox, portal_loop
from .progress import METADATA
from .sandboxes import Sandboxes
from .variables import LocalVariables

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from ..channel.protocol import Event
    from .render import Answer

log = logging.getLogger("agentcube_kernel.magics")

T = TypeVar("T")

VARIABLE = "sandbox"
"""The name under which the current sandbox is left in the user's namespace."""

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
        self.variables = LocalVariables(shell.user_ns)
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
    if msg_type == "stream":
        stream = sys.stderr if content["name"] == "stderr" else sys.stdout
        stream.write(content["text"])
        stream.flush()
    elif msg_type in ("display_data", "update_display_data"):
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
    elif msg_type == "clear_output":
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


@magics_class
class SandboxMagics(Magics):
    """`%sandbox` and `%%sandbox`."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._shell = shell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sandboxes: Sandboxes | None = None
        self._left: NotebookSandbox | None = None
        self._lock = threading.Lock()

    @property
    def sandboxes(self) -> Sandboxes:
        """The sandboxes of this notebook; made when first asked for."""
        with self._lock:
            if self._sandboxes is None:
                custody = Custody(warn=lambda text: print(text, file=sys.stderr))  # noqa: T201 - the user's notebook
                self._sandboxes = Sandboxes(custody, on_background=self._background)
            return self._sandboxes

    @line_cell_magic
    def sandbox(self, line: str, cell: str | None = None) -> Answer | None:
        """Run a command on AgentCube sandboxes, or with %% a cell in them. `%sandbox help` lists all commands."""
        return self.run(line, cell)

    def run(self, line: str, cell: str | None) -> Answer | None:
        """Run a line or a cell; answers are objects. Raises UsageError, AgentCubeError or KeyboardInterrupt."""
        if self._loop is None:
            self._loop = portal_loop()
        host = IPythonHost(self._shell, self._loop)
        context = Context(sandboxes=self.sandboxes, host=host)

        async def work() -> Answer | None:
            if cell is None:
                return await run_line(line, context)
            await run_cell_magic(line, cell, context)
            return None

        try:
            return host.run(work)
        except AgentCubeError as error:
            _shorten(error)
            raise
        finally:
            self._leave_current()

    def _leave_current(self) -> None:
        """Leave the current sandbox in the user's namespace, unless the user has something else there."""
        namespace = self._shell.user_ns
        there = namespace.get(VARIABLE)
        if there is not None and there is not self._left:
            return
        entry = self.sandboxes.current
        if entry is None or entry.sandbox is None:
            if there is not None:
                del namespace[VARIABLE]
            self._left = None
        elif self._left is None or not self._left.is_of(entry):
            self._left = NotebookSandbox(entry)
            namespace[VARIABLE] = self._left

    def _background(self, name: str, event: Event) -> None:
        """Output of a thread in a sandbox, after its cell's end. Called on the event loop's thread."""
        if event.type == "stream":
            show(self._shell, "stream", event.content)

    def close(self) -> None:
        """This IPython ends: the reaper deletes what is to be deleted, without holding anybody up."""
        if self._sandboxes is not None:
            self._sandboxes.custody.close()


def _shorten(error: AgentCubeError) -> None:
    """Show the error as its message. The way it took through this package helps nobody; `%tb` shows it."""
    if not hasattr(error, "_render_traceback_"):
        line = f"{type(error).__name__}: {error}"
        error._render_traceback_ = lambda: [line]  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class _Extension:
    magics: SandboxMagics
    completer: Completer


_extensions: WeakKeyDictionary[InteractiveShell, _Extension] = WeakKeyDictionary()


def load(shell: InteractiveShell) -> None:
    """Add the magics, completion and the clean-up at the end."""
    if shell in _extensions:
        return
    magics = SandboxMagics(shell)
    shell.register_magics(magics)
    completer = Completer(lambda: magics.sandboxes, lambda: shell.user_ns)
    completer.install(shell)
    atexit.register(magics.close)
    _extensions[shell] = _Extension(magics, completer)
    for line in offers(Ledger()):
        show(shell, "stream", {"name": "stderr", "text": f"{line}\n"})


def unload(shell: InteractiveShell) -> None:
    """Take the magics out, and delete what is to be deleted."""
    extension = _extensions.pop(shell, None)
    if extension is None:
        return
    extension.completer.uninstall(shell)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("sandbox", None)
    extension.magics.run("stop --all", None)
    extension.magics.close()
    atexit.unregister(extension.magics.close)
