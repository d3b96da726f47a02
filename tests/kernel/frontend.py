"""A front end for tests: it starts a real kernel process and keeps every message that comes back."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

Message = dict[str, Any]
TIMEOUT = 30.0
NOT_THERE = {"ROUTER_URL": "http://127.0.0.1:9", "WORKLOAD_MANAGER_URL": "http://127.0.0.1:9"}
"""Settings that lead nowhere: connections are refused, which the client takes for a while to be a passing state."""


@dataclass
class Outcome:
    """What one request brought back."""

    reply: Message
    outputs: list[Message] = field(default_factory=list)

    @property
    def status(self) -> str:
        return str(self.reply["content"]["status"])

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = self.reply["content"]
        return content

    @property
    def types(self) -> list[str]:
        """The types of everything published but the status messages."""
        return [message["msg_type"] for message in self.outputs if message["msg_type"] != "status"]

    def of_type(self, msg_type: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.outputs if message["msg_type"] == msg_type]

    def text(self, name: str = "stdout") -> str:
        return "".join(content["text"] for content in self.of_type("stream") if content["name"] == name)

    @property
    def result(self) -> str | None:
        results = self.of_type("execute_result")
        return results[0]["data"]["text/plain"] if results else None

    @property
    def count(self) -> int | None:
        """The number that the front end shows beside the cell."""
        inputs = self.of_type("execute_input")
        return inputs[0]["execution_count"] if inputs else None


class FrontEnd:
    """One kernel process, and a client of it."""

    def __init__(self, manager: AsyncKernelManager) -> None:
        self.manager = manager
        self.messages: list[Message] = []
        self._changed = asyncio.Condition()
        self._readers: list[asyncio.Task[None]] = []
        self.client: AsyncKernelClient

    async def connect(self) -> None:
        """Make a client for the kernel that runs now, and wait until it answers."""
        await self.disconnect()
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=TIMEOUT)
        for channel in ("iopub", "shell", "stdin", "control"):
            self._readers.append(asyncio.create_task(self._read(channel)))

    async def disconnect(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        if self._readers:
            self._readers.clear()
            self.client.stop_channels()

    async def _read(self, channel: str) -> None:
        receive = getattr(self.client, f"get_{channel}_msg")
        while True:
            message = await receive(timeout=None)
            async with self._changed:
                self.messages.append({**message, "channel": channel})
                self._changed.notify_all()

    async def until(self, wanted: Callable[[Message], object], timeout: float = TIMEOUT) -> Message:
        """Wait for the first message that fits, counting those that have come already."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                while True:
                    for message in self.messages:
                        if wanted(message):
                            return message
                    await self._changed.wait()
        except TimeoutError:
            last = [(m["channel"], m["msg_type"], m["content"]) for m in self.messages[-12:]]
            raise AssertionError(f"no such message within {timeout:g} s; the last ones: {last}") from None

    def send(self, msg_type: str, content: Mapping[str, Any], *, channel: str = "shell", **parts: Any) -> str:
        """Send any message and return its id. `parts` are metadata and buffers."""
        message = self.client.session.msg(msg_type, dict(content), metadata=parts.get("metadata"))
        target = getattr(self.client, f"{channel}_channel")
        self.client.session.send(target.socket, message, buffers=parts.get("buffers"))
        return str(message["header"]["msg_id"])

    def begin(self, code: str, **options: Any) -> str:
        """Send a cell and return its id."""
        return self.client.execute(code, **options)

    async def end(self, request: str, timeout: float = TIMEOUT) -> Outcome:
        """Wait for the reply to a request and for the kernel to be idle with it."""
        reply = await self.reply(request, timeout)
        await self.until(lambda m: _is_idle(m, request), timeout)
        outputs = [m for m in self.messages if m["channel"] == "iopub" and _parent(m) == request]
        return Outcome(reply=reply, outputs=outputs)

    async def reply(self, request: str, timeout: float = TIMEOUT) -> Message:
        return await self.until(
            lambda m: m["channel"] in ("shell", "control") and _parent(m) == request, timeout
        )

    async def run(self, code: str, *, timeout: float = TIMEOUT, **options: Any) -> Outcome:
        """Run a cell to its end."""
        return await self.end(self.begin(code, **options), timeout)

    async def ask(
        self, msg_type: str, content: Mapping[str, Any], *, channel: str = "shell"
    ) -> dict[str, Any]:
        """Send a request and return the content of its reply."""
        reply = await self.reply(self.send(msg_type, content, channel=channel))
        answer: dict[str, Any] = reply["content"]
        return answer

    async def printed(self, request: str, text: str, timeout: float = TIMEOUT) -> None:
        """Wait until a cell has printed a text."""
        await self.until(lambda m: _parent(m) == request and text in m["content"].get("text", ""), timeout)

    async def asked(self, request: str) -> dict[str, Any]:
        """Wait for a cell's question to the user."""
        message = await self.until(lambda m: m["channel"] == "stdin" and _parent(m) == request)
        content: dict[str, Any] = message["content"]
        return content

    def answer(self, text: str) -> None:
        """Type a line."""
        self.client.input(text)

    async def interrupt(self) -> None:
        await self.manager.interrupt_kernel()

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)  # type: ignore[union-attr]

    async def kill_and_start_again(self) -> None:
        """SIGKILL the kernel and start it again on the same connection file, as Jupyter does after a crash."""
        await self.disconnect()
        await self.manager.restart_kernel(now=True)
        self.messages.clear()
        await self.connect()

    async def restart(self) -> None:
        """What the restart button does."""
        await self.disconnect()
        await self.manager.restart_kernel()
        self.messages.clear()
        await self.connect()

    async def is_alive(self) -> bool:
        return await self.manager.is_alive()


def _parent(message: Message) -> str:
    return str(message["parent_header"].get("msg_id", ""))


def _is_idle(message: Message, request: str) -> bool:
    return (
        message["msg_type"] == "status"
        and message["content"]["execution_state"] == "idle"
        and _parent(message) == request
    )


def write_kernelspec(folder: Path) -> None:
    """The kernel as it is installed, but run from where these tests are."""
    spec = {
        "argv": [sys.executable, "-m", "agentcube_kernel", "-f", "{connection_file}"],
        "display_name": "AgentCube Remote",
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"supported_encryption": ["curve"]},
    }
    (folder / "agentcube").mkdir(parents=True, exist_ok=True)
    (folder / "agentcube" / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


@asynccontextmanager
async def front_end(
    folder: Path, env: Mapping[str, str], *, arguments: Sequence[str] = (), connect: bool = True
) -> AsyncIterator[FrontEnd]:
    """A kernel with this environment, shut down at the end."""
    write_kernelspec(folder)
    manager = AsyncKernelManager(
        kernel_name="agentcube", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(folder)])
    )
    log = folder / "kernel.log"
    await manager.start_kernel(
        env={**os.environ, "AGENTCUBE_LOG_FILE": str(log), **env}, extra_arguments=list(arguments)
    )
    user = FrontEnd(manager)
    try:
        if connect:
            await user.connect()
        yield user
    finally:
        await user.disconnect()
        if await manager.is_alive():
            await manager.shutdown_kernel()
        else:
            await manager.cleanup_resources()
