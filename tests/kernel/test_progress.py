"""What a cell shows while its sandbox starts, and several kernels at once."""

from __future__ import annotations

import asyncio

from tests.kernel.conftest import StartKernel
from tests.kernel.frontend import NOT_THERE

SECOND = "Waiting for the sandbox"


async def test_a_slow_start_is_shown_and_ends_as_one_line(start_kernel: StartKernel) -> None:
    """Nothing for the first seconds, then one display that is updated, in the end with what became of it."""
    user = await start_kernel(env=NOT_THERE)
    cell = user.begin("1")
    shown = await user.until(lambda m: m["msg_type"] == "display_data", timeout=15)
    began = next(m for m in user.messages if m["parent_header"].get("msg_id") == cell)
    assert 2.5 < (shown["header"]["date"] - began["header"]["date"]).total_seconds() < 6
    await user.interrupt()
    done = await user.end(cell)
    texts = [
        content["data"]["text/plain"]
        for content in done.of_type("display_data") + done.of_type("update_display_data")
    ]
    assert texts[0].startswith(SECOND)
    assert texts[-1].startswith("The sandbox did not start")
    ids = {
        content["transient"]["display_id"]
        for content in done.of_type("display_data") + done.of_type("update_display_data")
    }
    assert len(ids) == len(done.of_type("display_data")) == 1


async def test_no_progress_where_outputs_are_compared(start_kernel: StartKernel) -> None:
    """nbval's way of running cells, and AGENTCUBE_PROGRESS=0, show nothing but the cell's own output."""
    compared = await start_kernel(env=NOT_THERE)
    switched_off = await start_kernel(env={**NOT_THERE, "AGENTCUBE_PROGRESS": "0"})
    cells = [
        (compared, compared.begin("1", store_history=False, allow_stdin=False)),
        (switched_off, switched_off.begin("1")),
    ]
    await asyncio.sleep(4.5)
    for user, cell in cells:
        await user.interrupt()
        assert "display_data" not in (await user.end(cell)).types


async def test_several_kernels_keep_to_themselves(start_kernel: StartKernel) -> None:
    """Four kernels started at once have four sandboxes."""
    users = await asyncio.gather(*(start_kernel() for _ in range(4)))
    cells = [
        user.begin(f"import os; me = {n}; os.getcwd(), open('mine.txt', 'w').write(str(me))")
        for n, user in enumerate(users)
    ]
    places = {(await user.end(cell)).result for user, cell in zip(users, cells, strict=True)}
    assert len(places) == 4
    for n, user in enumerate(users):
        assert (await user.run("me, open('mine.txt').read()")).result == f"({n}, '{n}')"
