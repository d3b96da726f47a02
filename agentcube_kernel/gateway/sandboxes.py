"""Sandboxes of the embedded gateway: a folder, an environment, what runs there, and a lifetime."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import shutil
import string
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

from .environment import sandbox_environment
from .isolation import Isolation, IsolationFailed
from .processes import MARKER, kill_sandboxes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .config import GatewayConfig
    from .execute import Command
    from .isolation import Namespace
    from .processes import Children
    from .runtime import Runtime

_log = logging.getLogger("agentcube_kernel.gateway")

CODE_INTERPRETER = "CodeInterpreter"
AGENT_RUNTIME = "AgentRuntime"


class Sandbox:
    """One session: its folder, its environment, and what runs in it."""

    def __init__(
        self, folder: str, *, kind: str, namespace: str, name: str, expires: float, idle: float
    ) -> None:
        suffix = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
        self.session_id = str(uuid.uuid4())
        self.sandbox_id = str(uuid.uuid4())
        self.marker = marker_of(folder)
        self.sandbox_name = f"{name}-{suffix}"
        self.kind, self.namespace, self.name = kind, namespace, name
        self.folder = folder
        self.workspace = os.path.join(folder, "workspace")
        self.expires = expires
        self.idle_timeout = idle
        self.last_activity = self.started = time.monotonic()
        self.in_flight = 0
        self.gone = asyncio.Event()
        self.runtime: Runtime | None = None
        self.commands: set[Command] = set()
        self.env: dict[str, str] = {}
        self.view: Namespace | None = None
        self.root = -1
        """A descriptor of the workspace, since code in the sandbox could put a link in its place."""

    @property
    def deadline(self) -> float:
        """When the session ends (monotonic clock) unless it is used again; a request under way holds it."""
        return self.expires if self.in_flight else min(self.expires, self.last_activity + self.idle_timeout)

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Count a request: activity when it arrives and when it ends."""
        self.in_flight += 1
        self.last_activity = time.monotonic()
        try:
            yield
        finally:
            self.in_flight -= 1
            self.last_activity = time.monotonic()
            if self.gone.is_set() and not self.in_flight:
                self.close()

    def close(self) -> None:
        """Close the workspace. Idempotent; called when no request is left that could use it."""
        if self.root >= 0:
            os.close(self.root)
            self.root = -1


class SandboxStore:
    """All sessions of a gateway, below one private folder. Ends each when its time has come."""

    def __init__(self, config: GatewayConfig, root: str, children: Children) -> None:
        self.config = config
        self.root = root
        self.children = children
        self.isolation = Isolation.choose(config.bubblewrap)
        self._sandboxes: dict[str, Sandbox] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._closed = False
        self._collector: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to end sessions when they expire."""
        self._collector = asyncio.create_task(self._collect(), name="agentcube-gateway-collector")

    async def close(self) -> None:
        """End every session: no process and no folder is left, and none comes after."""
        self._closed = True
        if self._collector is not None:
            self._collector.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._collector
        for sandbox in list(self._sandboxes.values()):
            self._end(sandbox)
        if self._closing:
            await asyncio.wait(self._closing)

    def __len__(self) -> int:
        return len(self._sandboxes)

    async def create(self, kind: str, namespace: str, name: str, ttl: float | None = None) -> Sandbox:
        """A new session. `ttl` shortens its maximum lifetime, never lengthens it. Raises OSError."""
        lifetime = min(ttl or self.config.max_session_duration, self.config.max_session_duration)
        # Short names: a Unix socket in a workspace has little more than 100 bytes for its whole path.
        folder = os.path.join(self.root, secrets.token_hex(4))
        sandbox = Sandbox(
            folder,
            kind=kind,
            namespace=namespace,
            name=name,
            expires=time.monotonic() + lifetime,
            idle=self.config.session_timeout,
        )
        for place in (folder, sandbox.workspace, os.path.join(folder, "tmp")):
            os.mkdir(place, 0o700)
        sandbox.root = os.open(sandbox.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await self._isolate(sandbox)
            if self._closed:
                raise OSError(errno.ESHUTDOWN, "the gateway is ending")
        except BaseException:
            self._remove_soon(sandbox)
            raise
        self._sandboxes[sandbox.session_id] = sandbox
        self._changed.set()
        return sandbox

    async def _isolate(self, sandbox: Sandbox) -> None:
        """Give a new sandbox its environment and its world. Raises OSError."""
        try:
            self._set_environment(sandbox)
            sandbox.view = await self.isolation.open(sandbox.folder, sandbox.env, self.children)
        except IsolationFailed as failure:
            # bubblewrap may have been removed or upgraded since the gateway started: look again, once.
            try:
                self.isolation = await asyncio.to_thread(Isolation.choose, self.config.bubblewrap)
            except ValueError as exc:
                raise IsolationFailed(str(exc)) from failure
            _log.warning("%s; isolation from now on: %s", failure, self.isolation.kind)
            self._set_environment(sandbox)
            sandbox.view = await self.isolation.open(sandbox.folder, sandbox.env, self.children)

    def _set_environment(self, sandbox: Sandbox) -> None:
        sandbox.env = sandbox_environment(os.environ, folder=sandbox.folder, view=self.isolation.view)
        sandbox.env[MARKER] = sandbox.marker

    def get(self, session_id: str) -> Sandbox | None:
        """The live session of that id."""
        sandbox = self._sandboxes.get(session_id)
        if sandbox is not None and sandbox.deadline <= time.monotonic():
            self._end(sandbox)
            return None
        return sandbox

    async def delete(self, session_id: str) -> bool:
        """End a session and wait until nothing of it is left; False when there is none of that id."""
        sandbox = self.get(session_id)
        if sandbox is None:
            return False
        await asyncio.shield(self._end(sandbox))
        return True

    def _end(self, sandbox: Sandbox) -> asyncio.Task[None]:
        del self._sandboxes[sandbox.session_id]
        sandbox.gone.set()
        for command in sandbox.commands:
            command.kill()
        return self._remove_soon(sandbox)

    def _remove_soon(self, sandbox: Sandbox) -> asyncio.Task[None]:
        task = asyncio.create_task(
            self._remove(sandbox), name=f"agentcube-gateway-remove-{sandbox.sandbox_id}"
        )
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def _remove(self, sandbox: Sandbox) -> None:
        try:
            await asyncio.to_thread(remove_sandboxes, {sandbox.marker: sandbox.folder})
        finally:
            if not sandbox.in_flight:
                sandbox.close()

    async def _collect(self) -> None:
        while True:
            now = time.monotonic()
            for sandbox in list(self._sandboxes.values()):
                if sandbox.deadline <= now:
                    self._end(sandbox)
            self._changed.clear()
            nearest = min((sandbox.deadline for sandbox in self._sandboxes.values()), default=now + 3600)
            with contextlib.suppress(TimeoutError):
                # Activity only moves deadlines away; the end of a long request may bring one nearer.
                await asyncio.wait_for(self._changed.wait(), min(max(nearest - now, 0.01), 15.0))


def marker_of(folder: str) -> str:
    """What marks the processes of the sandbox in `folder`: its name and that of its gateway's folder."""
    return f"{os.path.basename(os.path.dirname(folder))}-{os.path.basename(folder)}"


def remove_sandboxes(folders: dict[str, str]) -> None:
    """Kill what runs in the sandboxes `{marker: folder}` and remove their folders; blocking."""
    kill_sandboxes(folders)
    for folder in folders.values():
        remove_tree(folder)


def remove_tree(folder: str) -> None:
    """Remove a folder, also one whose owner made parts of it unreadable or nested it without end."""
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(folder)
        return
    # Both tools walk by descriptor: neither depth nor length of a path stops them.
    for command in (["chmod", "-R", "u+rwX", folder], ["rm", "-rf", folder]):
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
