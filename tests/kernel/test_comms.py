"""Comm messages both ways, and ipywidgets on top of them."""

from __future__ import annotations

import pytest

from tests.kernel.frontend import FrontEnd

ECHO = """
import comm
def opened(c, msg):
    @c.on_msg
    def received(msg):
        c.send({'echo': msg['content']['data']}, buffers=[bytes(b)[::-1] for b in msg['buffers']])
    c.send({'hello': msg['content']['data']})
comm.get_comm_manager().register_target('echo', opened)
"""


async def test_a_front_end_opens_talks_and_closes(kernel: FrontEnd) -> None:
    """Messages and buffers reach the sandbox and come back below the message that caused them."""
    await kernel.run(ECHO)
    opening = await _send(kernel, "comm_open", {"comm_id": "one", "target_name": "echo", "data": {"n": 1}})
    assert [m["content"]["data"] for m in opening if m["msg_type"] == "comm_msg"] == [{"hello": {"n": 1}}]
    assert (await kernel.ask("comm_info_request", {}))["comms"] == {"one": {"target_name": "echo"}}
    assert (await kernel.ask("comm_info_request", {"target_name": "other"}))["comms"] == {}
    answer = await _send(kernel, "comm_msg", {"comm_id": "one", "data": {"n": 2}}, buffers=[b"abc", b""])
    (message,) = (m for m in answer if m["msg_type"] == "comm_msg")
    assert message["content"] == {"comm_id": "one", "data": {"echo": {"n": 2}}}
    assert [bytes(buffer) for buffer in message["buffers"]] == [b"cba", b""]
    await _send(kernel, "comm_close", {"comm_id": "one", "data": {}})
    assert (await kernel.ask("comm_info_request", {}))["comms"] == {}


async def test_an_unknown_target_is_closed(kernel: FrontEnd) -> None:
    """A comm that nobody in the sandbox knows is closed again."""
    caused = await _send(kernel, "comm_open", {"comm_id": "two", "target_name": "nobody", "data": {}})
    assert [m["content"]["comm_id"] for m in caused if m["msg_type"] == "comm_close"] == ["two"]


async def test_comm_messages_arrive_while_a_cell_awaits(kernel: FrontEnd) -> None:
    """A cell can await what a widget sends."""
    cell = kernel.begin(
        "import asyncio, comm\n"
        "answer = asyncio.get_running_loop().create_future()\n"
        "c = comm.create_comm(target_name='t')\n"
        "c.on_msg(lambda msg: answer.set_result(msg['content']['data']))\n"
        "await asyncio.wait_for(answer, 20)"
    )
    opened = await kernel.until(
        lambda m: m["msg_type"] == "comm_open" and m["parent_header"]["msg_id"] == cell
    )
    kernel.send("comm_msg", {"comm_id": opened["content"]["comm_id"], "data": {"value": 7}})
    assert (await kernel.end(cell)).result == "{'value': 7}"


async def test_comm_messages_are_handled_in_order_and_before_the_next_cell(kernel: FrontEnd) -> None:
    """Twenty moves of a slider are seen in order, all of them by the cell that is run right after."""
    await kernel.run(
        "import comm\nseen = []\n"
        "comm.get_comm_manager().register_target("
        "'list', lambda c, m: c.on_msg(lambda m: seen.append(m['content']['data']['n'])))"
    )
    kernel.send("comm_open", {"comm_id": "three", "target_name": "list", "data": {}})
    for n in range(20):
        kernel.send("comm_msg", {"comm_id": "three", "data": {"n": n}})
    assert (await kernel.run("seen == list(range(20))")).result == "True"


async def test_a_callback_s_error_does_no_harm(kernel: FrontEnd) -> None:
    """A callback that raises shows its traceback; the kernel goes on."""
    await kernel.run(
        "import comm\ndef fail(c, msg): raise RuntimeError('in the callback')\n"
        "comm.get_comm_manager().register_target('fails', fail)"
    )
    await _send(kernel, "comm_open", {"comm_id": "four", "target_name": "fails", "data": {}})
    assert (await kernel.run("1 + 1")).result == "2"


async def test_ipywidgets_go_round(kernel: FrontEnd) -> None:
    """A slider is shown, moved by the front end, and its callback prints into an Output widget's comm."""
    if (await kernel.run("import ipywidgets")).status != "ok":
        pytest.skip("ipywidgets is not in this sandbox")
    cell = await kernel.run(
        "import ipywidgets as w\n"
        "slider = w.IntSlider(value=3)\n"
        "moves = []\n"
        "slider.observe(lambda change: moves.append(change['new']), 'value')\n"
        "picture = w.Image(value=bytes(range(256)), format='png')\n"
        "slider"
    )
    view = cell.of_type("display_data") or cell.of_type("execute_result")
    model = view[0]["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
    opened = [m for m in cell.outputs if m["msg_type"] == "comm_open"]
    assert model in [m["content"]["comm_id"] for m in opened]
    buffers = [bytes(buffer) for m in opened for buffer in m["buffers"]]
    assert bytes(range(256)) in buffers
    echoed = await _send(
        kernel,
        "comm_msg",
        {"comm_id": model, "data": {"method": "update", "state": {"value": 8}, "buffer_paths": []}},
    )
    assert "comm_msg" in [m["msg_type"] for m in echoed]
    assert (await kernel.run("slider.value, moves")).result == "(8, [8])"


async def _send(
    kernel: FrontEnd, msg_type: str, content: dict[str, object], buffers: list[bytes] | None = None
) -> list[dict[str, object]]:
    """Send a comm message and return what it caused, once the kernel is idle with it."""
    request = kernel.send(msg_type, content, buffers=buffers)
    await kernel.until(
        lambda m: (
            m["msg_type"] == "status"
            and m["content"]["execution_state"] == "idle"
            and m["parent_header"]["msg_id"] == request
        )
    )
    return [m for m in kernel.messages if m["channel"] == "iopub" and m["parent_header"]["msg_id"] == request]
