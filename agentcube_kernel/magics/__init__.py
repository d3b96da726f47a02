"""`%sandbox` and `%%sandbox`, in any IPython and in the AgentCube kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add the magics to an IPython. Loading twice changes nothing."""
    from .ipython import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics out again. Sandboxes are deleted, but for those that are kept."""
    from .ipython import unload

    unload(shell)
