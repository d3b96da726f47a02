"""input() and getpass(): the question goes to the front end that ran the cell."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import zmq

if TYPE_CHECKING:
    from jupyter_client.session import Session

    from .requests import Request

log = logging.getLogger("agentcube_kernel.kernel")

POLL_SECONDS = 0.02
END_OF_FILE = "\x04"


class Stdin:
    """Asks front ends for a line of text on the stdin channel, without blocking the event loop.

    The base class' way of asking holds the thread, and with it all output, completion and interrupts.
    """

    def __init__(self, session: Session, socket: Any) -> None:
        self._session = session
        self._socket = socket
        self._one_at_a_time = asyncio.Lock()

    async def ask(self, request: Request, prompt: str, *, password: bool = False) -> str | None:
        """Return the line that the user typed for `request`, or None for end of file (Ctrl-D).

        It waits for as long as the user takes. A cancelled call leaves the question on the user's screen; its answer
        is dropped when the next question is asked.
        """
        async with self._one_at_a_time:
            self._drop_stale_answers()
            self._session.send(
                self._socket,
                "input_request",
                {"prompt": prompt, "password": password},
                parent=request.message,
                ident=request.identities,
            )
            while True:
                # A plain zmq socket tells no event loop that it is readable; somebody is typing, so this is quick.
                await asyncio.sleep(POLL_SECONDS)
                answer = self._receive()
                if answer is not None:
                    return None if answer == END_OF_FILE else answer

    def _receive(self) -> str | None:
        try:
            _, message = self._session.recv(self._socket, mode=zmq.NOBLOCK)
        except Exception:
            log.warning("an input reply that is none was left out", exc_info=True)
            return None
        if message is None:
            return None
        value = message["content"].get("value", "")
        return value if isinstance(value, str) else str(value)

    def _drop_stale_answers(self) -> None:
        while True:
            try:
                self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
