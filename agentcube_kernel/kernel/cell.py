"""One execute request on its way through the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .requests import field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .publishing import Publisher
    from .requests import Request
    from .stdin import Stdin


class Cell:
    """What a front end asked to run, and the ways back to it.

    Raises:
        BadRequestError: a field of the request is missing or has a wrong type.
    """

    def __init__(self, request: Request, *, publisher: Publisher, stdin: Stdin) -> None:
        self.request = request
        self.code: str = field(request, "code", str)
        self.silent: bool = field(request, "silent", bool, False)
        self.store_history: bool = field(request, "store_history", bool, not self.silent) and not self.silent
        self.user_expressions: dict[str, str] = field(request, "user_expressions", dict, {})
        self.allow_stdin: bool = field(request, "allow_stdin", bool, False)
        self.stop_on_error: bool = field(request, "stop_on_error", bool, True)
        self.announced: int | None = None
        self.number: int | None = None
        """The cell's place in the sandbox's In and Out, once it is known to have one."""
        self.result: str | None = None
        self.failed = False
        """Whether an error of the cell has been shown."""
        self._publisher = publisher
        self._stdin = stdin

    @property
    def id(self) -> str:
        """What the cell is called in the sandbox."""
        return self.request.task_id

    @property
    def quiet(self) -> bool:
        """True where passing progress should not be shown."""
        return self.silent or self.compares_outputs

    @property
    def compares_outputs(self) -> bool:
        """Whether this looks like nbval, to which any output that is not the code's own is a failed test."""
        return not self.allow_stdin and not self.store_history

    def announce(self, execution_count: int) -> None:
        """Publish `execute_input`, once: what the front end shows as In[execution_count]."""
        if self.announced is None and not self.silent:
            self.announced = execution_count
            self.publish("execute_input", {"code": self.code, "execution_count": execution_count})

    def publish(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] | None = None,
    ) -> None:
        """Send an output of this cell."""
        self._publisher.publish(
            msg_type, content, parent=self.request.message, metadata=metadata, buffers=buffers
        )

    def note(self, text: str) -> None:
        """Show one line of the kernel's own."""
        self.publish("stream", {"name": "stderr", "text": f"{text}\n"})

    def note_unless_silent(self, text: str) -> None:
        """Show one line of the kernel's own where somebody looks."""
        if not self.quiet:
            self.note(text)

    async def drain(self) -> None:
        """What is published here is sent at once."""

    async def ask(self, prompt: str, *, password: bool = False) -> str | None:
        """Ask the user for a line; None is end of file. To be called only where `allow_stdin` is true."""
        return await self._stdin.ask(self.request, prompt, password=password)
