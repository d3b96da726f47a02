"""A sandbox as a server of the Model Context Protocol, for hosts of agents.

The tools have the names and parameters of AgentCube's own server, whose every call forgets, and beside them `run_cell`,
which remembers. There is one sandbox for each server. Annotations are evaluated on purpose: schemas are made of them.
"""

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

from ..arguments import check_timeout
from ..channel.cell_result import CellResult
from ..channel.protocol import Event
from ..client.code_interpreter import AsyncCodeInterpreterClient
from ..errors import AgentCubeError, CommandExecutionError
from ..sandbox import AsyncSandbox
from ..sessions.keeper import Keeper
from . import tool_answers
from .files import read_anywhere, write_anywhere
from .missing import missing_framework
from .own_sandbox import own_async_sandbox
from .plain_text import plain, shortened
from .tool_answers import TEXT_LIMIT

try:
    from mcp.server.mcpserver import Context, MCPServer
    from mcp_types import CallToolResult, ImageContent, TextContent
    from pydantic import Field
except ImportError as error:
    raise missing_framework("The SDK of the Model Context Protocol (mcp)", "mcp") from error

INSTRUCTIONS = (
    "An isolated sandbox with Python and a shell. run_cell keeps variables from call to call and shows images; "
    "run_code and execute_command start a new process each. Files stay in all of them, until the connection ends."
)
# What a host can be expected to pass on to a model.
_MAX_IMAGES = 10
_MAX_IMAGE = 8 * 1024 * 1024
_MAX_FILE = 8 * 1024 * 1024
_MAX_PROGRESS = 2_000
_IMAGES = ("image/png", "image/jpeg", "image/gif")

Seconds = Annotated[float | None, Field(description="Time limit in seconds; then it is stopped.")]
SessionId = Annotated[str | None, Field(description="The session_id of an earlier answer; may be left out.")]
Reuse = Annotated[bool, Field(description="Has no effect: the sandbox stays until the connection ends.")]
RemotePath = Annotated[str, Field(description="Where in the sandbox; relative to the working folder.")]


class SandboxServer:
    """The tools, and the sandbox that they share; it is created by the first call.

    Args:
        session_id: a session to attach to, which is not deleted at the end.
        timeout: seconds that a call may take if it does not say.
    """

    def __init__(self, *, session_id: str | None = None, timeout: float = 120.0) -> None:
        self._timeout = check_timeout(timeout, default=120.0)
        self._attach_to = session_id
        self._keeper = Keeper()
        self._sandbox = self._new_sandbox()

    def _new_sandbox(self) -> AsyncSandbox:
        if self._attach_to is not None:
            return AsyncSandbox(AsyncCodeInterpreterClient(session_id=self._attach_to))
        return own_async_sandbox(self._keeper)

    def server(self) -> MCPServer:
        """A server with all tools; `close` is the caller's."""
        server = MCPServer("agentcube", instructions=INSTRUCTIONS, log_level="WARNING")
        for tool in (
            self.run_cell,
            self.interrupt,
            self.restart,
            self.run_code,
            self.execute_command,
            self.write_file,
            self.list_files,
            self.upload_file,
            self.download_file,
            self.stop_session,
        ):
            server.tool(structured_output=False)(tool)
        return server

    async def close(self) -> None:
        """Stop the sandbox, or leave it if it was attached to. Raises what `AsyncSandbox.stop` raises."""
        try:
            await self._sandbox.stop()
        finally:
            self._keeper.close()

    # The stateful tools.

    async def run_cell(
        self,
        ctx: Context,
        code: Annotated[str, Field(description="Python code; IPython's magics and top-level await work.")],
        timeout_seconds: Seconds = None,
    ) -> CallToolResult:
        """Run Python code and keep its variables for later calls.

        Answers with what it printed, the value of its last expression and its images; what is printed meanwhile is
        reported as progress.
        """
        async with _reporting(ctx) as report:
            answer, result = await tool_answers.run_cell(
                self._sandbox, code, self._seconds(timeout_seconds), on_event=report
            )
        answer = {"session_id": self._sandbox.session_id, **answer}
        return CallToolResult(content=[_text(answer), *_images(result)], is_error=not answer["ok"])

    async def interrupt(self) -> CallToolResult:
        """Interrupt the cell that runs now. Variables are kept."""
        with _failures() as answer:
            await self._sandbox.interrupt()
            answer["status"] = "ok"
        return _result(answer)

    async def restart(self) -> CallToolResult:
        """Start the interpreter of run_cell anew: variables are lost, files stay."""
        with _failures() as answer:
            await self._sandbox.restart()
            answer["status"] = "ok"
        return _result(answer)

    # AgentCube's own tools.

    async def run_code(
        self,
        language: Annotated[str, Field(description="python or bash.")],
        code: Annotated[str, Field(description="The code or script.")],
        session_id: SessionId = None,
        session_reuse: Reuse = False,
        timeout_seconds: Seconds = None,
    ) -> CallToolResult:
        """Run code in a new process, which keeps no variables (run_cell does)."""
        with _failures() as answer:
            client = await self._client(session_id)
            output = await client.run_code(language, code, self._seconds(timeout_seconds))
            answer.update(session_id=client.session_id, output=_bounded(output))
        return _result(answer)

    async def execute_command(
        self,
        command: Annotated[str, Field(description="A shell command.")],
        session_id: SessionId = None,
        session_reuse: Reuse = False,
        timeout_seconds: Seconds = None,
    ) -> CallToolResult:
        """Run a shell command in the working folder."""
        with _failures() as answer:
            client = await self._client(session_id)
            output = await client.execute_command(["sh", "-c", command], self._seconds(timeout_seconds))
            answer.update(session_id=client.session_id, output=_bounded(output))
        return _result(answer)

    async def write_file(
        self,
        content: Annotated[str, Field(description="The whole text of the file.")],
        remote_path: RemotePath,
        session_id: SessionId = None,
        session_reuse: Reuse = False,
    ) -> CallToolResult:
        """Write a text file."""
        with _failures() as answer:
            client = await self._client(session_id)
            await write_anywhere(client, remote_path, content.encode("utf-8", "replace"))
            answer.update(session_id=client.session_id, remote_path=remote_path, status="ok")
        return _result(answer)

    async def list_files(
        self,
        path: Annotated[str, Field(description="A folder of the workspace.")] = ".",
        session_id: SessionId = None,
        session_reuse: Reuse = False,
    ) -> CallToolResult:
        """List a folder of the workspace; at most 1000 entries."""
        with _failures() as answer:
            client = await self._client(session_id)
            entries = await client.list_files(path)
            shown = [dict(entry) for entry in entries[:1000]]
            answer.update(session_id=client.session_id, path=path, entries=shown, total=len(entries))
        return _result(answer)

    async def upload_file(
        self,
        content_base64: Annotated[str, Field(description="The file's bytes in base64.")],
        remote_path: RemotePath,
        session_id: SessionId = None,
        session_reuse: Reuse = False,
    ) -> CallToolResult:
        """Write a binary file. It takes the bytes themselves: this server reads no file of its own machine."""
        with _failures() as answer:
            try:
                data = base64.b64decode(content_base64, validate=True)
            except (binascii.Error, ValueError) as error:
                raise AgentCubeError("content_base64 is not base64.") from error
            client = await self._client(session_id)
            await write_anywhere(client, remote_path, data)
            answer.update(session_id=client.session_id, remote_path=remote_path, status="ok", bytes=len(data))
        return _result(answer)

    async def download_file(
        self,
        remote_path: RemotePath,
        session_id: SessionId = None,
        session_reuse: Reuse = False,
    ) -> CallToolResult:
        """Read a file of up to 8 MiB as base64. This server writes no file of its own machine."""
        with _failures() as answer:
            client = await self._client(session_id)
            data = await read_anywhere(client, remote_path, max_bytes=_MAX_FILE)
            if len(data) > _MAX_FILE:
                raise AgentCubeError("The file is larger than 8 MiB. Read it in parts, with run_cell.")
            content = base64.b64encode(data).decode()
            answer.update(session_id=client.session_id, remote_path=remote_path, content_base64=content)
        return _result(answer)

    async def stop_session(
        self, session_id: Annotated[str, Field(description="The session_id of an earlier answer.")]
    ) -> CallToolResult:
        """Delete the sandbox with its variables and files. The next call gets a new one."""
        with _failures() as answer:
            self._check_session(session_id)
            sandbox, self._sandbox = self._sandbox, self._new_sandbox()
            await sandbox.stop()
            answer.update(session_id=session_id, status="stopped")
        return _result(answer)

    async def _client(self, session_id: str | None) -> AsyncCodeInterpreterClient:
        if session_id:
            self._check_session(session_id)
        await self._sandbox.open()
        return self._sandbox.client

    def _check_session(self, session_id: str) -> None:
        if session_id != self._sandbox.session_id:
            raise AgentCubeError(
                f"Session {session_id[:100]} is not this server's, or it has ended and its files are lost. Leave "
                "session_id out to use the current sandbox."
            )

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


async def serve_stdio(*, session_id: str | None = None, timeout: float = 120.0) -> None:
    """Serve on standard input and output until the host hangs up; then the sandbox is stopped.

    Raises:
        ConfigurationError: a wrong `timeout`, or bad settings.
        SessionDeleteError: the sandbox could not be stopped.
    """
    tools = SandboxServer(session_id=session_id, timeout=timeout)
    try:
        await tools.server().run_stdio_async()
    finally:
        await tools.close()


@contextlib.contextmanager
def _failures() -> Iterator[dict[str, Any]]:
    """What is answered: what the body has put there, or the error that it ended with."""
    answer: dict[str, Any] = {}
    try:
        yield answer
    except CommandExecutionError as error:
        answer.update(session_id=error.session_id, output=_bounded(error.stdout), error=_bounded(str(error)))
        answer["exit_code"] = error.exit_code
    except AgentCubeError as error:
        answer.update(error=_bounded(str(error)))


def _result(answer: dict[str, Any]) -> CallToolResult:
    return CallToolResult(content=[_text(answer)], is_error="error" in answer)


def _text(answer: dict[str, Any]) -> TextContent:
    return TextContent(type="text", text=json.dumps(answer, ensure_ascii=False))


def _bounded(text: str) -> str:
    return shortened(plain(text), TEXT_LIMIT)


def _images(result: CellResult) -> list[ImageContent]:
    found = [
        (mime, data)
        for bundle in result.displays
        for mime, data in bundle.items()
        if mime in _IMAGES and isinstance(data, str) and len(data) <= _MAX_IMAGE
    ]
    return [
        ImageContent(type="image", data="".join(data.split()), mime_type=mime)
        for mime, data in found[:_MAX_IMAGES]
    ]


@contextlib.asynccontextmanager
async def _reporting(ctx: Context) -> AsyncIterator[Callable[[Event], None]]:
    """A callback for events, whose text is sent as progress: as it comes, and in fewer messages when it comes fast."""
    waiting: list[str] = []
    something = asyncio.Event()

    def note(event: Event) -> None:
        if event.type == "stream":
            waiting.append(event.content["text"])
            something.set()

    async def send() -> None:
        count = 0
        while True:
            await something.wait()
            something.clear()
            text, count = plain("".join(waiting)), count + 1
            waiting.clear()
            await ctx.report_progress(count, message=text[-_MAX_PROGRESS:])

    sender = asyncio.create_task(send(), name="agentcube-mcp-progress")
    try:
        yield note
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)  # a report that cannot be sent stops nothing
