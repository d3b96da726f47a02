"""The input history, which is this machine's."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.kernel.conftest import StartKernel

TAIL = {"hist_access_type": "tail", "raw": True, "output": False}


async def test_history_outlives_the_kernel(start_kernel: StartKernel, tmp_path: Path) -> None:
    """What was typed in one kernel is found in the next, by tail and by search."""
    options = [f"--HistoryManager.hist_file={tmp_path / 'history.sqlite'}"]
    first = await start_kernel(arguments=options)
    for code in ("alpha = 1", "beta = 2", "alpha = 1"):
        await first.run(code)
    await first.disconnect()
    await first.manager.shutdown_kernel()
    second = await start_kernel(arguments=options)
    tail = (await second.ask("history_request", {**TAIL, "n": 2}))["history"]
    assert [code for _, _, code in tail] == ["beta = 2", "alpha = 1"]
    assert [line for _, line, _ in tail] == [2, 3]
    search = {**TAIL, "hist_access_type": "search", "pattern": "al*", "unique": True, "n": 5}
    assert [code for _, _, code in (await second.ask("history_request", search))["history"]] == ["alpha = 1"]


async def test_ranges_count_as_the_sandbox_does(start_kernel: StartKernel) -> None:
    """A range of this session names lines by their number beside the cell, with the output where it is asked for."""
    user = await start_kernel(arguments=["--HistoryManager.hist_file=:memory:"])
    for code in ("1 + 1", "x = 5", "x"):
        await user.run(code)
    ask = {"hist_access_type": "range", "session": 0, "start": 1, "stop": 4, "raw": True, "output": True}
    expected = [[1, 1, ["1 + 1", "2"]], [1, 2, ["x = 5", None]], [1, 3, ["x", "5"]]]
    assert (await user.ask("history_request", ask))["history"] == expected
    assert (await user.ask("history_request", {**ask, "session": 1}))["history"] == expected


async def test_raw_and_translated(start_kernel: StartKernel) -> None:
    """IPython's own syntax is kept as typed, and translated where that is asked for."""
    user = await start_kernel(arguments=["--HistoryManager.hist_file=:memory:"])
    await user.run("%time 1")
    raw = (await user.ask("history_request", {**TAIL, "n": 1}))["history"]
    translated = (await user.ask("history_request", {**TAIL, "n": 1, "raw": False}))["history"]
    assert raw == [[1, 1, "%time 1"]]
    assert "run_line_magic" in translated[0][2]


async def test_what_is_not_to_be_stored_is_not(start_kernel: StartKernel) -> None:
    """Silent cells and those with store_history off leave no trace."""
    user = await start_kernel(arguments=["--HistoryManager.hist_file=:memory:"])
    await user.run("kept = 1")
    await user.run("secret = 2", store_history=False)
    await user.run("secret = 3", silent=True)
    assert (await user.ask("history_request", {**TAIL, "n": 10}))["history"] == [[1, 1, "kept = 1"]]


async def test_a_history_file_that_cannot_be_used_does_not_stop_the_kernel(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    """Cells run and history requests are answered when the file is no database."""
    broken = tmp_path / "history.sqlite"
    broken.write_text("no database " * 100)
    user = await start_kernel(arguments=[f"--HistoryManager.hist_file={broken}"])
    assert (await user.run("1 + 1")).result == "2"
    assert (await user.ask("history_request", {**TAIL, "n": 1}))["status"] in ("ok", "error")


async def test_a_sandbox_cannot_make_the_history_large(start_kernel: StartKernel) -> None:
    """A number that a cell has set itself is shown beside the cell, and the history goes on from its own."""
    user = await start_kernel(arguments=["--HistoryManager.hist_file=:memory:"])
    await user.run("kept = 1")
    await user.run("get_ipython().execution_count = 100_000_000")
    before = psutil.Process(user.pid).memory_info().rss
    assert (await user.run("last = 2")).count == 100_000_000
    assert psutil.Process(user.pid).memory_info().rss - before < 50_000_000
    tail = (await user.ask("history_request", {**TAIL, "n": 1}))["history"]
    assert tail == [[1, 3, "last = 2"]]
