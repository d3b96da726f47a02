"""What a hostile cell can do in the front end, by each of the ways that lead there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.conftest import StartKernel
from tests.kernel.frontend import FrontEnd

PAGE = (
    "get_ipython().payload_manager.write_payload("
    "{'source': 'page', 'start': 0, 'data': {'text/plain': 'x', 'text/html': '<script>evil()</script><b>x</b>'}})"
)
HTML = "class Evil:\n    def _repr_html_(self): return '<script>evil()</script><b>x</b>'"


async def test_no_cell_proposes_a_command_of_the_users_side(kernel: FrontEnd) -> None:
    """A cell cannot put one of our magics under the user's fingers, nor replace the cell that was run."""
    proposal = "{'source': 'set_next_input', 'text': %r, 'replace': True}"
    for text in ("%sandbox put ~/.ssh/id_ed25519", "x = 1\n%%sandbox\n1"):
        done = await kernel.run(f"get_ipython().payload_manager.write_payload({proposal % text})")
        assert done.content["payload"] == []
    done = await kernel.run(f"get_ipython().payload_manager.write_payload({proposal % 'x = 1'})")
    assert done.content["payload"] == [{"source": "set_next_input", "text": "x = 1", "replace": False}]


@pytest.mark.parametrize("trust", ["on", "off"])
async def test_every_way_to_the_front_end_meets_the_policy(start_kernel: StartKernel, trust: str) -> None:
    """Displays, results, page payloads, user expressions and inspection hold script only of a trusted sandbox."""
    user = await start_kernel()
    await user.run(HTML)
    await user.run(f"%sandbox trust {trust}")
    ways: dict[str, Any] = {
        "page": (await user.run(PAGE)).content["payload"],
        "expressions": (await user.run("1", user_expressions={"x": "Evil()"})).content["user_expressions"],
        "result": (await user.run("Evil()")).of_type("execute_result"),
        "display": (await user.run("display(Evil())")).of_type("display_data"),
        "background": (
            await user.run("import threading; threading.Thread(target=display, args=(Evil(),)).run()")
        ).of_type("display_data"),
    }
    for way, passed in ways.items():
        assert "<b>x</b>" in str(passed), way
        assert ("evil()" in str(passed)) == (trust == "on"), way


async def test_no_error_reaches_the_terminal_raw(kernel: FrontEnd) -> None:
    """Names and messages of errors, with and without a traceback, hold no sequence that does things to a terminal."""
    code = (
        "class E(Exception):\n    pass\nE.__name__ = E.__qualname__ = 'E\\x1b]52;c;ZXZpbA==\\x07'\n"
        "def bare(*args, **kwargs): pass\n"
        "raise E('\\x1b]52;c;ZXZpbA==\\x07')"
    )
    done = await kernel.run(code)
    assert done.status == "error"
    assert "\x1b]" not in str(done.outputs) + str(done.reply["content"])
    assert "52;c;ZXZpbA==" in done.content["evalue"]
    assert "\x1b]" not in "".join(done.content["traceback"])
