"""Every `%sandbox` command, in the AgentCube kernel and in ipykernel."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.errors import SessionNotFoundError
from agentcube_kernel.magics.dispatch import CELL, COMMANDS
from agentcube_kernel.sessions.ledger import Ledger
from tests.magics.conftest import OpenNotebook
from tests.magics.notebooks import KINDS, Notebook, shown

pytestmark = [pytest.mark.usefixtures("configured", "needs_sessions"), pytest.mark.timeout(120)]


@pytest.fixture
async def user(shared: Notebook) -> AsyncIterator[Notebook]:
    """A notebook with the sandboxes `a` and `b`, of which `b` is the current one."""
    await shared.cell("%sandbox new a\n")
    await shared.cell("%sandbox new b")
    yield shared
    await shared.cell("%sandbox stop --all")


async def is_there(session_id: str) -> bool:
    client = AsyncCodeInterpreterClient(session_id=session_id)
    await client.open()
    try:
        await client.health()
    except SessionNotFoundError:
        return False
    finally:
        await client.close()
    return True


async def test_each_has_variables_of_its_own(user: Notebook) -> None:
    """A cell runs in the sandbox that it names, and only there."""
    await user.cell("%%sandbox a\nx = 1")
    await user.cell("%%sandbox b\nx = 2")
    assert shown(await user.cell("%%sandbox a\nx")) == "1"
    assert shown(await user.cell("%%sandbox\nx")) == "2"
    await user.says("use a")
    assert shown(await user.cell("%%sandbox\nx")) == "1"


async def test_several_at_once_say_whose_output_it_is(user: Notebook) -> None:
    """Every line of output names its sandbox, and so do the last values."""
    outcome = await user.cell("%%sandbox a b --out found\nprint('one\\ntwo', end='')\n6 * 7")
    text = shown(outcome)
    for name in ("a", "b"):
        assert f"[{name}] one\n" in text
        assert f"[{name}] two\n" in text
    assert shown(await user.cell("found")) == "{'a': 42, 'b': 42}"


async def test_out_brings_the_last_value(user: Notebook) -> None:
    """`--out` sets a variable of the notebook; a cell without a last value gives None."""
    await user.cell("%%sandbox a --out value\n{'k': (1, 2)}")
    assert shown(await user.cell("value")) == "{'k': (1, 2)}"
    await user.cell("%%sandbox a --out value\ny = 3")
    assert shown(await user.cell("print(value)")) == "None\n"


async def test_an_error_is_the_error_of_the_sandbox(user: Notebook) -> None:
    """Name, message and traceback are the sandbox's own; of several the failing one is named."""
    outcome = await user.run("%%sandbox a\n1 / 0")
    assert (outcome.content["ename"], outcome.content["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert "1 / 0" in "".join(outcome.of_type("error")[0]["traceback"]).replace("\x1b[39;49m", "").replace(
        "\x1b[30;43m", ""
    )
    await user.cell("%%sandbox a\nok = True")
    both = await user.run("%%sandbox a b\nok")
    assert both.content["ename"] == "NameError"
    assert "failed in 1 of 2 sandboxes: b" in "\n".join(both.of_type("error")[0]["traceback"])


async def test_a_script_fails_by_its_exit_code(user: Notebook) -> None:
    """`--bash` streams what a script prints; an exit code that is not 0 is an error."""
    assert shown(await user.cell("%%sandbox a --bash\nfor n in 1 2; do echo $n; done")) == "1\n2\n"
    assert "the script ended with exit code 3" in await user.fails("%%sandbox a --bash\nexit 3")


async def test_a_timeout_interrupts(user: Notebook) -> None:
    """A cell that takes too long is interrupted; its variables stay."""
    code = "%%sandbox a --timeout 1s\nimport time\nz = 5\ntime.sleep(60)"
    assert "CellTimeoutError: The cell did not end within 1 s and was interrupted" in await user.fails(code)
    assert shown(await user.cell("%%sandbox a\nz")) == "5"


async def test_a_cell_can_ask(user: Notebook) -> None:
    """input() of a sandbox asks the user of the notebook."""
    request = user.begin("%%sandbox a\nprint('hello', input('who? '))", allow_stdin=True)
    assert (await user.asked(request))["prompt"] == "who? "
    user.answer("you")
    assert "hello you" in shown(await user.end(request))


async def test_ctrl_c_interrupts_a_cell_in_several(user: Notebook) -> None:
    """An interrupt stops the cell in every sandbox, and all go on."""
    code = "%%sandbox a b\nimport time\nprint('on', flush=True)\nw = 1\ntime.sleep(60)"
    request = user.begin(code)
    await user.printed(request, "[a] on")
    await user.printed(request, "[b] on")
    await user.interrupt()
    outcome = await user.end(request)
    assert outcome.content["ename"] == "KeyboardInterrupt"
    assert shown(await user.cell("%%sandbox a b\nprint(w)")).count("1") == 2


async def test_push_and_pull(user: Notebook) -> None:
    """Plain data and arrays go to several sandboxes and come back, under other names too."""
    await user.cell("import numpy as np\narray = np.arange(4.0)\nplain = {'t': (1, 2), 3: {4}}")
    await user.says("push array plain:renamed --to a --to b")
    await user.cell("%%sandbox a\nassert (array == [0, 1, 2, 3]).all()\ndouble = array * 2")
    assert shown(await user.cell("%%sandbox a\nrenamed")) == "{'t': (1, 2), 3: {4}}"
    await user.says("pull double:twice --from a")
    assert shown(await user.cell("twice")) == "array([0., 2., 4., 6.])"


async def test_nothing_is_sent_when_something_cannot_be(user: Notebook) -> None:
    """The variable and the reason are named; what could have been sent is not sent either."""
    await user.cell("good = 1\nbad = [lambda: None]")
    error = await user.fails("%sandbox push good bad --to a")
    assert "bad: a function cannot be sent without pickle" in error
    assert "NameError" in await user.fails("%%sandbox a\ngood")
    assert "There is no variable 'goo' in" in await user.fails("%sandbox push goo --to a")
    assert "Did you mean 'good'?" in await user.fails("%sandbox push goo --to a")
    assert "There is no variable 'nope' in sandbox a" in await user.fails("%sandbox pull nope --from a")


async def test_pickle_only_when_asked(user: Notebook) -> None:
    """`--pickle` carries what has no safe format."""
    await user.cell("%%sandbox a\nimport array\nodd = array.array('i', [1, 2])")
    assert "cannot be sent without pickle" in await user.fails("%sandbox pull odd --from a")
    text = await user.says("pull odd --from a --pickle")
    assert "As pickle: odd" in text
    if user.kind == "ipykernel":
        assert "Warning: --pickle" in text
    assert shown(await user.cell("odd")) == "array('i', [1, 2])"


async def test_files_go_there_and_back(user: Notebook, tmp_path: Path) -> None:
    """Files and folders with odd names, globs, and what is there already."""
    folder = tmp_path / "in put"
    (folder / "sub").mkdir(parents=True)
    (folder / "ä #1?.txt").write_text("one")
    (folder / "sub" / "two.txt").write_text("two")
    await user.says(f"put '{folder}' up/ --in a")
    assert "ä #1?.txt" in await user.says("ls 'up/in put' --in a")
    out = tmp_path / "out"
    await user.says(f"get 'up/in put' --to {out}/ --in a")
    assert (out / "in put" / "sub" / "two.txt").read_text() == "two"
    await user.says(f"get 'up/in put/*.txt' {out}/ --in a")
    assert (out / "ä #1?.txt").read_text() == "one"
    error = await user.fails(f"%sandbox get 'up/in put/*.txt' {out}/ --in a")
    assert "is on this machine already" in error
    assert "--force" in error
    await user.says(f"get 'up/in put/*.txt' {out}/ --in a --force")
    assert "There is no 'nowhere' in the sandbox" in await user.fails("%sandbox get nowhere --in a")
    assert "OutsideWorkspaceError" in await user.fails("%sandbox get ../../etc/passwd --in a")
    assert "There is no file or folder '/no/such'" in await user.fails("%sandbox put /no/such")


async def test_restart_keeps_files_and_drops_variables(user: Notebook) -> None:
    """A restart is a fresh interpreter in the same session."""
    before = await user.session_id("a")
    await user.cell("%%sandbox a\nx = 1\nopen('kept', 'w').close()")
    await user.says("restart a")
    assert await user.session_id("a") == before
    assert shown(await user.cell("%%sandbox a\nimport os\n'x' in globals(), os.path.exists('kept')")) == (
        "(False, True)"
    )


async def test_interrupt_names_the_sandbox(user: Notebook) -> None:
    """`interrupt` reaches a sandbox in which nothing runs, too, and leaves it as it was."""
    assert "Interrupted a" in await user.says("interrupt a")
    assert shown(await user.cell("%%sandbox a\n1")) == "1"


async def test_detach_and_attach_find_the_same_sandbox(user: Notebook) -> None:
    """A detached sandbox lives on, and is found by name and by id, with its variables."""
    await user.cell("%%sandbox a\nx = 'still here'")
    session_id = await user.session_id("a")
    await user.says("detach a")
    assert await is_there(session_id)
    assert "There is no sandbox 'a'" in await user.fails("%sandbox use a")
    await user.says("attach a --as again")
    assert shown(await user.cell("%%sandbox again\nx")) == "'still here'"
    assert "is attached already, as 'again'" in await user.fails(f"%sandbox attach {session_id} --as more")
    assert "again (current)" in await user.says(f"attach {session_id}")
    await user.says("stop again")
    assert not await is_there(session_id)


async def test_what_others_made_is_not_deleted(user: Notebook) -> None:
    """A session of another client can be used, is left alone at the end, and deleted only with --force."""
    async with AsyncCodeInterpreterClient() as other:
        assert other.session_id is not None
        await other.write_file("from outside", "note.txt")
        await user.says(f"attach {other.session_id} --as theirs")
        assert "note.txt" in await user.says("ls")
        assert shown(await user.cell("%%sandbox theirs\nopen('note.txt').read()")) == "'from outside'"
        assert "attached" in await user.says("info theirs")
        error = await user.fails("%sandbox stop theirs")
        assert "made by somebody else" in error
        assert "--force" in error
        await user.says("detach theirs")
        assert await is_there(other.session_id)
        await user.says(f"attach {other.session_id} --as theirs")
        await user.says("stop theirs --force")
        assert not await is_there(other.session_id)


async def test_names_are_checked(user: Notebook) -> None:
    """Unknown, taken and impossible names, and unknown commands and ids, say what to do."""
    assert "Did you mean 'restart'?" in await user.fails("%sandbox restrat")
    assert "There is no sandbox 'nobody'" in await user.fails("%sandbox use nobody")
    assert "There is a sandbox 'a' already" in await user.fails("%sandbox new a")
    assert "cannot be a name" in await user.fails("%sandbox new 'not a name'")
    assert "cannot be a name" in await user.fails("%sandbox new -- -x")
    unknown = await user.fails("%sandbox attach 00000000-0000-0000-0000-000000000000")
    assert "SessionNotFoundError" in unknown
    assert "b (current)" in await user.says("")


async def test_lines_that_cannot_be_done_say_why(user: Notebook) -> None:
    """Empty cells, bad options and open quotes are errors of their own, and nothing is run."""
    assert "is empty; nothing was run" in await user.fails("%%sandbox a\n  \n")
    assert "with one %" in await user.fails("%%sandbox new c\nx = 1")
    assert "length of time" in await user.fails("%%sandbox a --timeout soon\n1")
    assert "The line cannot be read" in await user.fails("%sandbox put 'open")
    assert "give a name or --all" in await user.fails("%sandbox stop a --all")
    assert "ConfigurationError" in await user.fails("%sandbox new c --interpreter a/b")
    assert " c " not in await user.says("list")


async def test_what_is_told(user: Notebook) -> None:
    """list, info, stats, config, trust and help answer with text and html."""
    await user.cell("%%sandbox a\n1")
    listing = await user.cell("%sandbox list")
    data = (listing.of_type("display_data") + listing.of_type("execute_result"))[0]["data"]
    assert "user-select:all" in data["text/html"]
    assert "may end in" in await user.says("")
    assert "memory of the interpreter" in await user.says("stats a")
    config = await user.says("config")
    assert "AGENTCUBE_TOKEN" in config
    assert "20 s" in config
    assert "Copy files and folders of this machine" in await user.says("help put")
    for command in ("new", "attach", "detach", "push", "%%sandbox"):
        assert command in await user.says("help")
    assert "is not trusted" in await user.says("trust off --in a")
    html = "from IPython.display import HTML\nHTML('<b onclick=\"x()\">bold</b><script>x()</script>')"
    cleaned = await user.cell(f"%%sandbox a\n{html}")
    assert cleaned.of_type("display_data")[0]["data"]["text/html"] == "<b>bold</b>"
    await user.says("trust on --in a")
    assert (
        "<script>"
        in (await user.cell(f"%%sandbox a\n{html}")).of_type("display_data")[0]["data"]["text/html"]
    )


async def test_tab_completes(user: Notebook, tmp_path: Path) -> None:
    """Tab knows commands, options, names, files on both sides, and variables."""
    (tmp_path / "local.txt").write_text("")
    await user.cell("%%sandbox b\nopen('remote.txt', 'w').close()\nremote_value = 1")
    await user.cell("notebook_value = 1")
    assert await user.completions("%sandbox de") == ["detach"]
    assert await user.completions("%sandbox new --inter") == ["--interpreter"]
    assert {"a", "b"} <= set(await user.completions("%sandbox use "))
    assert {"a", "b"} <= set(await user.completions("%%sandbox "))
    assert await user.completions(f"%sandbox put {tmp_path}/lo") == [f"{tmp_path}/local.txt"]
    assert await user.completions("%sandbox get rem") == ["remote.txt"]
    assert await user.completions("%sandbox pull remote_v") == ["remote_value"]
    assert await user.completions("%sandbox push notebook_v") == ["notebook_value"]


async def test_an_owned_session_is_in_the_ledger_before_its_first_cell(user: Notebook) -> None:
    """The ledger knows name, owner and place as soon as the sandbox is made."""
    session_id = await user.session_id("a")
    record = Ledger().session(session_id)
    assert record is not None
    assert (record.name, record.keep, record.owner.pid) == ("a", False, user.pid)


async def test_keep_alive_holds_a_session(user: Notebook) -> None:
    """How long a session is held is shown, and a time that is none is refused."""
    assert "kept alive for 2 h" in await user.says("use a --keep-alive 2h")
    assert "length of time" in await user.fails("%sandbox use a --keep-alive forever")


@pytest.mark.parametrize("kind", KINDS)
async def test_two_notebooks_share_a_session(open_notebook: OpenNotebook, kind: str) -> None:
    """Attached to one session, notebooks share variables; each sees its own cells, and is told when it waits."""
    first = await open_notebook(kind)
    await first.says("new shared")
    session_id = await first.session_id()
    second = await open_notebook(kind)
    await second.says(f"attach {session_id} --as shared")
    await first.cell("%%sandbox shared\nx = 'from the first'")
    assert shown(await second.cell("%%sandbox shared\nx")) == "'from the first'"

    code = "%%sandbox shared\nimport time\nprint('first on', flush=True)\ntime.sleep(4)\nprint('first off')"
    long = first.begin(code)
    await first.printed(long, "first on")
    waiting = await second.cell("%%sandbox shared\nprint('second')")
    assert "is running something else" in waiting.text("stderr")
    assert waiting.text() == "second\n"
    assert (await first.end(long)).text() == "first on\nfirst off\n"
    await second.says("detach")
    await first.says("stop shared")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_kept_session_is_offered_again(
    open_notebook: OpenNotebook, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A session made with --keep survives its kernel and is offered when the same notebook is opened."""
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "analysis.ipynb"))
    first = await open_notebook(kind)
    await first.says("new data --keep")
    session_id = await first.session_id()
    await first.cell("%%sandbox data\nx = 1")
    await first.disconnect()
    await first.manager.shutdown_kernel()
    second = await open_notebook(kind)
    if kind == "agentcube":
        assert "%sandbox attach data" in (await second.cell("1")).text("stderr")
    else:
        loaded = [m["content"]["text"] for m in second.messages if m["msg_type"] == "stream"]
        assert any("%sandbox attach data" in text for text in loaded)
    assert "`%sandbox attach data`" in await second.says("list")
    await second.says("attach data")
    assert await second.session_id() == session_id
    assert shown(await second.cell("%%sandbox\nx")) == "1"
    await second.says("stop data")
    assert not await is_there(session_id)


async def test_plain_cells_say_for_whom_they_wait(open_notebook: OpenNotebook) -> None:
    """In the kernel a plain cell is told of a cell of another notebook that runs first, and not of its own."""
    first, second = await open_notebook("agentcube"), await open_notebook("ipykernel")
    session_id = await first.session_id()
    await second.says(f"attach {session_id} --as theirs")
    long = second.begin("%%sandbox\nimport time\nprint('on', flush=True)\ntime.sleep(4)")
    await second.printed(long, "on")
    waiting = await first.cell("print('mine')")
    assert "is running something else" in waiting.text("stderr")
    assert waiting.text() == "mine\n"
    await second.end(long)
    own = await first.cell("import time\ntime.sleep(3)")
    assert own.text("stderr") == ""


async def test_an_expired_session_says_what_was_lost(user: Notebook) -> None:
    """The next cell fails and says that variables and files are gone; the one after it runs in a new session."""
    session_id = await user.session_id("a")
    client = AsyncCodeInterpreterClient(session_id=session_id)
    await client.open()
    await client.stop(force=True)
    error = await user.fails("%%sandbox a\n1")
    assert "SessionNotFoundError" in error
    assert session_id in error
    assert shown(await user.cell("%%sandbox a\n'new'")) == "'new'"
    assert await user.session_id("a") != session_id


async def test_in_loops_and_functions(user: Notebook) -> None:
    """In IPython the magics are code like any other; in the kernel a line out of place is refused, unrun."""
    loop = "done = 0\nfor n in range(2):\n    %sandbox use a\n    done += 1"
    if user.kind == "ipykernel":
        await user.cell(loop)
        assert shown(await user.cell("done")) == "2"
    else:
        assert "put them at the top of the cell" in await user.fails(loop)
        assert "NameError" in await user.fails("done")
        assert (await user.run("text = '''\n%sandbox list'''\nlen(text)")).result == "14"


async def test_lines_at_the_top_run_before_the_cell(user: Notebook) -> None:
    """Comments and several lines may stand there; the rest runs where plain cells run then."""
    if user.kind != "agentcube":
        pytest.skip("in IPython plain cells run here")
    await user.cell("%%sandbox a\nx = 'in a'")
    await user.cell("%%sandbox b\nx = 'in b'")
    assert (await user.run("# first\n%sandbox use a\n\n%sandbox info\nx")).result == "'in a'"
    assert "Show all commands" in shown(await user.cell("%sandbox?"))


def test_the_page_on_the_magics_names_every_command_and_option() -> None:
    """docs/sandbox-magics.md has each command, and no option that there is not."""
    page = (Path(__file__).parents[2] / "docs" / "sandbox-magics.md").read_text()
    ours = page.split("## Coming from")[0]
    for name in COMMANDS:
        assert re.search(rf"`[^`]*\b{name}\b", ours), name
    known = {option for command in (*COMMANDS.values(), CELL) for option in command.options}
    assert set(re.findall(r"--[a-z][a-z-]*", ours)) <= known
