"""The protocol without any process: encoding, numbering, and what hostile input does to it."""

from __future__ import annotations

import json
import random

import pytest

from agentcube_kernel.channel.protocol import (
    ANSWER_LIMIT,
    END,
    ENTRY_LIMIT,
    Event,
    Inbox,
    IncompleteAnswerError,
    Outbox,
    ProtocolError,
    decode_answer,
    decode_event,
    decode_request,
    encode_answer,
    encode_event,
    encode_request,
    is_slot_name,
)


def stream(text: str) -> str:
    return encode_event("stream", {"name": "stdout", "text": text})


def entries(outbox: Outbox, limit: int = ANSWER_LIMIT) -> list[object]:
    """What an answer would carry, decoded as the host decodes it."""
    taken, more = outbox.take(limit)
    return decode_answer(encode_answer({"g": "g", "more": more}, taken)).entries


def texts(events: list[Event]) -> list[str]:
    return [event.content["text"] for event in events]


def test_events_survive_the_way() -> None:
    """Type, content, metadata and buffers arrive as they were."""
    body = json.loads(
        encode_event(
            "comm_msg", {"data": {"é": 1}}, metadata={"m": 1}, buffers=[b"\0\xff", memoryview(b"ab")]
        )
    )
    event = decode_event(body, "cell")
    assert event == Event(
        type="comm_msg",
        content={"data": {"é": 1}},
        cell_id="cell",
        metadata={"m": 1},
        buffers=(b"\0\xff", b"ab"),
    )


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1: 2}, {(1, 2): 3}, {1, 2}, object(), b"x", range(3)]
)
def test_any_value_can_be_encoded(value: object) -> None:
    """What JSON does not know becomes text or base64; the event is never lost."""
    assert decode_event(json.loads(encode_event("display_data", {"data": value})), "").type == "display_data"


def test_a_value_that_contains_itself_can_be_encoded() -> None:
    """A list in itself ends somewhere."""
    loop: list[object] = []
    loop.append(loop)
    assert decode_event(json.loads(encode_event("display_data", {"data": loop})), "").type == "display_data"


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "x",
        {},
        {"t": 1, "c": {}},
        {"t": "x", "c": []},
        {"t": "x", "c": {}, "m": 1},
        {"t": "x", "c": {}, "b": "x"},
        {"t": "x", "c": {}, "b": ["*"]},
        {"t": "x", "c": {}, "b": [1]},
    ],
)
def test_a_body_of_a_wrong_shape_is_refused(body: object) -> None:
    """Each wrong type raises ProtocolError and nothing else."""
    with pytest.raises(ProtocolError):
        decode_event(body, "")


def test_events_stay_until_they_are_acknowledged() -> None:
    """What is not acknowledged comes again, from the first such entry on."""
    outbox, inbox = Outbox(), Inbox()
    for number in range(5):
        outbox.append("c", stream(str(number)))
    assert texts(list(inbox.receive(entries(outbox)))) == list("01234")
    assert list(inbox.receive(entries(outbox))) == []
    outbox.acknowledge(3)
    assert len(entries(outbox)) == 2
    outbox.acknowledge(99)
    assert len(entries(outbox)) == 2


def test_entries_after_a_hole_wait() -> None:
    """An inbox takes nothing out of order."""
    outbox, inbox = Outbox(), Inbox()
    for number in range(4):
        outbox.append("c", stream(str(number)))
    all_entries = entries(outbox)
    assert texts(list(inbox.receive([all_entries[0], all_entries[2], all_entries[3]]))) == ["0"]
    assert inbox.acknowledged == 1
    assert texts(list(inbox.receive(all_entries))) == ["1", "2", "3"]


@pytest.mark.parametrize("seed", range(20))
def test_lost_and_repeated_answers_change_nothing(seed: int) -> None:
    """However answers are lost, repeated and overtaken, every event comes once and in order."""
    chance = random.Random(seed)
    outbox, inbox = Outbox(), Inbox()
    sent = 0
    late: list[list[object]] = []
    received: list[str] = []
    while len(received) < 300:
        for _ in range(chance.randrange(4)):
            if sent < 300:
                big = "x" * (ENTRY_LIMIT * 2 if chance.random() < 0.01 else 3)
                outbox.append("c", stream(f"{sent} {big}"))
                sent += 1
        outbox.acknowledge(
            inbox.acknowledged if chance.random() < 0.7 else chance.randrange(inbox.acknowledged + 1)
        )
        answer = entries(outbox, limit=chance.choice([10, 1000, ANSWER_LIMIT]))
        if chance.random() < 0.3:
            late.append(answer)
        if chance.random() < 0.7:
            received += texts(list(inbox.receive(answer)))
        if late and chance.random() < 0.3:
            received += texts(list(inbox.receive(late.pop(chance.randrange(len(late))))))
    assert [text.split()[0] for text in received] == [str(number) for number in range(300)]


def test_a_large_event_travels_in_pieces() -> None:
    """No answer grows far beyond its limit, and the event comes together again."""
    outbox, inbox = Outbox(), Inbox()
    content = {"data": {"text/html": 'ä"\\' * 2_000_000}, "metadata": {}, "transient": {}}
    outbox.append("c", encode_event("display_data", content))
    got: list[Event] = []
    while not got:
        taken, _ = outbox.take()
        assert sum(map(len, taken)) < 2 * ANSWER_LIMIT
        got += inbox.receive(decode_answer(encode_answer({"g": "g"}, taken)).entries)
        outbox.acknowledge(inbox.acknowledged)
    assert got[0].content == content


def test_an_event_beyond_the_limit_is_named_and_left_out() -> None:
    """A sandbox cannot fill the user's memory with one event."""
    outbox, inbox = Outbox(), Inbox(limit=ENTRY_LIMIT)
    outbox.append("c", stream("x" * ENTRY_LIMIT * 2))
    outbox.append("c", stream("next"))
    got = list(inbox.receive(entries(outbox, limit=10 * ENTRY_LIMIT)))
    assert "too large" in got[0].content["text"]
    assert got[1].content["text"] == "next"


def test_a_full_outbox_gives_up_its_oldest_stream_text_only() -> None:
    """Dropped text leaves a mark that says how much; results and errors stay; numbers go on without a hole."""
    outbox, inbox = Outbox(limit=10_000), Inbox()
    outbox.append("c", encode_event("execute_result", {"data": {}}))
    for number in range(200):
        outbox.append("c", stream(f"{number:03} " + "x" * 100), stream=True)
        if outbox.full:
            outbox.drop_oldest_streams()
    outbox.append("c", encode_event("error", {"ename": "E"}))
    events = list(inbox.receive(entries(outbox)))
    assert [events[0].type, events[-1].type] == ["execute_result", "error"]
    assert "characters of output were dropped here" in events[1].content["text"]
    kept = [event.content["text"][:3] for event in events[2:-1]]
    assert kept == [f"{number:03}" for number in range(200 - len(kept), 200)]
    assert outbox.size < 10_000
    assert inbox.acknowledged == outbox.last_number


def test_an_answer_without_its_end_is_none() -> None:
    """Every way to cut an answer short is noticed."""
    outbox = Outbox()
    outbox.append("c", stream("hello"))
    answer = encode_answer({"g": "g"}, outbox.take()[0])
    assert len(decode_answer(answer).entries) == 1
    for length in range(len(answer)):
        with pytest.raises(IncompleteAnswerError):
            decode_answer(answer[:length])


@pytest.mark.parametrize(
    "fields",
    [
        "[]",
        "1",
        '{"v":99,"g":"g"}',
        '{"v":1}',
        '{"v":1,"g":1}',
        '{"v":1,"g":"g","e":{}}',
        '{"v":1,"g":"g","slots":["../x"]}',
        '{"v":1,"g":"g","slots":["s1; rm -rf /"]}',
        '{"v":1,"g":"g","reply":[]}',
        '{"v":1,"g":"g","error":{}}',
        '{"v":1,"g":"g","dead":1}',
        '{"v":1,"g":"g","unfinished":"x"}',
        "[" * 100_000,
        "9" * 10_000,
    ],
)
def test_an_answer_of_a_wrong_shape_is_refused(fields: str) -> None:
    """A hostile answer raises ProtocolError, whatever it is."""
    with pytest.raises(ProtocolError):
        decode_answer(fields + END)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        [1, "c", 0],
        ["1", "c", 0, {}],
        [True, "c", 0, {}],
        [1, 2, 0, {}],
        [1, "c", 9, {}],
        [1, "c", 1, {}],
        [1, "c", 3, []],
        [1, "c", 3, {"last": 0, "characters": 1}],
        [1, "c", 3, {"last": "x", "characters": 1}],
    ],
)
def test_an_entry_of_a_wrong_shape_is_refused(entry: object) -> None:
    """The numbering cannot be confused by types."""
    with pytest.raises(ProtocolError):
        list(Inbox().receive([entry]))


def test_a_malformed_event_is_named_and_left_out() -> None:
    """One bad event costs that event and a line, not the cell."""
    got = list(
        Inbox().receive(
            [[1, "c", 0, {"t": 5}], [2, "c", 2, "{not json"], [3, "c", 0, json.loads(stream("ok"))]]
        )
    )
    assert ["malformed" in text for text in texts(got)] == [True, True, False]


def test_requests_are_one_line_of_ascii() -> None:
    """A request fits into a line of the pipe, whatever is in it."""
    line = encode_request({"op": "run", "code": "a\nbé\u2028"})
    assert line.isascii()
    assert "\n" not in line
    assert decode_request(line)["code"] == "a\nbé\u2028"
    for text in ("", "[]", "{}", '{"op":1}', "nonsense"):
        with pytest.raises(ProtocolError):
            decode_request(text)


def test_slot_names_are_harmless_words() -> None:
    """They become words of a shell command and file names."""
    assert is_slot_name("s123")
    for name in ("", "s", "x1", "s1/../x", "s1 ", "s1\n", "s" + "1" * 30, "s²", 7, None):
        assert not is_slot_name(name)
