"""The magics in an IPython: in a terminal, in ipykernel, under nbclient. Plain cells run here; sandboxes elsewhere."""

from __future__ import annotations

import atexit
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from IPython.core.magic import Magics, line_cell_magic, magics_class

from ..channel.events import event_type
from ..errors import AgentCubeError
from ..registry.registry import Registry
from ..sessions.keeper import Keeper
from ..sessions.kept_sessions import offers, this_notebook
from ..sessions.ledger import Ledger
from .completion import Completer
from .dispatch import Context, run_cell_magic, run_line
from .ipython_host import IPythonHost, show
from .notebook_sandbox import NotebookSandbox, portal_loop
from .variables import LocalVariables

if TYPE_CHECKING:
    import asyncio

    from IPython.core.interactiveshell import InteractiveShell

    from ..channel.protocol import Event
    from .render import Answer

log = logging.getLogger("agentcube_kernel.magics")

VARIABLE = "sandbox"
"""The name under which the current sandbox is left in the user's namespace."""


@magics_class
class SandboxMagics(Magics):
    """`%sandbox` and `%%sandbox`."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._shell = shell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._registry: Registry | None = None
        self._told_trouble: str | None = None
        self._left: NotebookSandbox | None = None
        self._lock = threading.Lock()

    @property
    def registry(self) -> Registry:
        """The sandboxes of this notebook; made when first asked for."""
        with self._lock:
            if self._registry is None:
                self._registry = Registry(Keeper(), notebook=this_notebook(), on_background=self._background)
            return self._registry

    @line_cell_magic
    def sandbox(self, line: str, cell: str | None = None) -> Answer | None:
        """Run a command on AgentCube sandboxes, or with %% a cell in them. `%sandbox help` lists all commands."""
        return self.run(line, cell)

    def run(self, line: str, cell: str | None) -> Answer | None:
        """Run a line or a cell; answers are objects. Raises UsageError, AgentCubeError or KeyboardInterrupt."""
        if self._loop is None:
            self._loop = portal_loop()
        host = IPythonHost(self._shell, self._loop)
        context = Context(registry=self.registry, host=host, variables=LocalVariables(self._shell.user_ns))

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
            self._tell_trouble()

    def _tell_trouble(self) -> None:
        trouble = self.registry.keeper.trouble
        if trouble is not None and trouble != self._told_trouble:
            self._told_trouble = trouble
            show(self._shell, "stream", {"name": "stderr", "text": f"{trouble}\n"})

    def _leave_current(self) -> None:
        """Leave the current sandbox in the user's namespace, unless the user has something else there."""
        namespace = self._shell.user_ns
        there = namespace.get(VARIABLE)
        if there is not None and there is not self._left:
            return
        entry = self.registry.current
        if entry is None or entry.sandbox is None:
            if there is not None:
                del namespace[VARIABLE]
            self._left = None
        elif self._left is None or not self._left.is_of(entry):
            self._left = NotebookSandbox(entry)
            namespace[VARIABLE] = self._left

    def _background(self, name: str, event: Event) -> None:
        """Output of a thread in a sandbox, after its cell's end. Called on the event loop's thread."""
        row = event_type(event.type)
        if row is not None and row.in_background:
            show(self._shell, event.type, event.content)

    def close(self) -> None:
        """This IPython ends: the reaper deletes what is to be deleted, without holding anybody up."""
        if self._registry is not None:
            self._registry.keeper.close()


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
    completer = Completer(lambda: magics.registry, lambda: shell.user_ns)
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
