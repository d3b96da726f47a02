"""What this kernel says about itself."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

IMPLEMENTATION = "agentcube_kernel"

HELP_LINKS = [
    {"text": "AgentCube", "url": "https://github.com/volcano-sh/agentcube"},
    {
        "text": "Python Reference",
        "url": f"https://docs.python.org/{sys.version_info[0]}.{sys.version_info[1]}",
    },
    {"text": "IPython Reference", "url": "https://ipython.org/documentation.html"},
    {"text": "NumPy Reference", "url": "https://docs.scipy.org/doc/numpy/reference/"},
    {"text": "SciPy Reference", "url": "https://docs.scipy.org/doc/scipy/reference/"},
    {"text": "Matplotlib Reference", "url": "https://matplotlib.org/contents.html"},
    {"text": "SymPy Reference", "url": "http://docs.sympy.org/latest/index.html"},
    {"text": "pandas Reference", "url": "https://pandas.pydata.org/pandas-docs/stable/"},
]


def language_info() -> dict[str, Any]:
    """The language as ipykernel describes it.

    The version is this machine's, since front ends ask before any sandbox exists and never again.
    """
    version = sys.version_info
    return {
        "name": "python",
        "version": f"{version[0]}.{version[1]}.{version[2]}",
        "mimetype": "text/x-python",
        "codemirror_mode": {"name": "ipython", "version": version[0]},
        "pygments_lexer": f"ipython{version[0]}",
        "nbconvert_exporter": "python",
        "file_extension": ".py",
    }


@cache
def version() -> str:
    """The version of this package, as installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version("agentcube-kernel")
    except PackageNotFoundError:  # run from a checkout
        return "0"


def banner() -> str:
    return (
        f"AgentCube Remote {version()}: cells run in an AgentCube sandbox, not on this machine.\n"
        "Type '%sandbox' for the sandbox, 'object?' for details about an object.\n"
    )
