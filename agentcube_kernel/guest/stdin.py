"""input() and getpass() in a cell: a question to the front end, and the wait for its answer."""

from __future__ import annotations

import builtins
import getpass
import json
import queue
import threading
import warnings
from typing import TYPE_CHECKING, Any

from ..channel.protocol import encode_event
from . import frames
from .shell import flush_streams

if TYPE_CHECKING:
    from .outgoing import Outgoing


class Stdin:
    def __init__(self, outgoing: Outgoing) -> None:
        self.allowed = False
        self._outgoing = outgoing
        self._answers: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def install(self) -> None:
        builtins.input = self.input
        getpass.getpass = self.getpass

    def answer(self, cell: str, value: str | None) -> None:
        self._answers.put((cell, value))

    def input(self, prompt: object = "") -> str:
        """Like the built-in; EOFError at an end of file, StdinNotImplementedError where nobody can answer."""
        return self._ask(str(prompt), password=False)

    def getpass(self, prompt: str = "Password: ", stream: Any = None, *, echo_char: str | None = None) -> str:
        """Like getpass.getpass."""
        if stream is not None:
            warnings.warn(
                "The `stream` parameter of `getpass.getpass` has no effect", UserWarning, stacklevel=2
            )
        return self._ask(prompt, password=True)

    def _ask(self, prompt: str, password: bool) -> str:
        if not self.allowed:
            from IPython.core.error import StdinNotImplementedError

            # In ipykernel's words, which programs look for.
            called = "getpass" if password else "raw_input"
            raise StdinNotImplementedError(
                f"{called} was called, but this frontend does not support input requests."
            )
        flush_streams()
        cell = self._outgoing.cell()
        with self._lock:
            while not self._answers.empty():
                self._answers.get_nowait()
            event = encode_event("input_request", {"prompt": prompt, "password": password})
            self._outgoing.frame(frames.URGENT, cell, event.encode("ascii"))
            while True:
                answered, value = self._answers.get()
                if answered == cell:
                    break
        if value is None:
            raise EOFError
        return value


def decode_answer(payload: bytes) -> str | None:
    value = json.loads(payload).get("value")
    return value if isinstance(value, str) else None
