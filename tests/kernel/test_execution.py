"""Execute requests, their outputs and their replies."""

from __future__ import annotations

import pytest

from tests.kernel.frontend import FrontEnd


async def test_a_cell_publishes_input_result_and_idle_in_this_order(kernel: FrontEnd) -> None:
    """A front end gets busy, execute_input, the result and idle, and a reply of the same count."""
    done = await kernel.run("40 + 2")
    states = [m["content"].get("execution_state", m["msg_type"]) for m in done.outputs]
    assert states == ["busy", "execute_input", "execute_result", "idle"]
    assert done.result == "42"
    assert done.content["execution_count"] == done.count
    assert done.of_type("execute_input")[0]["code"] == "40 + 2"


async def test_counts_agree_with_the_sandbox(kernel: FrontEnd) -> None:
    """The number beside a cell is its number in the sandbox's In and Out, also after cells that are not counted."""
    await kernel.run("'not counted'", silent=True)
    await kernel.run("'not stored'", store_history=False)
    done = await kernel.run("'counted'")
    looked = await kernel.run(f"print(In[{done.count}], Out[{done.count}])")
    assert looked.text() == "'counted' counted\n"
    assert looked.count == (done.count or 0) + 1


async def test_a_failing_cell_is_counted(kernel: FrontEnd) -> None:
    """An exception does not take the cell's number away."""
    before = await kernel.run("1")
    failed = await kernel.run("1/0")
    assert failed.count == (before.count or 0) + 1
    assert failed.content["execution_count"] == failed.count


async def test_an_error_has_the_sandbox_s_traceback(kernel: FrontEnd) -> None:
    """The error message and the reply hold the traceback as IPython in the sandbox made it."""
    failed = await kernel.run("def fail():\n    raise ValueError('on purpose')\nfail()")
    (error,) = failed.of_type("error")
    assert (error["ename"], error["evalue"]) == ("ValueError", "on purpose")
    assert "In[" in "\n".join(error["traceback"])
    assert {name: failed.content[name] for name in ("ename", "evalue", "traceback")} == error


async def test_a_silent_cell_publishes_nothing_but_its_status(kernel: FrontEnd) -> None:
    """`silent` suppresses execute_input and the result, and the count stays."""
    before = await kernel.run("1")
    done = await kernel.run("6 * 7", silent=True)
    assert done.types == []
    after = await kernel.run("1")
    assert after.count == (before.count or 0) + 1


async def test_user_expressions_are_evaluated_after_the_cell(kernel: FrontEnd) -> None:
    """Each expression has a result of its own, an error where it fails."""
    done = await kernel.run("x = 5", user_expressions={"good": "x + 1", "bad": "no_such_name"})
    good, bad = (done.content["user_expressions"][name] for name in ("good", "bad"))
    assert good["data"]["text/plain"] == "6"
    assert (bad["status"], bad["ename"]) == ("error", "NameError")


async def test_an_empty_cell_is_not_counted(kernel: FrontEnd) -> None:
    """An empty cell gets a reply at once, and the next cell the number that it showed."""
    before = await kernel.run("1")
    empty = await kernel.run("   \n")
    assert (empty.status, empty.types) == ("ok", ["execute_input"])
    after = await kernel.run("1")
    assert after.count == empty.count == (before.count or 0) + 1


@pytest.mark.parametrize(("code", "source"), [("print?", "page"), ("%load_next", None)])
async def test_help_comes_as_a_page(kernel: FrontEnd, code: str, source: str | None) -> None:
    """What IPython shows in a pager comes as a payload of the reply."""
    done = await kernel.run(code)
    if source is None:
        assert done.content["payload"] == []
        return
    (payload,) = done.content["payload"]
    assert payload["source"] == source
    assert "text/plain" in payload["data"]


async def test_set_next_input_reaches_the_front_end(kernel: FrontEnd) -> None:
    """`set_next_input` asks the front end for a new cell."""
    done = await kernel.run("get_ipython().set_next_input('y = 1')")
    (payload,) = done.content["payload"]
    assert (payload["source"], payload["text"]) == ("set_next_input", "y = 1")


async def test_output_comes_while_the_cell_runs(kernel: FrontEnd) -> None:
    """A line, and a piece of a line with a carriage return, arrive long before the cell ends."""
    cell = kernel.begin("import sys\nprint('first')\nsys.stdout.write('50%\\r'); sys.stdout.flush()\ninput()")
    await kernel.printed(cell, "first\n")
    await kernel.printed(cell, "50%\r")
    assert not [
        m
        for m in kernel.messages
        if m["msg_type"] == "execute_reply" and m["parent_header"]["msg_id"] == cell
    ]
    await kernel.asked(cell)
    kernel.answer("")
    assert (await kernel.end(cell)).text() == "first\n50%\r"


async def test_displays_are_updated_and_cleared(kernel: FrontEnd) -> None:
    """display with an id, its update and clear_output arrive as such, in order."""
    done = await kernel.run(
        "from IPython.display import clear_output\n"
        "h = display('one', display_id='d')\nh.update('two')\nclear_output(wait=True)"
    )
    assert done.types == ["execute_input", "display_data", "update_display_data", "clear_output"]
    shown, updated = done.of_type("display_data")[0], done.of_type("update_display_data")[0]
    assert shown["transient"]["display_id"] == updated["transient"]["display_id"] == "d"
    assert done.of_type("clear_output") == [{"wait": True}]


async def test_an_error_aborts_what_waits_and_nothing_else(kernel: FrontEnd) -> None:
    """Cells queued behind a failing one are aborted; one that is sent afterwards runs."""
    failing = kernel.begin("import time; time.sleep(0.3); 1/0")
    queued = [kernel.begin(f"print({n})") for n in range(3)]
    assert (await kernel.end(failing)).status == "error"
    assert [(await kernel.end(cell)).status for cell in queued] == ["aborted"] * 3
    assert (await kernel.run("'again'")).result == "'again'"


async def test_without_stop_on_error_the_queue_goes_on(kernel: FrontEnd) -> None:
    """`stop_on_error` False lets the cells that wait run."""
    failing = kernel.begin("import time; time.sleep(0.3); 1/0", stop_on_error=False)
    queued = kernel.begin("'still'")
    assert (await kernel.end(failing)).status == "error"
    assert (await kernel.end(queued)).result == "'still'"


async def test_cells_run_in_the_order_in_which_they_were_sent(kernel: FrontEnd) -> None:
    """Thirty cells at once run one after the other."""
    await kernel.run("order = []")
    cells = [kernel.begin(f"order.append({n})") for n in range(30)]
    for cell in cells:
        assert (await kernel.end(cell)).status == "ok"
    assert (await kernel.run("order == list(range(30))")).result == "True"


async def test_late_output_goes_to_the_cell_that_caused_it(kernel: FrontEnd) -> None:
    """A thread that prints after its cell has ended prints below that cell."""
    cell = kernel.begin(
        "import threading, time\n"
        "go = threading.Event()\n"
        "def speak():\n    go.wait(20); print('late')\n"
        "thread = threading.Thread(target=speak); thread.start()"
    )
    await kernel.end(cell)
    await kernel.run("go.set(); thread.join()")
    await kernel.printed(cell, "late")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"code": None},
        {"code": 17},
        {"code": "1", "silent": "yes"},
        {"code": "1", "user_expressions": ["x"]},
    ],
)
async def test_a_malformed_request_is_answered(kernel: FrontEnd, content: dict[str, object]) -> None:
    """A request that lacks a field or has one of a wrong type gets a reply that names it."""
    answer = await kernel.ask("execute_request", content)
    assert (answer["status"], answer["ename"]) == ("error", "BadRequestError")
    assert (await kernel.run("1")).status == "ok"


async def test_a_request_of_unknown_type_harms_nothing(kernel: FrontEnd) -> None:
    """A message type from the future is left alone."""
    kernel.send("teleport_request", {})
    assert (await kernel.run("1")).status == "ok"


async def test_a_request_for_a_subshell_is_refused(kernel: FrontEnd) -> None:
    """There are no subshells, and whoever asks for one is told."""
    assert (await kernel.ask("create_subshell_request", {}, channel="control"))["status"] == "error"
    assert (await kernel.ask("debug_request", {"command": "initialize"}, channel="control"))[
        "status"
    ] == "error"
