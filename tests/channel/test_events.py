"""The table of event types: the guest and every consumer go by it."""

from __future__ import annotations

import ast
import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import zmq
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.session import Session
from traitlets.config import Config

from agentcube_kernel import AsyncSandbox
from agentcube_kernel.channel.event_stream import EventStream
from agentcube_kernel.channel.events import EventType, Form, added_event_type, event_types
from agentcube_kernel.channel.exit import admit
from agentcube_kernel.channel.protocol import Event
from agentcube_kernel.channel.trust import Trust
from agentcube_kernel.kernel.publishing import Publisher
from agentcube_kernel.magics.cells import Display
from agentcube_kernel.magics.ipython_host import show
from tests.sandboxes import opened

GUEST = Path(__file__).parents[2] / "agentcube_kernel" / "guest"
TYPE = "telemetry"


def marked_in_guest() -> Iterator[tuple[str, set[str]]]:
    """Each event type that a function of the guest encodes, with the kinds of frames that this function sends."""
    for path in GUEST.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            types, frames = set(), set()
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                    called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                    first = node.args[0] if node.args else None
                    if called == "encode_event" and isinstance(first, ast.Constant):
                        types.add(str(first.value))
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "frames":
                    frames.add(node.attr)
            for type in types:
                yield type, frames


def test_the_guest_marks_as_urgent_what_the_table_calls_urgent() -> None:
    """The guest cannot import the table, and says the same: what is urgent, and what ends a cell."""
    found = dict(marked_in_guest())
    assert {"stream", "execute_input", "execute_reply", "comm_reply", "input_request"} <= set(found)
    for type, frames in found.items():
        row = event_types()[type]
        assert bool(frames & {"URGENT", "DONE"}) == row.urgent, type
        assert ("DONE" in frames) == row.ends, type


@pytest.mark.usefixtures("configured")
async def test_a_guest_sends_every_type_of_the_table_and_no_other() -> None:
    """Cells that do all that there is to do bring one event of each type at least, and none that is refused."""
    code = (
        "import comm\nfrom IPython.display import clear_output, display\n"
        "handle = display(1, display_id=True); handle.update(2); clear_output(); print('x', flush=True)\n"
        "c = comm.create_comm(target_name='t'); c.send({}); c.close(); input(); 1"
    )
    async with opened() as sandbox:
        seen: list[Event] = []
        run = await sandbox.start_cell(code, allow_stdin=True)
        async for event in run.events():
            seen.append(event)
            if event.type == "input_request":
                await run.answer("")
        seen += (await sandbox.run_cell("1/0")).events
        message = {"comm_id": "none", "data": {}}
        seen += [event async for event in sandbox.stream_comm("comm_msg", message, message_id="m")]
    assert {event.type for event in seen} == set(event_types())
    assert "the sandbox sent" not in str(seen)


class Screen:
    """A front end of `%%sandbox` cells that writes down what it is to show."""

    quiet, allow_stdin = False, False

    def __init__(self) -> None:
        self.shown: list[tuple[str, Any]] = []

    def publish(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] | None = None,
    ) -> None:
        """Write it down."""
        self.shown.append((msg_type, content))

    async def drain(self) -> None:
        """Nothing is ever behind."""

    async def ask(self, prompt: str, *, password: bool = False) -> str | None:
        """Nobody is there."""

    variables: Any = None


def published(event: Event) -> list[dict[str, Any]]:
    """What the kernel sends to front ends for an event, over a real socket."""
    context = zmq.Context()
    sender, receiver = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    try:
        sender.bind("inproc://iopub")
        receiver.connect("inproc://iopub")
        session = Session(key=b"key")
        Publisher(session, sender, lambda msg_type: msg_type.encode()).forward(event)
        messages = []
        while receiver.poll(0):
            messages.append(session.recv(receiver)[1])
        return messages
    finally:
        sender.close(0)
        receiver.close(0)
        context.term()


def new_type(form: Form, **columns: bool) -> EventType:
    """A row that is not in the table, shaped as an existing one of that form is."""
    model = event_types()[{Form.TEXT: "stream", Form.BUNDLE: "display_data"}[form]]
    return EventType(
        name=TYPE, clean=model.clean, form=form, published=True, in_cells=True, in_background=True, **columns
    )


CONTENTS = {
    Form.TEXT: {"name": "stdout", "text": "news\n"},
    Form.BUNDLE: {"data": {"text/plain": "news"}, "metadata": {}, "transient": {}},
}


@pytest.mark.parametrize("form", CONTENTS)
def test_every_consumer_takes_a_type_that_is_added(form: Form) -> None:
    """One more row is enough for exit, policy, publishing, `%%sandbox` cells and IPython."""
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    event = Event(type=TYPE, content=CONTENTS[form], cell_id="c")
    refused = admit(event, Trust.ON)
    assert refused is not None
    assert refused.type == "stream"
    assert published(event) == []
    with added_event_type(new_type(form)):
        for trust in Trust:
            assert admit(event, trust) == event
        (message,) = published(event)
        assert (message["msg_type"], message["content"]) == (TYPE, CONTENTS[form])
        screen = Screen()
        Display(screen, "a", label=False, step=lambda step: None).show(event)
        ((_, content),) = screen.shown
        assert "news" in str(content)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            show(shell, TYPE, event.content)
        assert printed.getvalue() == "news\n"
    assert TYPE not in event_types()


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("known", [True, False])
async def test_a_type_that_is_added_reaches_the_cell_that_made_it(known: bool) -> None:
    """A guest that sends a new type is heard where there is a row; elsewhere one line on stderr says what came."""
    emit = f"get_ipython().display_pub.outgoing.event({TYPE!r}, {CONTENTS[Form.TEXT]!r})"
    async with AsyncSandbox() as sandbox:
        with added_event_type(new_type(Form.TEXT)) if known else contextlib.nullcontext():
            result = await sandbox.run_cell(emit)
    assert (TYPE in [event.type for event in result.events]) == known
    assert result.stderr.count(f"unknown type '{TYPE}'") == (0 if known else 1)


async def test_a_stream_that_nobody_reads_stays_bounded() -> None:
    """The oldest text gives way to a line that says how much; other output and the end stay."""
    stream = EventStream("c")
    stream.put(Event(type="display_data", content={"data": {"text/plain": "kept"}}, cell_id="c"))
    for _ in range(40):
        stream.put(Event(type="stream", content={"name": "stdout", "text": "x" * 1_000_000}, cell_id="c"))
    stream.put(Event(type="execute_reply", content={"status": "ok"}, cell_id="c"))
    stream.finish()
    events = [event async for event in stream.events()]
    assert events[0].content["data"] == {"text/plain": "kept"}
    assert events[-1].type == "execute_reply"
    text = "".join(event.content.get("text", "") for event in events)
    assert len(text) < 18_000_000
    assert "characters of output were dropped here" in text
