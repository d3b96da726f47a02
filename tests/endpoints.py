"""Which AgentCube a test run talks to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

START_TIMEOUT = 30.0
TAKEOVER_SECONDS = 6.0
"""How long reapers wait in tests for another kernel to take a sandbox over; users are given a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An AgentCube: what it is, and the environment variables that lead a kernel or client to it."""

    kind: Literal["embedded", "cluster", "picod"]
    env: Mapping[str, str]
    pid: int | None = None

    @property
    def data_url(self) -> str:
        """The base URL that execute calls go to: the Router's, or PicoD's own."""
        return self.env.get("ROUTER_URL") or self.env["AGENTCUBE_PICOD_URL"]


def endpoint_from(environ: Mapping[str, str]) -> Endpoint | None:
    """The endpoint that an environment names, if it names one."""
    if environ.get("AGENTCUBE_PICOD_URL"):
        return Endpoint(kind="picod", env=dict(environ))
    if environ.get("ROUTER_URL") and environ.get("WORKLOAD_MANAGER_URL"):
        return Endpoint(kind="cluster", env=dict(environ))
    return None


@contextlib.contextmanager
def start_embedded(home: Path, *arguments: str, python: str = sys.executable) -> Iterator[Endpoint]:
    """Run `agentcube-kernel serve` for the length of a `with` block; its sandboxes end with it."""
    home.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "agentcube_kernel.cli.main", "serve", "--json", *arguments]
    log_path = home / "serve.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=os.environ, cwd=home
        )
    assert process.stdout is not None
    try:
        watchdog = threading.Timer(START_TIMEOUT, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        watchdog.join()
        if not line:
            told_instead = log_path.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the embedded gateway did not start: {told_instead}")
        told = json.loads(line)
        env = {
            "ROUTER_URL": told["router_url"],
            "WORKLOAD_MANAGER_URL": told["workload_manager_url"],
            "AGENTCUBE_TOKEN": told["token"],
        }
        yield Endpoint(kind="embedded", env=env, pid=process.pid)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()
