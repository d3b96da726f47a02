"""input() and getpass()."""

from __future__ import annotations

from tests.kernel.frontend import FrontEnd


async def test_input_asks_the_user(kernel: FrontEnd) -> None:
    """The prompt goes to the front end and the line comes back into the cell."""
    cell = kernel.begin("print('hello', input('name? '))")
    assert await kernel.asked(cell) == {"prompt": "name? ", "password": False}
    kernel.answer("Ada")
    assert (await kernel.end(cell)).text() == "hello Ada\n"


async def test_getpass_asks_for_a_password(kernel: FrontEnd) -> None:
    """The front end is told to hide what is typed."""
    cell = kernel.begin("import getpass; len(getpass.getpass('token: '))")
    assert await kernel.asked(cell) == {"prompt": "token: ", "password": True}
    kernel.answer("secret")
    assert (await kernel.end(cell)).result == "6"


async def test_several_questions_in_one_cell(kernel: FrontEnd) -> None:
    """Each question gets its own answer, in order, with text that is not ASCII."""
    cell = kernel.begin("[input(f'{n}? ') for n in range(3)]")
    for n, line in enumerate(("eins", "zwei ü", "")):
        await kernel.until(
            lambda m, n=n: (
                m["channel"] == "stdin"
                and m["content"]["prompt"] == f"{n}? "
                and m["parent_header"]["msg_id"] == cell
            )
        )
        kernel.answer(line)
    assert (await kernel.end(cell)).result == "['eins', 'zwei ü', '']"


async def test_output_goes_on_while_a_question_waits(kernel: FrontEnd) -> None:
    """A thread's output does not wait for the user's answer."""
    cell = kernel.begin(
        "import threading\n"
        "go = threading.Event()\n"
        "threading.Thread(target=lambda: (go.wait(20), print('meanwhile'))).start()\n"
        "threading.Timer(0.5, go.set).start()\n"
        "input()"
    )
    await kernel.asked(cell)
    await kernel.printed(cell, "meanwhile")
    kernel.answer("")
    assert (await kernel.end(cell)).status == "ok"


async def test_end_of_file(kernel: FrontEnd) -> None:
    """Ctrl-D raises EOFError in the cell."""
    cell = kernel.begin("input()")
    await kernel.asked(cell)
    kernel.answer("\x04")
    assert (await kernel.end(cell)).content["ename"] == "EOFError"


async def test_no_question_where_nobody_can_answer(kernel: FrontEnd) -> None:
    """With allow_stdin off, input() raises and nothing waits."""
    done = await kernel.run("input()", allow_stdin=False)
    assert done.content["ename"] == "StdinNotImplementedError"


async def test_a_late_answer_is_not_taken_for_the_next_question(kernel: FrontEnd) -> None:
    """What was typed for a question that was interrupted does not answer the one after it."""
    first = kernel.begin("input('first ')")
    await kernel.asked(first)
    await kernel.interrupt()
    await kernel.end(first)
    kernel.answer("too late")
    await kernel.run("import time; time.sleep(0.2)")
    second = kernel.begin("input('second ')")
    await kernel.asked(second)
    kernel.answer("in time")
    assert (await kernel.end(second)).result == "'in time'"
