"""Everything that a front end asks besides running cells, also while one runs."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.kernel.conftest import StartKernel
from tests.kernel.frontend import NOT_THERE, FrontEnd

ASKED_WHILE_BUSY = {
    "complete_request": {"code": "some_numb", "cursor_pos": 9},
    "inspect_request": {"code": "some_number", "cursor_pos": 11, "detail_level": 0},
    "is_complete_request": {"code": "for x in y:"},
    "history_request": {"hist_access_type": "tail", "n": 1, "raw": True, "output": False},
    "kernel_info_request": {},
    "comm_info_request": {},
}


async def test_completion_knows_the_sandbox_s_variables(kernel: FrontEnd) -> None:
    """Names that only the sandbox knows are completed, with the positions that they replace."""
    await kernel.run("some_number = 5")
    answer = await kernel.ask("complete_request", {"code": "x = some_num", "cursor_pos": 12})
    assert answer["matches"] == ["some_number"]
    assert (answer["cursor_start"], answer["cursor_end"], answer["status"]) == (4, 12, "ok")


async def test_inspection_knows_the_sandbox_s_objects(kernel: FrontEnd) -> None:
    """The help for an object comes from the sandbox."""
    await kernel.run("def area(r):\n    'The area of a circle.'")
    answer = await kernel.ask("inspect_request", {"code": "area", "cursor_pos": 4, "detail_level": 0})
    assert answer["found"]
    assert "The area of a circle." in answer["data"]["text/plain"]
    missing = await kernel.ask("inspect_request", {"code": "no_such", "cursor_pos": 7})
    assert (missing["found"], missing["data"]) == (False, {})


@pytest.mark.parametrize("msg_type", ASKED_WHILE_BUSY)
async def test_questions_are_answered_while_a_cell_runs(kernel: FrontEnd, msg_type: str) -> None:
    """No question waits for the running cell; the front end still shows the kernel as busy afterwards."""
    await kernel.run("some_number = 5")
    cell = kernel.begin("import time\nprint('on')\nwhile True: time.sleep(0.01)")
    await kernel.printed(cell, "on")
    question = kernel.send(msg_type, ASKED_WHILE_BUSY[msg_type])
    done = await kernel.end(question, timeout=5)
    assert done.status in ("ok", "incomplete")
    if msg_type == "complete_request":
        assert done.content["matches"] == ["some_number"]
    await kernel.until(
        lambda m: (
            m["msg_type"] == "status"
            and m["parent_header"]["msg_id"] == cell
            and m["header"]["date"] > done.reply["header"]["date"]
        )
    )
    states = [m for m in kernel.messages if m["msg_type"] == "status" and m["channel"] == "iopub"]
    assert states[-1]["content"]["execution_state"] == "busy"
    await kernel.interrupt()
    await kernel.end(cell)


@pytest.mark.parametrize(
    ("code", "status", "indent"),
    [
        ("1 + 1", "complete", None),
        ("for x in y:", "incomplete", "    "),
        ("1 1", "invalid", None),
        ("%time 1", "complete", None),
    ],
)
async def test_is_complete_follows_ipython(
    kernel: FrontEnd, code: str, status: str, indent: str | None
) -> None:
    """A console learns whether to run a line or to go on with the next, and how far to indent that."""
    answer = await kernel.ask("is_complete_request", {"code": code})
    assert (answer["status"], answer.get("indent")) == (status, indent)


@pytest.mark.parametrize(
    ("msg_type", "content"),
    [
        ("complete_request", {}),
        ("complete_request", {"code": "a", "cursor_pos": "end"}),
        ("inspect_request", {"cursor_pos": 1}),
        ("is_complete_request", {"code": 5}),
        ("history_request", {"hist_access_type": 5}),
    ],
)
async def test_malformed_questions_are_answered(
    kernel: FrontEnd, msg_type: str, content: dict[str, object]
) -> None:
    """A question that lacks a field or has one of a wrong type gets an error as reply, not silence."""
    answer = await kernel.ask(msg_type, content)
    assert (answer["status"], answer["ename"]) == ("error", "BadRequestError")


async def test_a_cursor_outside_the_code_is_at_its_end(kernel: FrontEnd) -> None:
    """A position beyond the text, or before it, is taken for the nearest one in it."""
    assert (await kernel.ask("complete_request", {"code": "zi", "cursor_pos": 99}))["matches"] == ["zip"]
    assert (await kernel.ask("complete_request", {"code": "zi", "cursor_pos": -5}))["status"] == "ok"


async def test_kernel_info_promises_nothing_that_is_not_there(kernel: FrontEnd) -> None:
    """The language is described as by ipykernel; debugger and subshells are not claimed."""
    info = await kernel.ask("kernel_info_request", {})
    assert info["implementation"] == "agentcube_kernel"
    assert info["supported_features"] == []
    assert info["language_info"]["name"] == "python"
    assert info["language_info"]["codemirror_mode"] == {"name": "ipython", "version": 3}
    assert "AgentCube" in info["banner"]
    assert all(link.keys() == {"text", "url"} for link in info["help_links"])


async def test_usage_is_the_sandbox_s(kernel: FrontEnd) -> None:
    """The memory that a cell takes shows, and the process is not this kernel's."""
    before = await kernel.ask("usage_request", {}, channel="control")
    await kernel.run("block = bytearray(200_000_000)")
    after = await kernel.ask("usage_request", {}, channel="control")
    await kernel.run("del block")
    assert after["kernel_memory"] - before["kernel_memory"] > 150_000_000
    assert after.get("pid") != kernel.pid


async def test_cells_run_from_the_control_channel(kernel: FrontEnd) -> None:
    """What may be asked on the shell channel may be asked on the control channel."""
    answer = await kernel.ask("execute_request", {"code": "from_control = 1"}, channel="control")
    assert answer["status"] == "ok"
    assert (await kernel.run("from_control")).result == "1"


async def test_questions_need_no_sandbox(start_kernel: StartKernel) -> None:
    """With no AgentCube that could be reached, everything but cells is answered at once."""
    user = await start_kernel(env=NOT_THERE)
    began = time.monotonic()
    for msg_type, content in ASKED_WHILE_BUSY.items():
        assert (await user.ask(msg_type, content))["status"] in ("ok", "incomplete")
    assert (await user.ask("usage_request", {}, channel="control"))["reason"] == "there is no sandbox yet"
    assert time.monotonic() - began < 2
    comm = user.send("comm_open", {"comm_id": "c", "target_name": "jupyter.widget.control", "data": {}})
    closed = await user.until(lambda m: m["msg_type"] == "comm_close")
    assert (closed["parent_header"]["msg_id"], closed["content"]["comm_id"]) == (comm, "c")


async def test_many_questions_at_once(kernel: FrontEnd) -> None:
    """Fifty completions while cells run are all answered, and the cells too."""
    cells = [kernel.begin(f"value_{n} = {n}") for n in range(10)]
    questions = [kernel.send("complete_request", {"code": "impor", "cursor_pos": 5}) for _ in range(50)]
    answers = await asyncio.gather(*(kernel.reply(question) for question in questions))
    assert {answer["content"]["status"] for answer in answers} == {"ok"}
    for cell in cells:
        assert (await kernel.end(cell)).status == "ok"
