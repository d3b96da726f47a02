"""The version of the installed package, as far as it is known."""

from __future__ import annotations

import functools


@functools.cache
def package_version() -> str:
    """The distribution's version, `unknown` for sources that were never installed."""
    # Imported late: the metadata machinery costs a gateway's start more than everything else of ours.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("agentcube-kernel")
    except PackageNotFoundError:
        return "unknown"
