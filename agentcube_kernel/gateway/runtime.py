"""Agent runtimes of the embedded gateway: a built-in echo, or a command of the user's own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from .execute import CommandNotStarted, look_path
from .proxy import forward
from .wire import Answer, json_answer, text_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from starlette.types import Receive, Scope

    from .processes import Children

_READY = 15.0


class RuntimeFailed(Exception):
    """The runtime command did not start, or does not listen."""


class Runtime(Protocol):
    """What answers the invocations of an agent-runtime session."""

    async def answer(self, path: str, scope: Scope, receive: Receive) -> Answer:
        """The answer to one request. Raises RouterError when the runtime cannot be reached."""


class EchoRuntime:
    """Says back what it is told, in the form that it is told it.

    A JSON object `{"input": …}` comes back as `{"output": "echo: …", "metadata": {…}}`, a text as a text.
    With `stream` true in the object or in the query, the answer is a stream of server-sent events, a word
    each.
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


class CommandRuntime:
    """A server of the user's own, started in the session's sandbox with `PORT` in its environment."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def answer(self, path: str, scope: Scope, receive: Receive) -> Answer:
        return await forward(self._port, path, scope, receive)


async def start_runtime(
    name: str, command: Sequence[str], children: Children, *, folder: str, env: Mapping[str, str]
) -> Runtime:
    """Start the runtime of a new session, whose sandbox has that folder and environment.

    Raises:
        RuntimeFailed: the command does not come to listen on its port.
    """
    if not command:
        return EchoRuntime(name)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    ended = asyncio.Event()
    own = {"PORT": str(port), "HOST": "127.0.0.1", "AGENTCUBE_RUNTIME_NAME": name}
    children.watch(_start(command, folder, {**env, **own}), lambda _: ended.set())
    await _listening(port, ended)
    return CommandRuntime(port)


def _start(command: Sequence[str], folder: str, env: Mapping[str, str]) -> int:
    workspace = os.path.join(folder, "workspace")
    with open(os.path.join(folder, "runtime.log"), "wb") as log:
        try:
            # Never through bubblewrap: it is the user's own program, and may lie anywhere.
            process = subprocess.Popen(
                list(command),
                executable=look_path(command[0], env["PATH"], workspace),
                cwd=workspace,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except (OSError, ValueError, CommandNotStarted) as exc:
            raise RuntimeFailed(f"{command[0]}: {exc}") from exc
    process.returncode = 0
    return process.pid


async def _listening(port: int, ended: asyncio.Event) -> None:
    deadline = asyncio.get_running_loop().time() + _READY
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as exc:
            if ended.is_set() or asyncio.get_running_loop().time() > deadline:
                raise RuntimeFailed(
                    "the runtime command does not listen on the port in its PORT variable"
                ) from exc
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


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
