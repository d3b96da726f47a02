"""The kernel as a process."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import SimpleNamespace
from typing import Any, cast

from ipykernel.kernelapp import IPKernelApp
from IPython.core.history import HistoryManager
from traitlets import Type, Unicode, default

from ..config import Settings
from .kernel import AgentCubeKernel


class AgentCubeKernelApp(IPKernelApp):
    """Starts the kernel on a connection file.

    It takes every option that ipykernel takes. Nothing that this process itself writes ends up in the user's cells:
    its log goes to the file `log_file`, or nowhere.
    """

    name = "agentcube-kernel"
    classes = [AgentCubeKernel, *IPKernelApp.classes, HistoryManager]  # noqa: RUF012 - as the base class has it
    kernel_class = Type(AgentCubeKernel, klass="ipykernel.kernelbase.Kernel").tag(config=True)  # type: ignore[assignment]
    log_file = Unicode(
        help="Write the kernel's log to this file (environment: AGENTCUBE_LOG_FILE).",
    ).tag(config=True)

    @default("log_file")
    def _log_file_default(self) -> str:
        return Settings.load_one("log_file") or ""

    @default("log")
    def _log_default(self) -> logging.Logger:
        return logging.getLogger("agentcube_kernel")

    def _configure_logging(self) -> None:
        """Send every logger of this process to the file, or nowhere: stderr is the terminal of whoever started us."""
        handler: logging.Handler = logging.NullHandler()
        if self.log_file:
            handler = logging.FileHandler(os.path.expanduser(self.log_file), delay=True, encoding="utf-8")
            handler.setFormatter(
                logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
            )
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING)
        logging.getLogger("agentcube_kernel").setLevel(cast("int", self.log_level))
        for name in ("httpx", "httpcore"):  # their lines say nothing that ours do not
            logging.getLogger(name).setLevel(logging.WARNING)
        self._logging_configured = True

    def configure_tornado_logger(self) -> None:
        """Done in `_configure_logging`."""

    def init_control(self, context: Any) -> None:
        """Open the control channel, and read the shell channel in the main thread: subshells are not offered."""
        super().init_control(context)
        self.shell_channel_thread = None

    def init_io(self) -> None:
        """Leave stdout and stderr alone: what this process prints is not the output of any cell."""
        self.displayhook = SimpleNamespace()

    def reset_io(self) -> None:
        """Nothing was replaced."""

    def init_path(self) -> None:
        """Leave sys.path alone: no code of the user's runs here."""

    def init_signal(self) -> None:
        """Interrupt the running cell on SIGINT and shut down in order on SIGTERM."""
        signal.signal(signal.SIGINT, lambda number, frame: self.kernel and self.kernel.interrupt())
        signal.signal(signal.SIGTERM, self._on_terminate)

    def _on_terminate(self, number: int, frame: Any) -> None:
        if self.kernel is None:
            sys.exit(128 + number)
        self.kernel.terminate()


def main() -> None:
    """Run the kernel until it is shut down."""
    AgentCubeKernelApp.launch_instance()
