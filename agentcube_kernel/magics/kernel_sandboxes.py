"""The sandboxes of an AgentCube kernel: the current one is where its plain cells run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..errors import AgentCubeError
from ..results import Ownership
from ..sessions.process_identity import ProcessIdentity
from .sandboxes import Entry, Sandboxes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..channel.protocol import Event
    from ..channel.trust import Trust
    from ..client.code_interpreter import AsyncCodeInterpreterClient
    from ..kernel.lifecycle import Lifecycle
    from ..sandbox import AsyncSandbox
    from .custody import Custody

HOME = "main"
"""The name of the sandbox that the kernel makes by itself."""


class HomeEntry(Entry):
    """The kernel's own sandbox. While it is the current one, the kernel's lifecycle has it."""

    def __init__(self, lifecycle: Lifecycle, is_current: Callable[[], bool]) -> None:
        self._lifecycle = lifecycle
        self._is_current = is_current
        self._parked: AsyncSandbox | None = None
        super().__init__(HOME)

    @property
    def sandbox(self) -> AsyncSandbox | None:
        """The sandbox, or None while the kernel has not made it."""
        return self._lifecycle.sandbox if self._is_current() else self._parked

    @sandbox.setter
    def sandbox(self, sandbox: AsyncSandbox | None) -> None:
        self._parked = sandbox

    async def open(self, on_step: Callable[[str], None]) -> AsyncSandbox:
        if self._is_current():
            sandbox = await self._lifecycle.ready(on_step=on_step)
            self.used()
            return sandbox
        if self._parked is None:
            other, self._lifecycle.sandbox = self._lifecycle.sandbox, None
            try:
                self._parked = await self._lifecycle.ready(on_step=on_step)
            finally:
                self._lifecycle.sandbox = other
        return await super().open(on_step)

    async def reach(self, on_step: Callable[[str], None]) -> AsyncCodeInterpreterClient:
        if self.sandbox is None or self.sandbox.session_id is None:
            await self.open(on_step)
        return await super().reach(on_step)

    async def set_trust(self, trust: Trust) -> None:
        if self.sandbox is None:
            await self.open(lambda step: None)
        await super().set_trust(trust)

    def forget(self) -> None:
        """The session is given up; the next cell makes another."""
        self._parked = self.created = self._last_used = None
        self.keep = False

    def park(self) -> None:
        """Another sandbox becomes the current one."""
        self._parked = self._lifecycle.sandbox


class KernelSandboxes(Sandboxes):
    """The sandboxes of a kernel: the current one is where its plain cells run."""

    def __init__(self, custody: Custody, lifecycle: Lifecycle) -> None:
        super().__init__(custody, on_background=self._background)
        self._lifecycle = lifecycle
        self.home = HomeEntry(lifecycle, lambda: self.current_name == self.home.name)
        self._entries[HOME] = self.home
        self.current_name = HOME

    def _background(self, name: str, event: Event) -> None:
        self._lifecycle.forward(event)

    async def use(self, entry: Entry) -> None:
        if entry is self.current:
            return
        if self._lifecycle.sandbox is not None and self._lifecycle.sandbox.state.value == "opening":
            with contextlib.suppress(AgentCubeError):
                await self._lifecycle.ready(on_step=lambda step: None)
        if self.current is self.home:
            self.home.park()
        sandbox = entry.sandbox
        self.current_name = entry.name
        self._lifecycle.sandbox = sandbox
        await self._note()

    async def remove(self, entry: Entry) -> None:
        if entry is not self.home:
            await super().remove(entry)
            return
        await entry.end_tasks()
        if self.current is self.home:
            self._lifecycle.sandbox = None
            await self._note()
        self.home.forget()

    async def _note(self) -> None:
        """Have the next kernel on this connection file find what is the current one now."""
        if self._lifecycle.sandbox is None or self._lifecycle.sandbox.session_id is None:
            if self.custody.connection_file is not None:
                await self.custody.forget_kernel(self.custody.connection_file)
        else:
            await self._lifecycle.note_guest()

    async def restore(self) -> None:
        """Find what an earlier kernel on this connection file had, under its names."""
        if self.custody.connection_file is None:
            return
        me = ProcessIdentity.current()
        for record in await self.custody.known():
            if record.connection_file != self.custody.connection_file or record.owner != me:
                continue
            if record.session_id == self.home.session_id:
                self._rename_home(record.name or HOME)
                self.home.created, self.home.keep = record.created, record.keep
        for record in await self.custody.known():
            if record.connection_file != self.custody.connection_file or record.owner != me:
                continue
            if any(entry.session_id == record.session_id for entry in self):
                continue
            name = record.name or HOME
            entry = self.add_new(
                self.check_new_name(None if name in self.names else name),
                session_id=record.session_id,
                keep=record.keep,
            )
            assert entry.sandbox is not None
            entry.sandbox.client.ownership = Ownership.OWNED
            entry.created = record.created
            await self.custody.guard()

    def _rename_home(self, name: str) -> None:
        if name != self.home.name:
            current = self.current is self.home
            del self._entries[self.home.name]
            self.home.name = name
            self._entries[name] = self.home
            if current:
                self.current_name = name
