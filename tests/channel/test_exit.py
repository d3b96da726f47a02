"""What the gate lets through from a hostile sandbox: events of known types and right shapes."""

from __future__ import annotations

import json

import pytest

from agentcube_kernel.channel import exit
from agentcube_kernel.channel.protocol import Event
from agentcube_kernel.channel.trust import Trust

GOOD = {
    "stream": {"name": "stdout", "text": "x"},
    "display_data": {"data": {"text/plain": "x"}, "metadata": {}, "transient": {"display_id": "d"}},
    "update_display_data": {"data": {"text/html": "<b>"}, "metadata": {}, "transient": {"display_id": "d"}},
    "execute_result": {"data": {"application/json": {"a": [1]}}, "metadata": {}, "execution_count": 3},
    "error": {"ename": "E", "evalue": "v", "traceback": ["a", "b"]},
    "clear_output": {"wait": True},
    "execute_input": {"code": "1", "execution_count": 1},
    "execute_reply": {"status": "ok", "execution_count": 1, "user_expressions": {}, "payload": []},
    "input_request": {"prompt": "?", "password": True},
    "comm_open": {"comm_id": "c", "data": {}, "target_name": "t"},
    "comm_msg": {"comm_id": "c", "data": {"x": 1}},
    "comm_close": {"comm_id": "c", "data": {}},
    "comm_reply": {},
}


def admit(event: Event, trust: Trust = Trust.ON) -> Event:
    """What passes of an event."""
    admitted = exit.admit(event, trust)
    assert admitted is not None
    return admitted


def event(type: str, content: dict[str, object]) -> Event:
    return Event(type=type, content=content, cell_id="cell")


@pytest.mark.parametrize("type", GOOD)
def test_well_formed_events_pass(type: str) -> None:
    """Each known type passes unchanged."""
    assert admit(event(type, GOOD[type])).content == GOOD[type]


@pytest.mark.parametrize(
    "type", ["shutdown_reply", "status", "debug_event", "kernel_info_reply", "", "x" * 10_000]
)
def test_unknown_types_do_not_pass(type: str) -> None:
    """What is not on the list becomes a short line on stderr."""
    admitted = admit(event(type, {}))
    assert admitted.type == "stream"
    assert len(admitted.content["text"]) < 200


@pytest.mark.parametrize(
    ("type", "content"),
    [
        ("stream", {"name": "stdout"}),
        ("stream", {"name": "status", "text": "x"}),
        ("stream", {"name": "stdout", "text": ["x"]}),
        ("display_data", {"data": []}),
        ("display_data", {"data": {"text/html": {"x": 1}}}),
        ("execute_result", {"data": {}, "execution_count": "1"}),
        ("execute_result", {"data": {}, "execution_count": True}),
        ("error", {"ename": "E", "evalue": 1}),
        ("error", {"ename": "E", "evalue": "v", "traceback": "x"}),
        ("error", {"ename": "E", "evalue": "v", "traceback": [1]}),
        ("comm_open", {"comm_id": 1, "target_name": "t"}),
        ("comm_msg", {"comm_id": "c", "data": []}),
        ("input_request", {"prompt": 1}),
    ],
)
def test_malformed_content_does_not_pass(type: str, content: dict[str, object]) -> None:
    """A wrong shape becomes a line that names the type, under the same cell."""
    admitted = admit(event(type, content))
    assert admitted.type == "stream"
    assert admitted.cell_id == "cell"
    assert type in admitted.content["text"]


def test_what_a_strict_encoder_refuses_is_cleaned() -> None:
    """NaN, infinities and lone surrogates would break the message to the front end."""
    data = {"text/plain": "a\ud800", "application/json": {"x": [float("nan"), float("inf")], "\udfff": 1}}
    admitted = admit(event("display_data", {"data": data}))
    json.dumps(admitted.content, allow_nan=False).encode()
    admitted.content["data"]["text/plain"].encode()


def test_bottomless_nesting_does_not_pass() -> None:
    """Deep nesting is refused before it exhausts anybody's stack."""
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"x": deep}
    assert admit(event("display_data", {"data": {"application/json": deep}})).type == "stream"


def test_payloads_that_open_files_do_not_pass() -> None:
    """Only payloads that show text or offer a next cell reach the front end."""
    payload = [
        {"source": "page", "data": {"text/plain": "x"}},
        {"source": "edit_magic", "filename": "/etc/passwd"},
        {"source": "set_next_input", "text": "x"},
    ]
    reply = {"status": "ok", "execution_count": 1, "payload": payload}
    sources = [item["source"] for item in admit(event("execute_reply", reply)).content["payload"]]
    assert sources == ["page", "set_next_input"]


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("complete", {"status": "ok", "matches": "x"}),
        ("complete", {"status": "ok", "matches": ["x"], "cursor_start": "0", "cursor_end": 1}),
        ("inspect", {"status": "ok", "found": True, "data": []}),
        ("is_complete", {"status": "maybe"}),
        ("complete", ["x"]),
        ("usage", None),
    ],
)
def test_malformed_answers_to_questions_are_empty(question: str, reply: object) -> None:
    """A front end gets a proper reply or none, never a broken one."""
    assert exit.admit_reply(reply, question, Trust.ON) == {}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("\x1b[31mred\x1b[0m\r50%\b\t\x1b[2K\x1b[A", "\x1b[31mred\x1b[0m\r50%\b\t\x1b[2K\x1b[A"),
        ("\x1b]52;c;ZXZpbA==\x07", "]52;c;ZXZpbA==\x07"),
        ("\x1b]0;title\x1b\\", "]0;title\x1b\\"),
        ("\x1bP1$r\x1b\\\x1b_x\x1b^y\x1bXz", "P1$r\x1b\\_x^yXz"),
        ("\x9d52;c;x\x9c", "52;c;x"),
        ("\x1bc", "c"),
        ("half\x1b", "half"),
        ("\x0eshift\x0f", "shift"),
        ("é\x1b]0;x\x07", "é]0;x\x07"),
    ],
)
def test_text_does_nothing_to_a_terminal_but_colours_and_cursor(sent: str, shown: str) -> None:
    """Sequences that set titles, clipboards or modes arrive as the visible text of themselves."""
    assert admit(event("stream", {"name": "stdout", "text": sent})).content["text"] == shown
    traceback = admit(event("error", {"ename": sent, "evalue": "", "traceback": [sent]})).content
    assert (traceback["ename"], traceback["traceback"]) == (shown, [shown])
    result = {"data": {"text/plain": sent}, "execution_count": 1}
    assert admit(event("execute_result", result)).content["data"]["text/plain"] == shown
    assert admit(event("input_request", {"prompt": sent})).content["prompt"] == shown
