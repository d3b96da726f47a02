"""The supervisor: the one long-lived process that answers the relay, whatever the cells do.

It imports nothing heavy, runs no user code and never waits for anything but its selector, so that polls are answered
and interrupts delivered while a cell holds the interpreter lock, and so that an interpreter that dies is reported with
its last output at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from ..channel.protocol import (
    ProtocolError,
    decode_request,
    encode_answer,
    encode_event,
)
from . import frames
from .clients import SLOTS_KEPT, Client, Hold
from .interpreter import Interpreter
from .slots import Slots
from .usage import UsageMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUEST_PIPE = "request"
_SLOTS_AHEAD = 8
_MAX_WAIT = 300.0
_QUESTION_TIMEOUT = 30.0
_HOUSEKEEPING = 20.0

_EVENTS = frozenset({frames.STREAM, frames.EVENT, frames.QUIET, frames.URGENT, frames.DONE})

Request = dict[str, Any]


class Supervisor:
    def __init__(self, folder: str, command: list[str], env: dict[str, str], workspace: str) -> None:
        self.folder, self.command, self.env, self.workspace = folder, command, env, workspace
        self.selector = selectors.DefaultSelector()
        self.slots = Slots(folder, self.selector)
        self.clients: dict[str, Client] = {}
        self.owners: dict[str, Client] = {}
        self.questions: dict[str, tuple[Client, int, float]] = {}
        self.done_once: dict[str, None] = {}
        self.cancelled: set[str] = set()
        self.usage = UsageMeter()
        self.paused = False
        self.ending = False
        self._lines = b""
        path = os.path.join(folder, REQUEST_PIPE)
        os.mkfifo(path, 0o600)
        self.request_fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.request_inode = os.fstat(self.request_fd).st_ino
        self._watch_children()
        self.selector.register(self.request_fd, selectors.EVENT_READ, self._on_request)
        self.interpreter = self._start_interpreter()

    # The loop.

    def run(self) -> None:
        next_check = time.monotonic() + _HOUSEKEEPING
        while not self.ending:
            timeout = max(0.0, min([next_check, *self._deadlines()]) - time.monotonic())
            for key, _ in self.selector.select(timeout):
                if key.data is not None:
                    key.data(key.fd)
            now = time.monotonic()
            self._answer_due(now)
            if now >= next_check:
                next_check = now + _HOUSEKEEPING
                self._housekeeping()
        self.interpreter.end(0.3)

    def _deadlines(self) -> Iterator[float]:
        for client in self.clients.values():
            if client.hold is not None:
                yield client.hold.deadline
                if client.flush_at is not None:
                    yield client.flush_at
        for _, _, deadline in self.questions.values():
            yield deadline

    def _answer_due(self, now: float) -> None:
        for client in self.clients.values():
            if client.hold is None:
                continue
            if now >= client.hold.deadline or (client.flush_at is not None and now >= client.flush_at):
                self._release(client)
        for question, (client, fd, deadline) in list(self.questions.items()):
            if now >= deadline:
                del self.questions[question]
                self._answer(client, fd, error="unanswered", entries=False)

    def _housekeeping(self) -> None:
        self.slots.drop_stuck()
        if self.paused:
            self._relieve()
        try:
            same = os.stat(os.path.join(self.folder, REQUEST_PIPE)).st_ino == self.request_inode
        except OSError:
            same = False
        self.ending = self.ending or not same

    def _watch_children(self) -> None:
        # A forked child may keep the worker's end of the link open, so only SIGCHLD tells of its death for certain.
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self._wakeup = (ours, theirs)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(ours, selectors.EVENT_READ, self._on_child)

    def _on_child(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            os.read(fd, 4096)
        if self.interpreter.dead is None and self.interpreter.process.poll() is not None:
            self._bury()

    # Requests.

    def _on_request(self, fd: int) -> None:
        try:
            self._lines += os.read(fd, 1024 * 1024)
        except BlockingIOError:
            return
        *lines, self._lines = self._lines.split(b"\n")
        for line in lines:
            name, _, text = line.decode("ascii", "replace").partition(" ")
            slot = self.slots.claim(name)
            for client in self.clients.values():
                if name in client.slots:
                    client.slots.remove(name)
            if slot is not None:
                self._on_line(slot, text)

    def _on_line(self, fd: int, text: str) -> None:
        try:
            request = decode_request(self._body(text))
            handler: Callable[[Client, int, Request], None] | None = getattr(
                self, f"_op_{request['op']}", None
            )
            if handler is None:
                raise ProtocolError(f"unknown op {request['op']!r}")
            client = self._client(str(request.get("c", "")))
        except (ProtocolError, OSError) as exc:
            self._answer(None, fd, error=f"bad request: {exc}", entries=False)
            return
        have = request.get("have")
        if isinstance(have, int):
            self._grant(client, _SLOTS_AHEAD - have)
        client.last_seen = time.monotonic()
        self._acknowledge(client, request)
        believed = request.get("g")
        if believed is not None and believed != self.interpreter.generation and request["op"] != "restart":
            self._answer(client, fd, error="generation", entries=False)
            return
        try:
            handler(client, fd, request)
        except (KeyError, TypeError, ValueError) as exc:
            self._answer(client, fd, error=f"bad request: {exc!r}", entries=False)

    def _body(self, text: str) -> str:
        if not text.startswith("@"):
            return text
        path = os.path.join(self.folder, os.path.basename(text[1:]))
        with open(path, encoding="utf-8") as file:
            body = file.read()
        with contextlib.suppress(OSError):
            os.unlink(path)
        return body

    def _client(self, client_id: str) -> Client:
        if client_id not in self.clients:
            self.clients[client_id] = Client(client_id)
        return self.clients[client_id]

    def _acknowledge(self, client: Client, request: Request) -> None:
        if isinstance(request.get("ack"), int) and request.get("g") == self.interpreter.generation:
            client.outbox.acknowledge(request["ack"])
            if self.paused:
                self._relieve()

    def _grant(self, client: Client, count: int) -> None:
        for _ in range(min(count, _SLOTS_AHEAD)):
            with contextlib.suppress(OSError):
                client.slots.append(self.slots.make())
        while len(client.slots) > SLOTS_KEPT:
            self.slots.discard(client.slots.pop(0))

    def _op_hello(self, client: Client, fd: int, request: Request) -> None:
        info = self.interpreter.info or {}
        reply = {
            "pid": os.getpid(),
            "fd": self.request_fd,
            "unfinished": client.unfinished,
            "last": client.outbox.last_number,
            "acknowledged": client.outbox.acknowledged,
            "running": self.interpreter.running,
            **info,
        }
        self._answer(client, fd, reply=reply, entries=False, fresh_slots=_SLOTS_AHEAD)

    def _op_run(self, client: Client, fd: int, request: Request) -> None:
        if self.interpreter.dead is None:
            for task in request["tasks"]:
                self._submit(client, task)
        self._hold(client, fd, request)

    def _op_poll(self, client: Client, fd: int, request: Request) -> None:
        self._hold(client, fd, request)

    def _submit(self, client: Client, task: Request) -> None:
        if client.submit(str(task["id"])):
            self.owners[task["id"]] = client
            self.interpreter.send(frames.TASK, task["id"], task)
            self._watch_link()

    def _hold(self, client: Client, fd: int, request: Request) -> None:
        if client.hold is not None:
            superseded, client.hold = client.hold, None
            self._answer(client, superseded.fd, entries=False)
        wait = min(float(request.get("wait", 0)), _MAX_WAIT)
        client.hold = Hold(fd, time.monotonic() + wait)
        client.flush_at = None
        client.schedule_flush()
        if self.interpreter.dead is not None or wait <= 0:
            self._release(client)

    def _op_ask(self, client: Client, fd: int, request: Request) -> None:
        if self.interpreter.dead is not None:
            self._answer(client, fd, error="dead", entries=False)
            return
        question = str(request["id"])
        wait = min(float(request.get("wait", _QUESTION_TIMEOUT)), _QUESTION_TIMEOUT)
        self.questions[question] = (client, fd, time.monotonic() + wait)
        self.interpreter.send(frames.ASK, question, request)
        self._watch_link()

    def _op_input(self, client: Client, fd: int, request: Request) -> None:
        if self._first_time(request):
            self.interpreter.send(frames.INPUT, str(request["cell"]), {"value": request["value"]})
            self._watch_link()
        self._answer(client, fd, entries=False)

    def _op_interrupt(self, client: Client, fd: int, request: Request) -> None:
        if self._first_time(request):
            # The cell may be one that is only now on its way here.
            for task in request.get("tasks", ()):
                self._submit(client, task)
            cell = request.get("cell")
            if cell is None or cell == self.interpreter.running:
                self.interpreter.interrupt()
            elif cell in client.unfinished:
                self.cancelled.add(cell)
                self.interpreter.send(frames.CANCEL, cell)
                self._watch_link()
        self._answer(client, fd, entries=False)

    def _op_usage(self, client: Client, fd: int, request: Request) -> None:
        usage = self.usage.measure(self.interpreter.pid)
        usage["running"] = self.interpreter.running  # the cell's id: whose client asks can tell if it waits
        self._answer(client, fd, reply=usage, entries=False)

    def _op_restart(self, client: Client, fd: int, request: Request) -> None:
        if self._first_time(request):
            self._end_interpreter(0.25)
            self.interpreter = self._start_interpreter()
        self._answer(client, fd, entries=False)

    def _op_shutdown(self, client: Client, fd: int, request: Request) -> None:
        self._answer(client, fd, entries=False)
        self.ending = True

    def _first_time(self, request: Request) -> bool:
        """Whether this request's id is new; what is asked again after a failure must not happen again."""
        request_id = str(request["id"])
        if request_id in self.done_once:
            return False
        self.done_once[request_id] = None
        if len(self.done_once) > 4000:
            del self.done_once[next(iter(self.done_once))]
        return True

    # Answers.

    def _release(self, client: Client) -> None:
        hold, client.hold, client.flush_at = client.hold, None, None
        client.last_seen = time.monotonic()
        if hold is not None:
            self._answer(client, hold.fd)

    def _answer(
        self,
        client: Client | None,
        fd: int,
        *,
        reply: dict[str, Any] | None = None,
        error: str | None = None,
        entries: bool = True,
        fresh_slots: int = 0,
    ) -> None:
        fields: dict[str, Any] = {"g": self.interpreter.generation}
        taken: list[str] = []
        if client is not None:
            if fresh_slots:
                self._grant(client, fresh_slots)
                fields["slots"] = client.slots[-fresh_slots:]
            else:
                fields["slots"] = client.slots[-_SLOTS_AHEAD:]
            fields["unfinished"] = len(client.unfinished)
            if entries:
                taken, fields["more"] = client.outbox.take()
        if self.interpreter.live:
            fields["live"] = True
        for key, value in (("reply", reply), ("error", error), ("dead", self.interpreter.dead)):
            if value is not None:
                fields[key] = value
        self.slots.send(fd, encode_answer(fields, taken))

    # The interpreter.

    def _start_interpreter(self) -> Interpreter:
        interpreter = Interpreter(self.command, self.env, self.workspace)
        self.paused = False
        for client in self.clients.values():
            self._forget(client)
        self.owners.clear()
        self.cancelled.clear()
        self.selector.register(interpreter.link, selectors.EVENT_READ, self._on_link)
        return interpreter

    @staticmethod
    def _forget(client: Client) -> None:
        limit = client.outbox.limit
        client.outbox = type(client.outbox)(limit)
        client.tasks.clear()

    def _watch_link(self) -> None:
        if self.interpreter.dead is not None:
            return
        events = 0 if self.paused else selectors.EVENT_READ
        if self.interpreter.wants_write:
            events |= selectors.EVENT_WRITE
        link = self.interpreter.link
        registered = link.fileno() in self.selector.get_map()
        if events and registered:
            self.selector.modify(link, events, self._on_link)
        elif events:
            self.selector.register(link, events, self._on_link)
        elif registered:
            self.selector.unregister(link)

    def _on_link(self, _fd: int) -> None:
        interpreter = self.interpreter
        if interpreter.wants_write:
            interpreter.flush()
            self._watch_link()
        if self.paused or interpreter.dead is not None:
            return
        arrived = interpreter.read()
        if arrived is None:
            self._bury()
            return
        for kind, name, payload in arrived:
            self._on_frame(kind, name, payload)
        self._press()

    def _on_frame(self, kind: bytes, name: str, payload: bytes) -> None:
        if kind in _EVENTS:
            client = self.owners.get(name) or self._latest_client()
            if client is None:
                return
            urgent = kind in (frames.URGENT, frames.DONE)
            client.outbox.append(
                name, payload.decode("ascii"), stream=kind == frames.STREAM, attention=urgent
            )
            if kind == frames.DONE:
                client.tasks[name] = True
                self.cancelled.discard(name)
                self._trim_owners()
                if self.interpreter.running == name:
                    self.interpreter.running = None
            client.schedule_flush(quiet=kind == frames.QUIET)
        elif kind == frames.BEGIN:
            self.interpreter.running = name
            if name in self.cancelled:
                # It began before it could be taken out of the queue.
                self.interpreter.interrupt()
        elif kind == frames.REPLY:
            question = self.questions.pop(name, None)
            if question is not None:
                self._answer(question[0], question[1], reply=json.loads(payload), entries=False)
        elif kind == frames.LIVE:
            self.interpreter.live = payload == b"1"
            for client in self.clients.values():
                if not self.interpreter.live and not client.unfinished:
                    self._release(client)
        elif kind == frames.READY:
            self.interpreter.info = json.loads(payload)

    def _latest_client(self) -> Client | None:
        return max(self.clients.values(), key=lambda client: client.last_seen, default=None)

    def _trim_owners(self) -> None:
        while len(self.owners) > 4000:
            oldest = next(iter(self.owners))
            del self.owners[oldest]

    def _press(self) -> None:
        """Deal with full outboxes: a client that keeps coming makes the worker wait, an absent one loses old text."""
        for client in self.clients.values():
            if not client.outbox.full:
                continue
            if client.present:
                if not self.paused:
                    self.paused = True
                    self._watch_link()
            else:
                client.outbox.drop_oldest_streams()

    def _relieve(self) -> None:
        for client in self.clients.values():
            if client.outbox.full and not client.present:
                client.outbox.drop_oldest_streams()
        if all(
            client.outbox.size < client.outbox.limit // 2 or not client.present
            for client in self.clients.values()
        ):
            self.paused = False
            self._watch_link()

    def _detach_link(self) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(self.interpreter.link)

    def _end_interpreter(self, grace: float) -> None:
        self._detach_link()
        if self.interpreter.dead is None:
            self.interpreter.end(grace)
        for question, (client, fd, _) in list(self.questions.items()):
            del self.questions[question]
            self._answer(client, fd, error="dead", entries=False)
        for client in self.clients.values():
            if client.hold is not None:
                hold, client.hold = client.hold, None
                self._answer(client, hold.fd, error="generation", entries=False)

    def _bury(self) -> None:
        """The worker has ended by itself: save what it has said, tell everyone who waits."""
        interpreter = self.interpreter
        if interpreter.dead is not None:
            return
        while (arrived := interpreter.read()) is not None:
            got = False
            for kind, name, payload in arrived:
                got = True
                self._on_frame(kind, name, payload)
            if not got:
                break
        tail = ""
        for name, text in interpreter.leftover():
            tail = text if name == "stderr" else tail
            if interpreter.info is not None:
                event = encode_event("stream", {"name": name, "text": text}).encode()
                self._on_frame(frames.STREAM, interpreter.running or "", event)
        self._detach_link()
        interpreter.dead = interpreter.autopsy()
        if interpreter.info is None:
            interpreter.dead["stderr"] = tail[-4000:]
        interpreter.close()
        interpreter.live = False
        for client in self.clients.values():
            self._release(client)
        for question, (client, fd, _) in list(self.questions.items()):
            del self.questions[question]
            self._answer(client, fd, error="dead", entries=False)


def main() -> None:
    """Entry of the supervisor process: one JSON argument, see boot.py."""
    settings = json.loads(sys.argv[-1])
    supervisor = Supervisor(settings["folder"], settings["command"], settings["env"], settings["workspace"])
    with open(os.path.join(settings["folder"], "guest.json.new"), "w") as file:
        json.dump({"pid": os.getpid(), "fd": supervisor.request_fd, "version": settings["version"]}, file)
    os.rename(file.name, os.path.join(settings["folder"], "guest.json"))
    os.write(settings["ready_fd"], b"ready\n")
    os.close(settings["ready_fd"])
    signal.signal(signal.SIGTERM, lambda *_: setattr(supervisor, "ending", True))
    supervisor.run()
