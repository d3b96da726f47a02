"""Notebooks for tests of the magics: the same words in the AgentCube kernel and in ipykernel."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from tests.kernel.frontend import FrontEnd, Outcome

MODULES = {"agentcube": "agentcube_kernel", "ipykernel": "ipykernel_launcher"}
KINDS = tuple(MODULES)


class Notebook(FrontEnd):
    """A kernel, and what a user sees of it."""

    kind: str

    async def cell(self, code: str, *, timeout: float = 60.0) -> Outcome:
        """Run a cell that has to end well."""
        outcome = await self.run(code, timeout=timeout)
        assert outcome.status == "ok", (outcome.content, shown(outcome))
        return outcome

    async def fails(self, code: str, *, timeout: float = 60.0) -> str:
        """Run a cell that has to fail; `Name: message` of its error."""
        outcome = await self.run(code, timeout=timeout)
        assert outcome.status == "error", shown(outcome)
        return f"{outcome.content['ename']}: {outcome.content['evalue']}"

    async def says(self, line: str) -> str:
        """Run a `%sandbox` line; the text of its answer."""
        outcome = await self.cell(f"%sandbox {line}")
        return shown(outcome)

    async def session_id(self, name: str = "") -> str:
        """The id of a sandbox's session."""
        found = re.search(r"session +([0-9a-f-]{36})", await self.says(f"info {name}"))
        assert found is not None
        return found[1]

    async def completions(self, code: str) -> list[str]:
        """What Tab offers at the end of the code."""
        reply = await self.ask("complete_request", {"code": code, "cursor_pos": len(code)})
        matches: list[str] = reply["matches"]
        return matches


def shown(outcome: Outcome) -> str:
    """All text that a user would read."""
    parts = []
    for message in outcome.outputs:
        content = message["content"]
        if message["msg_type"] == "stream":
            parts.append(content["text"])
        elif "data" in content:
            parts.append(content["data"].get("text/plain", ""))
    return re.sub(r"\x1b\[[0-9;]*m", "", "".join(parts))


@asynccontextmanager
async def notebook(kind: str, folder: Path, env: Mapping[str, str]) -> AsyncIterator[Notebook]:
    """A kernel of that kind with the magics loaded, started in an empty folder and shut down at the end."""
    spec = {
        "argv": [sys.executable, "-m", MODULES[kind], "-f", "{connection_file}"],
        "display_name": kind,
        "language": "python",
        "interrupt_mode": "message" if kind == "agentcube" else "signal",
        "metadata": {"supported_encryption": ["curve"]},
    }
    specs, work = folder / "specs", folder / "work"
    (specs / kind).mkdir(parents=True)
    work.mkdir()
    (specs / kind / "kernel.json").write_text(json.dumps(spec))
    manager = AsyncKernelManager(
        kernel_name=kind, kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(specs)])
    )
    await manager.start_kernel(cwd=str(work), env={**os.environ, **env, "PYTHONWARNINGS": "ignore"})
    user = Notebook(manager)
    user.kind = kind
    try:
        await user.connect()
        if kind != "agentcube":
            await user.cell("%load_ext agentcube_kernel")
        yield user
    finally:
        await user.disconnect()
        if await manager.is_alive():
            await manager.shutdown_kernel()
        else:
            await manager.cleanup_resources()
