"""What a cell can do in the guest's IPython."""

from __future__ import annotations

import base64
import re

import pytest

from agentcube_kernel.channel.trust import Trust
from agentcube_kernel.sandbox import AsyncSandbox
from tests.sandboxes import Running, types


async def test_variables_persist(sandbox: AsyncSandbox) -> None:
    """A later cell sees what an earlier one has defined."""
    assert (await sandbox.run_cell("a = 20")).ok
    assert (await sandbox.run_cell("a + 1")).text == "21"


async def test_counts_agree_with_in_and_out(sandbox: AsyncSandbox) -> None:
    """The execution count is the index of In and Out; what is not stored does not count."""
    result = await sandbox.run_cell("'marked'")
    count = result.execution_count
    assert sandbox.execution_count == count
    assert (await sandbox.run_cell(f"Out[{count}], In[{count}]")).text == "('marked', \"'marked'\")"
    unstored = await sandbox.run_cell("1", store_history=False)
    assert unstored.execution_count == count + 1
    assert (await sandbox.run_cell("2")).execution_count == count + 2


async def test_a_silent_cell_shows_nothing_of_itself(sandbox: AsyncSandbox) -> None:
    """Silent: no input, no result, no count; but user expressions."""
    before = sandbox.execution_count
    result = await sandbox.run_cell("b = 5; b", silent=True, user_expressions={"x": "b + 1"})
    assert [event.type for event in result.events] == ["execute_reply"]
    assert result.user_expressions["x"]["data"]["text/plain"] == "6"
    assert (await sandbox.run_cell("b")).execution_count == before + 1


async def test_a_failing_user_expression_is_an_error_of_its_own(sandbox: AsyncSandbox) -> None:
    """The cell is ok; the expression is not."""
    result = await sandbox.run_cell("1", user_expressions={"x": "1/0"})
    assert result.ok
    assert result.user_expressions["x"]["ename"] == "ZeroDivisionError"


async def test_an_error_carries_the_sandboxs_traceback(sandbox: AsyncSandbox) -> None:
    """Name, value and IPython's traceback, as an event and in the reply."""
    result = await sandbox.run_cell("def f():\n    raise ValueError('bad')\nf()")
    assert types(result) == ["error"]
    assert (result.ename, result.evalue) == ("ValueError", "bad")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(result.traceback))
    assert "raise ValueError('bad')" in plain
    assert ".agentcube-kernel" not in plain


@pytest.mark.parametrize("code", ["1 +", "  x = 1\n y", "def f(:", "%nosuchmagic", "for"])
async def test_code_that_does_not_compile_is_an_error(sandbox: AsyncSandbox, code: str) -> None:
    """Syntax errors and unknown magics end the cell, not the interpreter."""
    result = await sandbox.run_cell(code)
    assert not result.ok or "not found" in result.stderr
    assert (await sandbox.run_cell("1")).ok


async def test_an_exception_that_cannot_be_shown_is_still_an_error(sandbox: AsyncSandbox) -> None:
    """A broken __str__ does not break the cell's end."""
    code = "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E"
    result = await sandbox.run_cell(code)
    assert not result.ok
    assert (await sandbox.run_cell("1")).ok


async def test_top_level_await_and_tasks_between_cells(sandbox: AsyncSandbox) -> None:
    """The loop keeps running: a task of one cell goes on while the next one awaits."""
    await sandbox.run_cell(
        "import asyncio\nasync def tick(n):\n    await asyncio.sleep(0.01)\n    return n * 2"
    )
    await sandbox.run_cell("t = asyncio.create_task(tick(4))")
    assert (await sandbox.run_cell("await t")).text == "8"
    assert (await sandbox.run_cell("sum([await tick(i) for i in range(3)])")).text == "6"


@pytest.mark.parametrize("package", ["nest_asyncio", "nest_asyncio2"])
async def test_a_patched_loop_still_runs_cells(sandbox: AsyncSandbox, package: str) -> None:
    """What notebooks apply to call run_until_complete works, and cells go on working after it."""
    if not (await sandbox.run_cell(f"import {package}; {package}.apply()")).ok:
        pytest.skip(f"{package} is not in this sandbox")
    code = "async def f():\n    await asyncio.sleep(0.01)\n    return 7\n"
    code += "asyncio.get_event_loop().run_until_complete(f())"
    assert (await sandbox.run_cell("import asyncio\n" + code)).text == "7"
    assert (await sandbox.run_cell("await f()")).text == "7"
    await sandbox.restart()


async def test_rich_results(sandbox: AsyncSandbox) -> None:
    """Mime bundles of results and displays arrive with bytes as base64."""
    await sandbox.run_cell(
        "class R:\n    def _repr_html_(self): return '<b>x</b>'\n    def _repr_png_(self): return b'\\x89PNG'"
    )
    data = (await sandbox.run_cell("R()")).result
    assert data is not None
    assert data["text/html"] == "<b>x</b>"
    assert base64.b64decode(data["image/png"]) == b"\x89PNG"


async def test_displays_update_and_clear(sandbox: AsyncSandbox) -> None:
    """display, update and clear_output are their own events, in order with the text around them."""
    result = await sandbox.run_cell(
        "from IPython.display import clear_output, display\nprint('a')\nh = display('x', display_id='d')\n"
        "print('b')\nh.update('y')\nclear_output(wait=True)\nprint('c')"
    )
    assert types(result) == [
        "stream",
        "display_data",
        "stream",
        "update_display_data",
        "clear_output",
        "stream",
    ]
    shown = [event for event in result.events if event.type == "display_data"]
    assert shown[0].content["transient"] == {"display_id": "d"}


async def test_odd_values_are_displayed(sandbox: AsyncSandbox) -> None:
    """A mime bundle with values that JSON does not know arrives all the same."""
    result = await sandbox.run_cell(
        "from IPython.display import publish_display_data as p\np({'application/json': {1: float('nan'), 'b': {2}}})"
    )
    assert types(result) == ["display_data"]


async def test_pager_and_next_input_are_payloads(sandbox: AsyncSandbox) -> None:
    """`?` and set_next_input are told in the reply."""
    reply = (await sandbox.run_cell("print?")).events[-1].content
    assert [item["source"] for item in reply["payload"]] == ["page"]
    assert "text/plain" in reply["payload"][0]["data"]
    reply = (await sandbox.run_cell("get_ipython().set_next_input('x = 1')")).events[-1].content
    assert reply["payload"] == [{"source": "set_next_input", "text": "x = 1", "replace": False}]


async def test_shell_commands_show_how_they_ended(sandbox: AsyncSandbox) -> None:
    """!cmd keeps _exit_code and shows a failure; %%bash raises; $ expands."""
    result = await sandbox.run_cell("word = 'hi'\n!echo $word; exit 3")
    assert result.ok
    assert result.stdout.split() == ["hi"]
    assert "exit code 3" in result.stderr
    assert (await sandbox.run_cell("_exit_code")).text == "3"
    assert (await sandbox.run_cell("%%bash\necho out\nexit 4")).ename == "CalledProcessError"
    assert (await sandbox.run_cell("x = !echo one\nx")).text == "['one']"


async def test_sys_exit_is_an_error_and_no_end(sandbox: AsyncSandbox) -> None:
    """The interpreter goes on, as IPython's does."""
    await sandbox.run_cell("kept = 1")
    assert (await sandbox.run_cell("import sys; sys.exit(2)")).ename == "SystemExit"
    assert (await sandbox.run_cell("kept")).text == "1"


async def test_exit_asks_the_front_end(sandbox: AsyncSandbox) -> None:
    """exit() is a payload; whether something ends is the front end's choice."""
    reply = (await sandbox.run_cell("exit")).events[-1].content
    assert reply["payload"][0]["source"] == "ask_exit"
    assert (await sandbox.run_cell("1")).ok


async def test_a_fork_in_a_cell_stays_one_interpreter(sandbox: AsyncSandbox) -> None:
    """The child that comes back from the cell ends; the parent is the interpreter."""
    result = await sandbox.run_cell(
        "import os\npid = os.fork()\nprint('child' if pid == 0 else 'parent')\nif pid: os.waitpid(pid, 0)"
    )
    assert result.ok
    assert "child" in result.stdout
    assert "parent" in result.stdout
    assert (await sandbox.run_cell("1 + 1")).text == "2"


async def test_multiprocessing_works(sandbox: AsyncSandbox) -> None:
    """Functions of cells can be run in forked processes, and what those print is seen."""
    result = await sandbox.run_cell(
        "import multiprocessing as m\ndef f(n):\n    print('in child', flush=True)\n    return n * n\n"
        "with m.get_context('fork').Pool(1) as pool:\n    r = pool.map(f, [3])\nr"
    )
    assert result.text == "[9]"
    assert "in child" in result.stdout


async def test_what_cells_define_can_be_pickled(sandbox: AsyncSandbox) -> None:
    """The namespace of the cells is the module __main__."""
    code = "import pickle\nclass P:\n    pass\npickle.loads(pickle.dumps(P())).__class__ is P"
    assert (await sandbox.run_cell(code)).text == "True"


async def test_input_asks_and_gets(sandbox: AsyncSandbox) -> None:
    """input() and getpass() put questions; an answer, or an end of file, comes back."""
    cell = Running(
        sandbox, "import getpass\n(input('name? '), getpass.getpass('pw '))", cell_id="q", allow_stdin=True
    )
    assert (await cell.until("input_request", "name?")).content == {"prompt": "name? ", "password": False}
    await cell.answer("Ann")
    await cell.until("input_request", "pw")
    await cell.answer("secret")
    await cell.end()
    assert (await cell.until("execute_result")).content["data"]["text/plain"] == "('Ann', 'secret')"
    cell = Running(sandbox, "input()", cell_id="r", allow_stdin=True)
    await cell.until("input_request")
    await cell.answer(None)
    assert (await cell.end())["ename"] == "EOFError"


async def test_input_without_anybody_to_ask_is_an_error(sandbox: AsyncSandbox) -> None:
    """With allow_stdin off nothing waits forever."""
    assert (await sandbox.run_cell("input()")).ename == "StdinNotImplementedError"


async def test_completion_and_inspection_also_while_a_cell_runs(sandbox: AsyncSandbox) -> None:
    """A busy cell does not keep the user from completing."""
    await sandbox.run_cell("some_long_name = 1\nimport threading\nhold = threading.Event()")
    cell = Running(sandbox, "print('go')\nwhile not hold.wait(0.001): pass")
    await cell.until("stream", "go")
    assert (await sandbox.complete("some_lo", 7))["matches"] == ["some_long_name"]
    assert (await sandbox.inspect("print", 3))["found"]
    assert not (await sandbox.inspect("no_such_name", 3))["found"]
    assert await sandbox.is_complete("for i in x:") == {"status": "incomplete", "indent": "    "}
    await sandbox.interrupt()
    await cell.end()


async def test_comms_both_ways_with_buffers(sandbox: AsyncSandbox) -> None:
    """A target in the sandbox gets a front end's messages and answers them; buffers survive."""
    await sandbox.run_cell(
        "import comm\ndef on_open(c, msg):\n    c.on_msg(lambda m: c.send({'got': m['content']['data']},"
        " buffers=[bytes(m['buffers'][0])[::-1]]))\ncomm.get_comm_manager().register_target('t', on_open)"
    )
    opened = [e async for e in sandbox.stream_comm("comm_open", _comm(target_name="t"), message_id="m1")]
    assert [event.type for event in opened] == ["comm_reply"]
    assert await sandbox.comm_info("t") == {"c1": {"target_name": "t"}}
    events = [
        event
        async for event in sandbox.stream_comm("comm_msg", _comm(7), message_id="m2", buffers=[b"\0\x01\xff"])
    ]
    assert [event.type for event in events] == ["comm_msg", "comm_reply"]
    assert events[0].content["data"] == {"got": 7}
    assert events[0].buffers == (b"\xff\x01\0",)
    assert events[0].cell_id == "m2"
    _ = [e async for e in sandbox.stream_comm("comm_close", _comm({}), message_id="m3")]
    assert await sandbox.comm_info() == {}


def _comm(data: object = None, **fields: object) -> dict[str, object]:
    return {"comm_id": "c1", "data": data if data is not None else {}, **fields}


async def test_usage_is_the_sandboxs(sandbox: AsyncSandbox) -> None:
    """Memory and processor of the interpreter, in the form of usage_reply."""
    usage = await sandbox.usage()
    assert usage["kernel_memory"] > 10_000_000
    assert {"hostname", "pid", "kernel_cpu", "cpu_count", "host_cpu_percent", "host_virtual_memory"} <= set(
        usage
    )


async def test_megabytes_of_code(sandbox: AsyncSandbox) -> None:
    """Code of any reasonable size runs: in the line, in an argument, in a file."""
    for size in (10, 10_000, 200_000, 5_000_000):
        assert (await sandbox.run_cell(f"len('{'x' * size}')")).text == str(size)


async def test_nothing_but_the_hidden_folder_is_left_in_the_workspace(sandbox: AsyncSandbox) -> None:
    """The user's workspace stays the user's; ours is for its owner alone."""
    code = "import os, stat\n[(n, oct(stat.S_IMODE(os.stat(n).st_mode))) for n in os.listdir() if 'agentcube' in n]"
    assert (await sandbox.run_cell(code)).text == "[('.agentcube-kernel', '0o700')]"


async def test_lone_surrogates_in_code_and_output(sandbox: AsyncSandbox) -> None:
    """What no encoding can carry is replaced, and nothing breaks."""
    assert (await sandbox.run_cell("print('\ud800')")).ok
    assert (await sandbox.run_cell("print('\\udfff')")).stdout in ("\ufffd\n", "?\n")


async def test_libraries_see_the_message_that_they_run_for(sandbox: AsyncSandbox) -> None:
    """Widgets that capture output ask the kernel object for its parent, which is the Jupyter message."""
    cell = Running(sandbox, "get_ipython().kernel.get_parent()['header']['msg_id']", cell_id="abc_1~xyz")
    await cell.end()
    assert (await cell.until("execute_result")).content["data"]["text/plain"] == "'abc_1'"


async def test_context_variables_persist(sandbox: AsyncSandbox) -> None:
    """What one cell sets in the context, the next one finds, also in what it awaits."""
    await sandbox.run_cell("import contextvars; v = contextvars.ContextVar('v', default=0); token = v.set(5)")
    assert (await sandbox.run_cell("v.get()")).text == "5"
    assert (await sandbox.run_cell("async def g(): return v.get()\nawait g()")).text == "5"


async def test_a_traceback_that_is_shown_on_purpose_is_no_failure(sandbox: AsyncSandbox) -> None:
    """A cell that catches its exception and shows it has ended well."""
    result = await sandbox.run_cell("try:\n    1 / 0\nexcept Exception:\n    get_ipython().showtraceback()")
    assert types(result) == ["error"]
    assert result.ok


async def test_a_value_that_cannot_be_shown_is_a_failure(sandbox: AsyncSandbox) -> None:
    """What goes wrong while a result is displayed makes the cell fail, as in IPython."""
    result = await sandbox.run_cell("class B:\n    def __repr__(self): raise ValueError('no')\nB()")
    assert result.ename == "ValueError"


async def test_an_untrusted_sandbox_answers_no_comm(sandbox: AsyncSandbox) -> None:
    """Where widgets are not let through, their answers to a front end's messages are not either."""
    await sandbox.run_cell(
        "import comm\nfrom IPython.display import HTML, display\ndef on_open(c, msg):\n    c.send({'x': 1})\n"
        "    display(HTML('<script>evil()</script>'))\ncomm.get_comm_manager().register_target('u', on_open)"
    )
    sandbox.trust = Trust.OFF
    try:
        opened = _comm(target_name="u")
        events = [event async for event in sandbox.stream_comm("comm_open", opened, message_id="u1")]
    finally:
        sandbox.trust = Trust.ON
    assert [event.type for event in events] == ["display_data", "comm_reply"]
    assert "script" not in str(events[0].content["data"].get("text/html", ""))
