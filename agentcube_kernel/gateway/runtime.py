"""Agent runtimes of the embedded gateway: a built-in echo, or a command of the user's own."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from .wire import Answer, json_answer, text_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope


class Runtime(Protocol):
    """What answers the invocations of an agent-runtime session."""

    async def answer(self, path: str, scope: Scope, receive: Receive) -> Answer:
        """The answer to one request. Raises RouterError when the runtime cannot be reached."""

    async def close(self) -> None:
        """End it; nothing of it is left."""


class EchoRuntime:
    """Says back what it is told, in the form that it is told it.

    A JSON object ``{"input": …}`` comes back as ``{"output": "echo: …", "metadata": {…}}``, a text as a text. With
    ``stream`` true in the object or in the query, the answer is a stream of server-sent events, a word each.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    async def answer(self, path: str, scope: Scope, receive: Receive) -> Answer:
        if scope["method"] == "GET":
            return json_answer(200, {"status": "healthy", "runtime": self._name, "path": path})
        body = await _read_all(receive)
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        query = parse_qs(scope["query_string"])
        if content_type.startswith(b"text/"):
            text = body.decode(errors="replace")
            answer = text_answer(200, f"echo: {text}")
            return _events(text) if query.get(b"stream", [b""])[0] in {b"1", b"true"} else answer
        try:
            received = json.loads(body) if body.strip() else {}
        except ValueError:
            return json_answer(400, {"error": "the request's body is not JSON"})
        said = received.get("input", "") if isinstance(received, dict) else received
        text = said if isinstance(said, str) else json.dumps(said)
        streamed = query.get(b"stream", [b""])[0] in {b"1", b"true"}
        if streamed or (isinstance(received, dict) and received.get("stream") is True):
            return _events(text)
        metadata = {"echoed": True, "original_input": said, "received": received, "path": path}
        return json_answer(200, {"output": f"echo: {text}", "metadata": metadata})

    async def close(self) -> None:
        """Nothing to end."""


def _events(text: str) -> Answer:
    async def stream() -> AsyncIterator[bytes]:
        for word in text.split():
            yield b"data: %s\n\n" % json.dumps({"output": word}).encode()
            await asyncio.sleep(0.01)
        yield b"data: [DONE]\n\n"

    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    return Answer(status=200, headers=headers, stream=stream())


async def _read_all(receive: Receive) -> bytes:
    chunks, more = [], True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)
