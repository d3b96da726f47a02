"""The magics in a plain IPython: in a terminal, from code, with what goes wrong around them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import agentcube
import pexpect
import psutil
import pytest

from agentcube_kernel.sessions.ledger import Ledger, default_path
from tests.magics.conftest import OpenNotebook
from tests.magics.notebooks import shown

pytestmark = [pytest.mark.usefixtures("configured", "needs_sessions"), pytest.mark.timeout(120)]


def run_ipython(*cells: str, env: dict[str, str] | None = None) -> str:
    """Run cells in an IPython process of their own; everything that it printed."""
    code = (
        "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(colors='nocolor')\n"
        f"for cell in {('%load_ext agentcube_kernel', *cells)!r}:\n"
        "    shell.run_cell(cell, store_history=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_sandbox_object_waits_and_is_awaited() -> None:
    """`sandbox` is the current one; its methods wait, and in a cell with `await` they are awaited."""
    said = run_ipython(
        "%sandbox new a",
        "print(sandbox.run_cell('20 + 1').text, sandbox.name)",
        "print((await sandbox.run_cell('20 + 2')).text)",
        "import asyncio\nasync def both():\n"
        "    return await asyncio.gather(sandbox.run_cell('1'), sandbox.run_cell('2'))\n"
        "print([r.text for r in await both()])",
        "old = sandbox",
        "%sandbox new b",
        "print(sandbox.name)",
        "%sandbox stop a",
        "old.run_cell('1')",
        "%sandbox stop b",
        "print('sandbox' in globals())",
    )
    assert "21 a\n" in said
    assert "22\n" in said
    assert "['1', '2']" in said
    assert "\nb\n" in said
    assert "ClientStateError" in said
    assert "False" in said


def test_the_users_own_variable_is_left_alone() -> None:
    """A variable called `sandbox` that is not ours is not replaced."""
    assert "\nmine\n" in run_ipython(
        "sandbox = 'mine'", "%sandbox new a", "print(sandbox)", "%sandbox stop a"
    )


def test_answers_are_objects() -> None:
    """An answer can be taken into a variable, and its data are attributes."""
    said = run_ipython(
        "made = %sandbox new a",
        "print(made.name, made.owned, len(made.session_id))",
        "files = %sandbox ls",
        "print([file.name for file in files if not file.name.startswith('.')])",
        "for n in range(2):\n    listing = %sandbox list\n    print('loop', n, len(listing.sandboxes))",
        "def f():\n    return get_ipython().run_line_magic('sandbox', 'info')",
        "print(f().state)",
        "%sandbox stop --all",
    )
    assert "a True 36" in said
    assert "loop 1 1" in said
    assert "ready" in said


def test_a_first_cell_makes_a_sandbox() -> None:
    """`%%sandbox` without any sandbox makes one, and it is gone at the end of the process."""
    said = run_ipython("%%sandbox\nprint('in', 6 * 7)", "print('sid', sandbox.session_id)")
    assert "in 42" in said
    session_id = said.split("sid ")[1].split()[0]
    deadline = time.monotonic() + 12
    while Ledger().session(session_id) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("how", ["corrupt", "newer", "unwritable"])
def test_a_broken_ledger_is_a_warning(tmp_path: Path, how: str) -> None:
    """Without a ledger sandboxes work; what then does not is said once."""
    path = tmp_path / "data" / "agentcube" / "ledger.sqlite"
    path.parent.mkdir(parents=True)
    if how == "corrupt":
        path.write_bytes(b"garbage" * 1000)
    elif how == "newer":
        ledger = Ledger(path)
        ledger.touch("x")
        import sqlite3

        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 9")
        connection.close()
    else:
        path.mkdir()
    said = run_ipython(
        "%sandbox new a",
        "%%sandbox\nprint('works')",
        "%sandbox stop a",
        env={"JUPYTER_DATA_DIR": str(tmp_path / "data")},
    )
    assert "works" in said
    assert said.count("left to their idle timeout") == 1
    assert "Stopped a" in said


def test_a_session_of_the_stock_sdk_can_be_used(tmp_path: Path) -> None:
    """A session that `agentcube-sdk` made is attached to, shows its files, and is left to it."""
    with agentcube.CodeInterpreterClient(auth_token=os.environ.get("AGENTCUBE_TOKEN")) as theirs:
        theirs.run_code("python", "open('made-by-sdk.txt', 'w').write('x')")
        said = run_ipython(
            f"%sandbox attach {theirs.session_id} --as agent",
            "%sandbox ls",
            "%%sandbox\nprint('seen', open('made-by-sdk.txt').read())",
            "%sandbox stop agent",
            "%sandbox detach agent",
        )
        assert "made-by-sdk.txt" in said
        assert "seen x" in said
        assert "made by somebody else" in said
        assert theirs.run_code("python", "print('still mine')").strip() == "still mine"


async def test_attaching_beside_a_running_cell(open_notebook: OpenNotebook) -> None:
    """A session in which another kernel runs a cell is attached to without disturbing that cell."""
    kernel, visitor = await open_notebook("agentcube"), await open_notebook("ipykernel")
    session_id = await kernel.session_id()
    long = kernel.begin("import time\nprint('on', flush=True)\ntime.sleep(3)\nprint('off')")
    await kernel.printed(long, "on")
    await visitor.says(f"attach {session_id} --as theirs")
    await visitor.says("ls")
    assert (await kernel.end(long)).text() == "on\noff\n"
    await visitor.says("detach theirs")
    assert shown(await kernel.cell("'still here'")) == "'still here'"


@pytest.mark.parametrize("kind", ["agentcube", "ipykernel"])
async def test_ctrl_c_in_the_middle_of_transfers(
    open_notebook: OpenNotebook, kind: str, tmp_path: Path
) -> None:
    """An interrupted put, get, push or pull ends as KeyboardInterrupt, leaves no half file, and all goes on."""
    user = await open_notebook(kind)
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(1_500_000_000)
    await user.says("new a")
    await user.says("new b")
    await user.cell("%%sandbox a\nf = open('large.bin', 'wb'); f.truncate(1_500_000_000); f.close()")
    await user.cell("import numpy as np\nlarge = np.zeros(150_000_000)")
    await user.cell("%%sandbox a\nimport numpy as np\nfar = np.zeros(150_000_000)")
    for line in (
        f"put {big} --in a",
        f"get large.bin --to {tmp_path}/got.bin --in a",
        "push large --to a",
        "pull far:close --from a",
    ):
        request = user.begin(f"%sandbox {line}")
        await user.until(
            lambda m, r=request: (
                m["parent_header"].get("msg_id") == r
                and m["msg_type"] in ("display_data", "execute_reply", "error")
            )
        )
        await user.interrupt()
        outcome = await user.end(request, 40)
        assert outcome.content.get("ename") == "KeyboardInterrupt", (line, outcome.content)
    files = await user.says("ls --in a")
    assert "big.bin" not in files
    assert sorted(path.name for path in tmp_path.glob("*got.bin*")) == []
    # It may have to say first that it waits for the end of what was interrupted.
    assert shown(await user.cell("%%sandbox a\n'goes on'")).endswith("'goes on'")
    await user.says("stop a")
    await user.says("stop b")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_half_a_gigabyte_there_and_back(open_notebook: OpenNotebook) -> None:
    """An array of 500 MB is pushed and pulled with equal checksums; the notebook holds it once and little more."""
    user = await open_notebook("ipykernel")
    await user.says("new a")
    await user.cell(
        "import hashlib, numpy as np\n"
        "array = np.random.default_rng(1).integers(0, 255, 500_000_000, dtype=np.uint8)\n"
        "digest = hashlib.sha256(array).hexdigest()"
    )
    process = psutil.Process(user.pid)
    before = process.memory_info().rss
    await user.cell("%sandbox push array --to a", timeout=120)
    assert process.memory_info().rss - before < 200e6
    await user.cell("%%sandbox a --out far\nimport hashlib\nhashlib.sha256(array).hexdigest()")
    await user.cell("del array")
    await user.cell("%sandbox pull array --from a", timeout=120)
    assert process.memory_info().rss - before < 200e6
    assert shown(await user.cell("far == digest == hashlib.sha256(array).hexdigest()", timeout=60)) == "True"
    await user.says("stop a")


def test_a_terminal(tmp_path: Path) -> None:
    """In a terminal: text answers, Tab, a question of a cell, Ctrl-C in a cell."""
    ipython = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor", "--no-confirm-exit"],
        encoding="utf-8",
        timeout=30,
        cwd=str(tmp_path),
        env={**os.environ, "TERM": "dumb", "PYTHONWARNINGS": "ignore"},
    )

    def say(line: str) -> None:
        ipython.expect(r"In \[\d+\]: ")
        ipython.sendline(line)

    say("%load_ext agentcube_kernel")
    say("%sandbox new term")
    ipython.expect(r"term \(current\)")
    say("%sandbox")
    ipython.expect("may end in")
    say("%%sandbox")
    ipython.sendline("print('hello', input('who? '))")
    ipython.sendline("\n")
    ipython.expect(r": who\? ")
    ipython.sendline("terminal")
    ipython.expect("hello terminal")
    say("%%sandbox")
    ipython.sendline("import time; print('sleep' + 'ing', flush=True); time.sleep(60)")
    ipython.sendline("\n")
    ipython.expect("sleeping\r\n")
    ipython.kill(signal.SIGINT)
    ipython.expect("KeyboardInterrupt")
    say("sandbox.run_cell('6 * 7').text")
    ipython.expect("'42'")
    say("%sandbox bad")
    ipython.expect("There is no command")
    say("%sandbox stop")
    ipython.expect("Stopped term")
    say("exit")
    ipython.expect(pexpect.EOF)
    ipython.close()


def test_the_default_ledger_is_in_jupyters_data_directory() -> None:
    """JUPYTER_DATA_DIR moves the ledger."""
    os.environ["JUPYTER_DATA_DIR"] = "/somewhere"
    assert default_path() == Path("/somewhere/agentcube/ledger.sqlite")
