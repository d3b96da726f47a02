"""IPython's shell for the guest: results, displays, errors and the pager become events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from IPython.core import page
from IPython.core.autocall import ZMQExitAutocall
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.utils.process import system as run_in_terminal
from traitlets import Any as AnyTrait
from traitlets import Type

from .outgoing import current_cell

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .outgoing import Outgoing

_CELL = "agentcube_cell"

_ENVIRONMENT = {
    "TERM": "xterm-color",
    "CLICOLOR": "1",
    "FORCE_COLOR": "1",
    "CLICOLOR_FORCE": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}


class GuestDisplayHook(DisplayHook):
    """Publishes the value of a cell's last expression as execute_result."""

    outgoing: Outgoing = AnyTrait()
    showing = False

    def start_displayhook(self) -> None:
        self._content: dict[str, Any] = {"data": {}, "metadata": {}}
        self.showing = True

    def write_output_prompt(self) -> None:
        self._content["execution_count"] = self.prompt_count

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        self._content["data"] = dict(format_dict)
        self._content["metadata"] = md_dict or {}

    def finish_displayhook(self) -> None:
        self.showing = False
        flush_streams()
        if self._content["data"]:
            self.outgoing.event("execute_result", self._content)


class GuestDisplayPublisher(DisplayPublisher):
    """Publishes display_data, update_display_data and clear_output."""

    outgoing: Outgoing = AnyTrait()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hooks = threading.local()

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        self._validate_data(data, metadata or {})
        content = {"data": data, "metadata": metadata or {}, "transient": transient or {}}
        self._send("update_display_data" if update else "display_data", content)

    def clear_output(self, wait: bool = False) -> None:
        self._send("clear_output", {"wait": wait})

    def register_hook(self, hook: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Call `hook` with each message of this thread; it returns the message to send, or None."""
        self._hook_list().append(hook)

    def unregister_hook(self, hook: Callable[[dict[str, Any]], dict[str, Any] | None]) -> bool:
        hooks = self._hook_list()
        if hook in hooks:
            hooks.remove(hook)
            return True
        return False

    def _hook_list(self) -> list[Callable[[dict[str, Any]], dict[str, Any] | None]]:
        if not hasattr(self._hooks, "list"):
            self._hooks.list = []
        return self._hooks.list  # type: ignore[no-any-return]

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        flush_streams()
        message: dict[str, Any] | None = {"header": {"msg_type": kind}, "msg_type": kind, "content": content}
        for hook in self._hook_list():
            message = hook(message) if message is not None else None
        if message is not None:
            self.outgoing.event(kind, message["content"])


class GuestKernel:
    """What libraries look for in `get_ipython().kernel`: the parent of the output that is being made."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    def get_parent(self, channel: str | None = None) -> dict[str, Any]:
        # A front end knows the message by the part before the mark; see `protocol.Event`.
        message = self._outgoing.cell().partition("~")[0]
        if not message:
            return {}
        return {"header": {"msg_id": message, "msg_type": "execute_request"}, _CELL: self._outgoing.cell()}

    @property
    def _parent_header(self) -> dict[str, Any]:
        return self.get_parent()


@magics_class
class GuestMagics(Magics):
    """The magics of ipykernel that make sense without a terminal."""

    @line_magic
    def clear(self, _line: str) -> None:
        """Clear the output of this cell."""
        self.shell.display_pub.clear_output(wait=False)

    @line_magic
    def less(self, line: str) -> None:
        """Show a file in the pager."""
        if not line:
            raise UsageError("Missing filename.")
        with open(os.path.expanduser(line.strip()), encoding="utf-8", errors="replace") as file:
            page.page(file.read())

    more = line_magic("more")(less)

    @line_magic
    def man(self, line: str) -> None:
        """Show a manual page in the pager."""
        page.page(self.shell.getoutput(f"man {line} | col -b", split=False))

    @line_magic
    def autosave(self, line: str) -> None:
        """Nothing to do here: saving is the front end's."""


class GuestShell(InteractiveShell):
    """One per worker; cells run in it one after the other in the main thread."""

    displayhook_class = Type(GuestDisplayHook)
    display_pub_class = Type(GuestDisplayPublisher)
    kernel = AnyTrait()
    outgoing: Outgoing = AnyTrait()
    exiter = AnyTrait()
    interrupted = False
    last_error: dict[str, Any] | None = None
    failed_to_show = False

    def __init__(self, outgoing: Outgoing, **kwargs: Any) -> None:
        self.autoindent = False
        # What libraries look for to learn that they are in a notebook and not in a terminal.
        kwargs["config"].IPKernelApp.connection_file = ""
        super().__init__(**kwargs)
        self.outgoing = self.displayhook.outgoing = self.display_pub.outgoing = outgoing
        self.kernel = GuestKernel(outgoing)
        self.exiter = ZMQExitAutocall(self)
        self.user_ns_hidden.update(exit=self.exiter, quit=self.exiter)
        self.user_ns["exit"] = self.user_ns["quit"] = self.exiter
        self.keepkernel_on_exit = None

    def get_parent(self) -> dict[str, Any]:
        """The message that the calling code runs for."""
        return self.kernel.get_parent()  # type: ignore[no-any-return]

    def set_thread_parent(self, parent: dict[str, Any]) -> Any:
        """Let what this thread puts out belong to the cell of `parent`; returns what `reset_thread_parent` takes."""
        return current_cell.set(parent.get(_CELL, ""))

    def reset_thread_parent(self, token: Any) -> None:
        current_cell.reset(token)

    def init_environment(self) -> None:
        os.environ.update(_ENVIRONMENT)
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")

    def init_virtualenv(self) -> None:
        """The sandbox's python3 is the right one as it is."""

    def init_hooks(self) -> None:
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(self._page), 99)

    def init_magics(self) -> None:
        super().init_magics()
        self.register_magics(GuestMagics)

    def _page(self, text: Any, start: int = 0, screen_lines: int = 0, pager_cmd: str | None = None) -> None:
        data = text if isinstance(text, dict) else {"text/plain": text}
        self.payload_manager.write_payload({"source": "page", "data": data, "start": max(0, start)})

    def set_next_input(self, text: str, replace: bool = False) -> None:
        self.payload_manager.write_payload({"source": "set_next_input", "text": text, "replace": replace})

    def ask_exit(self) -> None:
        self.payload_manager.write_payload({"source": "ask_exit", "keepkernel": self.keepkernel_on_exit})

    def enable_gui(self, gui: str | None = None) -> None:
        if gui not in (None, "inline", "asyncio", ""):
            raise UsageError(f"There is no screen in the sandbox for the {gui!r} event loop.")

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        if self.interrupted:
            kind, _, traceback = exc_tuple or sys.exc_info()
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                # The cell was awaiting something; it was cancelled because the user pressed interrupt.
                exc_tuple = (KeyboardInterrupt, KeyboardInterrupt().with_traceback(traceback), traceback)
            _hide_handler(traceback)
        super().showtraceback(exc_tuple, *args, **kwargs)

    def _showtraceback(
        self, etype: type[BaseException], evalue: BaseException | None, stb: list[str]
    ) -> None:
        flush_streams()
        self.last_error = error_content(etype, evalue, stb)
        self.failed_to_show = self.failed_to_show or self.displayhook.showing
        self.outgoing.event("error", self.last_error)

    def system_piped(self, cmd: str) -> None:
        """Run a shell command with its output live; `_exit_code` holds its status, and a failure is shown."""
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")
        self.interrupted = False
        code = run_in_terminal(self.var_expand(cmd, depth=1))
        if self.interrupted:
            raise KeyboardInterrupt
        self.user_ns["_exit_code"] = code
        if code:
            flush_streams()
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            self.outgoing.text("stderr", f"[{reason}]\n")
        if getattr(self, "system_raise_on_error", False) and code:
            raise subprocess.CalledProcessError(code, cmd)

    system = system_piped


def _hide_handler(traceback: TracebackType | None) -> None:
    """Cut our own SIGINT handler off the end of a traceback: users interrupted their code, not ours."""
    while traceback is not None:
        after = traceback.tb_next
        if after is not None and after.tb_frame.f_globals.get("__package__") == __package__:
            traceback.tb_next = None
        traceback = traceback.tb_next


def flush_streams() -> None:
    """Flush whatever a cell may have put in place of the streams; what cannot be flushed is the cell's affair."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def error_content(
    etype: type[BaseException], evalue: BaseException | None, traceback: list[str]
) -> dict[str, Any]:
    """The content of an error message, also for an exception that cannot be turned into text."""
    try:
        text = str(evalue)
    except Exception as exc:
        text = f"<exception str() failed: {type(exc).__name__}>"
    return {"ename": str(etype.__name__), "evalue": text, "traceback": [str(line) for line in traceback]}
