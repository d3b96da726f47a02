"""The worker process: IPython, its streams, and the thread that listens to the supervisor."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import pdb  # to replace parts of it
import platform
import queue
import signal
import socket
import sys
import threading
from typing import Any

import IPython
from IPython.core import debugger
from traitlets.config import Config

from . import frames, questions
from .background import BackgroundWatch
from .cells import CellRunner
from .comms import Comms
from .outgoing import Outgoing
from .shell import GuestShell
from .stdin import Stdin, decode_answer
from .streams import install


class Worker:
    def __init__(self, link: socket.socket, pipes: dict[str, int]) -> None:
        self.link = link
        self.loop = asyncio.get_running_loop()
        self.outgoing = Outgoing(link)
        self.capture = install(self.outgoing, pipes)
        self.stdin = Stdin(self.outgoing)
        self.stdin.install()
        config = Config()
        # The user's history is kept on the user's machine, by the kernel.
        config.HistoryManager.enabled = False
        config.HistoryManager.hist_file = ":memory:"
        config.InteractiveShell.cache_size = 1000
        self.comms = Comms(self.outgoing)
        self.shell = GuestShell.instance(outgoing=self.outgoing, config=config, user_module=_main_module())
        _make_pdb_interruptible()
        self.asked: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self.cells = CellRunner(self.shell, self.outgoing, self.capture, self.stdin, self.comms)
        for target, name in (
            (self._answer_questions, "agentcube-questions"),
            (self._listen, "agentcube-link"),
        ):
            threading.Thread(target=target, name=name, daemon=True).start()
        self.background = BackgroundWatch(self.outgoing, self.cells.is_ours)
        self.cells.before_end = self.background.look

    async def run(self) -> None:
        info = {"python": platform.python_version(), "ipython": IPython.__version__, "worker": os.getpid()}
        self.outgoing.frame(frames.READY, payload=json.dumps(info).encode())
        await self.cells.serve()

    def _listen(self) -> None:
        reader = frames.FrameReader()
        while True:
            try:
                data = self.link.recv(1024 * 1024)
            except OSError:
                data = b""
            if not data:
                # The supervisor is gone, so nobody can ever ask for anything again.
                os.kill(os.getpid(), signal.SIGKILL)
            for kind, name, payload in reader.feed(data):
                self._on_frame(kind, name, payload)

    def _on_frame(self, kind: bytes, name: str, payload: bytes) -> None:
        if kind == frames.TASK:
            self.cells.submit(json.loads(payload))
        elif kind == frames.CANCEL:
            self.cells.withdraw(name)
        elif kind == frames.ASK:
            self.asked.put((name, json.loads(payload)))
        elif kind == frames.INPUT:
            self.stdin.answer(name, decode_answer(payload))
        elif kind == frames.EXIT:
            self.loop.call_soon_threadsafe(self._exit)

    def _exit(self) -> None:
        """End as an interpreter ends: with the user's atexit functions."""
        try:
            atexit._run_exitfuncs()
            self.outgoing.flush(1.0)
        finally:
            os._exit(0)

    def _answer_questions(self) -> None:
        while True:
            name, question = self.asked.get()
            try:
                reply = questions.answer(self.shell, self.comms, question)
                payload = json.dumps(reply, default=str).encode()
            except Exception as exc:
                payload = json.dumps(
                    {"status": "error", "ename": type(exc).__name__, "evalue": str(exc)}
                ).encode()
            self.outgoing.frame(frames.REPLY, name, payload)


def _make_pdb_interruptible() -> None:
    """The standard pdb answers an interrupt at its prompt with another prompt, so a cell could never be ended."""
    debugger.Pdb = pdb.Pdb = debugger.InterruptiblePdb  # type: ignore[assignment,misc]
    pdb.set_trace = debugger.set_trace


def _main_module() -> Any:
    """The user's namespace is the module __main__, so that pickle and multiprocessing find what is defined there."""
    import types

    module = types.ModuleType("__main__", "The cells' namespace.")
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    return module


def main(link_fd: int, out: int, err: int) -> None:
    """Entry of the worker process, with the file descriptors that the supervisor has opened for it."""
    link = socket.socket(fileno=link_fd)
    for fd in (link_fd, out, err):
        os.set_inheritable(fd, False)

    async def run() -> None:
        await Worker(link, {"stdout": out, "stderr": err}).run()

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    task = loop.create_task(run())
    while True:
        try:
            loop.run_until_complete(task)
        except KeyboardInterrupt:
            # An interrupt that hit a background callback and not a cell; the loop goes on.
            continue
