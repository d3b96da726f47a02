"""Kernels to measure, as a front end sees them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

OURS = "agentcube"
BASELINE = "python3"


class Kernel:
    """One running kernel and a client of it. `launched` is when its process was started."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient, launched: float) -> None:
        self.manager = manager
        self.client = client
        self.launched = launched

    @property
    def pid(self) -> int:
        """The process of the kernel itself."""
        assert self.manager.provisioner is not None
        return int(self.manager.provisioner.pid)  # type: ignore[attr-defined]

    def kernel_info(self) -> None:
        """Ask for the kernel's info and wait for the answer."""
        message_id = self.client.kernel_info()
        while self.client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != message_id:
            pass

    def events(self, code: str, timeout: float = 120) -> Iterator[tuple[float, dict[str, Any]]]:
        """Run a cell; yield each of its messages with the time of its arrival, until reply and idle are there."""
        message_id = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != message_id:
                continue
            if message["content"].get("execution_state") == "idle":
                break
            yield time.time(), message
        while True:
            reply = self.client.get_shell_msg(timeout=timeout)
            if reply["parent_header"].get("msg_id") == message_id:
                if reply["content"]["status"] != "ok":
                    raise RuntimeError(f"{reply['content'].get('ename')}: {reply['content'].get('evalue')}")
                return

    def answer(self, expression: str) -> str:
        """Have an expression's value come back with the reply, which arrives also before iopub is subscribed to."""
        message_id = self.client.execute("", user_expressions={"value": expression}, store_history=False)
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == message_id:
                return str(reply["content"]["user_expressions"]["value"]["data"]["text/plain"])

    def run(self, code: str) -> str:
        """Run a cell and return the text of its output."""
        text = ""
        for _, message in self.events(code):
            content = message["content"]
            text += content.get("text", "") or content.get("data", {}).get("text/plain", "")
        return text

    def round_trip(self, code: str) -> float:
        """Seconds from a cell's request to its reply and the idle status."""
        begun = time.perf_counter()
        for _ in self.events(code):
            pass
        return time.perf_counter() - begun


@contextlib.contextmanager
def launched(name: str, env: Mapping[str, str]) -> Iterator[Kernel]:
    """Start a kernel, without waiting for it to answer; shut it down in the end."""
    with tempfile.TemporaryDirectory() as folder:
        manager = KernelManager(kernel_name=name, connection_file=str(Path(folder) / "kernel.json"))
        begun = time.perf_counter()
        manager.start_kernel(env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = manager.blocking_client()
        client.start_channels(hb=False)
        try:
            yield Kernel(manager, client, begun)
        finally:
            client.stop_channels()
            manager.shutdown_kernel()
            manager.cleanup_resources()


@contextlib.contextmanager
def ready(name: str, env: Mapping[str, str]) -> Iterator[Kernel]:
    """Start a kernel and have its first cell answered."""
    with launched(name, env) as kernel:
        kernel.client.wait_for_ready(timeout=60)
        kernel.run("None")
        yield kernel
