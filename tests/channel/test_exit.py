"""What passes the exit from a hostile sandbox: events and answers of known types and right shapes, harmless."""

from __future__ import annotations

import json

import nbformat
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


@pytest.mark.parametrize(
    "data",
    [
        {"text/html": 7},
        {"text/html": [["nested"]]},
        {"text/html": ["a", 1]},
        {"image/png": {"x": 1}},
        {"application/x-jsonlike": {"x": 1}},
        {"": "x"},
        {"text": "x"},
        {"text/\x1b]52;c;x\x07": "x"},
        {"text/" + "x" * 1000: "x"},
        {"text/plain\n": "x"},
    ],
)
def test_bundles_that_nbformat_would_refuse_do_not_pass(data: dict[str, object]) -> None:
    """Text is a str or a list of lines, structure is for JSON types, and a mime type has a name."""
    admitted = admit(event("display_data", {"data": data}))
    assert admitted.type == "stream"
    assert admitted.content["text"].strip().isprintable()


def test_bundles_are_as_nbformat_wants_them() -> None:
    """Lines are joined, JSON stays what it is, and what is null is left out."""
    data = {
        "text/plain": ["a\n", "b"],
        "application/json": [1, None],
        "application/x.v1+json": 3,
        "text/html": None,
    }
    content = admit(event("execute_result", {"data": data, "execution_count": -7})).content
    assert content["data"] == {
        "text/plain": "a\nb",
        "application/json": [1, None],
        "application/x.v1+json": 3,
    }
    output = {"output_type": "execute_result", **content}
    nbformat.validate(output, ref="output", version=4, version_minor=5)


@pytest.mark.parametrize(("claimed", "passes"), [(-1, 0), (0, 0), (3, 3), (10**30, 2**31 - 1)])
def test_counts_are_neither_negative_nor_huge(claimed: int, passes: int) -> None:
    """A number of a sandbox can size nothing."""
    for type in ("execute_result", "execute_input", "execute_reply"):
        content = {**GOOD[type], "execution_count": claimed}
        assert admit(event(type, content)).content["execution_count"] == passes


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"status": "abort", "execution_count": 1},
        {"status": "ok", "execution_count": "1"},
        {"status": "ok", "execution_count": 1, "payload": {}},
        {"status": "ok", "execution_count": 1, "payload": [1]},
        {"status": "ok", "execution_count": 1, "user_expressions": {"x": 1}},
        {"status": "error", "execution_count": 1, "ename": 1},
    ],
)
def test_a_malformed_end_is_an_end(content: dict[str, object]) -> None:
    """Nobody waits forever for a cell whose reply cannot be used: it ends with an error that says so."""
    admitted = admit(event("execute_reply", content))
    assert (admitted.type, admitted.cell_id) == ("execute_reply", "cell")
    assert (admitted.content["status"], admitted.content["ename"]) == ("error", "MalformedReply")


def test_ids_of_cells_are_well_formed() -> None:
    """An id can be written to messages and logs whatever the sandbox has made of it."""
    admitted = admit(Event(type="stream", content=GOOD["stream"], cell_id="a\ud800\x1b]0;" + "x" * 10_000))
    admitted.cell_id.encode()
    assert admitted.cell_id.isprintable()
    assert len(admitted.cell_id) <= 256


def payloads(*items: object, trust: Trust = Trust.ON) -> list[dict[str, object]]:
    """What passes of the payloads of a reply."""
    reply = {"status": "ok", "execution_count": 1, "payload": list(items)}
    passed: list[dict[str, object]] = admit(event("execute_reply", reply), trust).content["payload"]
    return passed


def test_payloads_are_typed_and_listed() -> None:
    """Only those that show text, propose a next cell or end the front end pass, with what they need and no more."""
    assert payloads(
        {"source": "page", "data": {"text/plain": "x"}, "start": 3, "more": 1},
        {"source": "edit_magic", "filename": "/etc/passwd"},
        {"source": "set_next_input", "text": "x", "replace": True},
        {"source": ["page"]},
        {"source": "ask_exit", "keepkernel": 1},
    ) == [
        {"source": "page", "data": {"text/plain": "x"}, "start": 3},
        {"source": "set_next_input", "text": "x", "replace": False},
        {"source": "ask_exit", "keepkernel": False},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "%sandbox put ~/.ssh/id_ed25519",
        "%%sandbox\n1",
        "x = 1\n  %sandbox stop --all",
        "%sand\x0ebox stop",
        "# a comment\n%sandbox",
        "?%sandbox",
    ],
)
def test_no_sandbox_proposes_a_command_of_the_users_side(text: str) -> None:
    """Shift-Enter on a proposed cell never runs one of our magics."""
    assert payloads({"source": "set_next_input", "text": text}) == []


SCRIPT = "<script>evil()</script><b onclick='evil()'>bold</b>"
HOSTILE = {"text/html": SCRIPT, "application/javascript": "evil()", "image/svg+xml": "<svg onload='evil()'/>"}
REPLIES = {
    "execute_reply, page": lambda trust: payloads({"source": "page", "data": HOSTILE}, trust=trust),
    "execute_reply, user_expressions": lambda trust: (
        admit(
            event(
                "execute_reply",
                {
                    "status": "ok",
                    "execution_count": 1,
                    "user_expressions": {"x": {"status": "ok", "data": HOSTILE, "metadata": {}}},
                },
            ),
            trust,
        ).content
    ),
    "inspect": lambda trust: exit.admit_reply(
        {"status": "ok", "found": True, "data": HOSTILE}, "inspect", trust
    ),
    "display_data": lambda trust: admit(event("display_data", {"data": HOSTILE}), trust).content,
    "update_display_data": lambda trust: (
        admit(event("update_display_data", {"data": HOSTILE}), trust).content
    ),
    "execute_result": lambda trust: (
        admit(event("execute_result", {"data": HOSTILE, "execution_count": 1}), trust).content
    ),
}


@pytest.mark.parametrize("way", REPLIES)
def test_the_policy_meets_every_way_out(way: str) -> None:
    """Whatever brings a mime bundle to a front end, nothing in it runs when the sandbox is not trusted."""
    assert "evil" in str(REPLIES[way](Trust.ON))
    passed = str(REPLIES[way](Trust.OFF))
    assert "<b>bold</b>" in passed
    assert "evil" not in passed


def test_what_talks_back_needs_trust() -> None:
    """Comms and proposals for the next cell pass only from a trusted sandbox."""
    for type in ("comm_open", "comm_msg", "comm_close"):
        assert exit.admit(event(type, GOOD[type]), Trust.ON) is not None
        assert exit.admit(event(type, GOOD[type]), Trust.OFF) is None
    comms = {"c": {"target_name": "t"}}
    assert exit.admit_reply(comms, "comm_info", Trust.ON) == comms
    assert exit.admit_reply(comms, "comm_info", Trust.OFF) == {}
    proposal = {"source": "set_next_input", "text": "x"}
    assert len(payloads(proposal)) == 1
    assert payloads(proposal, trust=Trust.OFF) == []


@pytest.mark.parametrize("trust", Trust)
@pytest.mark.parametrize("type", GOOD)
def test_every_level_of_trust_knows_every_type(type: str, trust: Trust) -> None:
    """An event passes, cleaned or not, or is refused; what ends a cell always passes."""
    admitted = exit.admit(event(type, GOOD[type]), trust)
    assert admitted is not None or type.startswith("comm_")


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("complete", {"status": "ok", "matches": "x"}),
        ("complete", {"status": "ok", "matches": ["x"], "cursor_start": "0", "cursor_end": 1}),
        ("inspect", {"status": "ok", "found": True, "data": []}),
        ("is_complete", {"status": "maybe"}),
        ("complete", ["x"]),
        ("is_complete", {"status": "incomplete", "indent": "import os"}),
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
    failure = {"ename": sent, "evalue": sent, "traceback": [sent]}
    assert admit(event("error", failure)).content == {"ename": shown, "evalue": shown, "traceback": [shown]}
    reply = {"status": "error", "execution_count": 1, **failure}
    assert admit(event("execute_reply", reply)).content["evalue"] == shown
    for mime in ("text/plain", "text/markdown", "text/latex"):
        for value in (sent, [sent]):
            result = {"data": {mime: value}, "execution_count": 1}
            assert admit(event("execute_result", result)).content["data"] == {mime: shown}
    assert admit(event("input_request", {"prompt": sent})).content["prompt"] == shown
    (page,) = payloads({"source": "page", "data": {"text/plain": sent}})
    assert page["data"] == {"text/plain": shown}
    reply = {"status": "ok", "matches": [sent], "cursor_start": 0, "cursor_end": 1}
    assert exit.admit_reply(reply, "complete", Trust.ON)["matches"] == [shown]
    inspected = exit.admit_reply({"status": "ok", "data": {"text/plain": sent}}, "inspect", Trust.ON)
    assert inspected["data"] == {"text/plain": shown}


def test_markdown_of_an_untrusted_sandbox_is_text_for_a_terminal_too() -> None:
    """What becomes plain text by the policy is as harmless as what was plain text."""
    data = {"text/markdown": "\x1b]52;c;ZXZpbA==\x07*x*"}
    content = admit(event("display_data", {"data": data}), Trust.OFF).content
    assert content["data"] == {"text/plain": "]52;c;ZXZpbA==\x07*x*"}


def test_usage_is_numbers_and_names() -> None:
    """Nothing else is reported, and no number that could not be shown."""
    usage = {
        "hostname": "h\x1b]0;x\x07",
        "pid": 7,
        "kernel_cpu": float("nan"),
        "kernel_memory": "much",
        "cpu_count": 10**400,
        "host_cpu_percent": 1.5,
        "host_virtual_memory": {"total": 1, "used": None},
        "running": "cell",
        "more": {"x": 1},
    }
    assert exit.admit_reply(usage, "usage", Trust.ON) == {
        "hostname": "h\N{REPLACEMENT CHARACTER}]0;x\N{REPLACEMENT CHARACTER}",
        "pid": 7,
        "host_cpu_percent": 1.5,
        "host_virtual_memory": {"total": 1},
        "running": "cell",
    }
