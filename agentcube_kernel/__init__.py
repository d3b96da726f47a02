"""AgentCube sandboxes from Jupyter and from Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentcube_kernel.client.code_interpreter import (
        AsyncCodeInterpreterClient as AsyncCodeInterpreterClient,
    )

_HOMES = {
    "AsyncCodeInterpreterClient": "client.code_interpreter",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
