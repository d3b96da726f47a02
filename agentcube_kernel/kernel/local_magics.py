"""The `%sandbox` lines of cells, whose code is imported only where they are used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..frontend.host import Host
    from ..magics.in_kernel import KernelMagics
    from ..registry.registry import Registry


class LocalMagics:
    """Runs and completes the `%sandbox` and `%%sandbox` lines of cells, on the user's side."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._magics: KernelMagics | None = None

    async def run(self, code: str, host: Host) -> str | None:
        """See `KernelMagics.run`."""
        return await (await self._load()).run(code, host)

    async def complete(self, code: str, position: int) -> dict[str, Any] | None:
        """See `KernelMagics.complete`."""
        return await (await self._load()).complete(code, position)

    async def _load(self) -> KernelMagics:
        if self._magics is None:
            self._magics = await asyncio.to_thread(_import_magics, self._registry)
        return self._magics


def _import_magics(registry: Registry) -> KernelMagics:
    from ..magics.in_kernel import KernelMagics

    return KernelMagics(registry)


def may_concern(code: str) -> bool:
    """True when the code may hold a line of ours."""
    return "%sandbox" in code or "load_ext agentcube_kernel" in code
