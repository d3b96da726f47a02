"""The tools of a sandbox with aisuite's metadata, by which its policies decide what an agent may do.

Without aisuite they are the plain functions of `.tools`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import tools

if TYPE_CHECKING:
    from ..sandbox import AsyncSandbox
    from ..sync_sandbox import Sandbox

# What a tool can do at worst is bounded by the sandbox, so that none needs an approval.
_RISKS = {
    "run_python": ("code", "medium", ["execute"]),
    "run_shell": ("shell", "medium", ["execute"]),
    "read_file": ("files", "low", ["read"]),
    "write_file": ("files", "medium", ["write"]),
}


def sandbox_tools(
    sandbox: Sandbox, *, timeout: float = tools.DEFAULT_TIMEOUT, prefix: str = ""
) -> list[tools.Tool]:
    """As `tools.sandbox_tools`, with aisuite's metadata if aisuite is installed."""
    return _with_metadata(tools.sandbox_tools(sandbox, timeout=timeout, prefix=prefix))


def asandbox_tools(
    sandbox: AsyncSandbox, *, timeout: float = tools.DEFAULT_TIMEOUT, prefix: str = ""
) -> list[tools.AsyncTool]:
    """As `tools.asandbox_tools`, with aisuite's metadata if aisuite is installed."""
    return _with_metadata(tools.asandbox_tools(sandbox, timeout=timeout, prefix=prefix))


def _with_metadata(functions: list[Any]) -> list[Any]:
    try:
        import aisuite
    except ImportError:
        return functions
    described = []
    for function, (category, risk, capabilities) in zip(functions, _RISKS.values(), strict=True):
        metadata = aisuite.ToolMetadata(
            category=category, risk_level=risk, capabilities=capabilities, requires_approval=False
        )
        described.append(aisuite.tool(function, metadata=metadata))
    return tools.ToolList(described)
