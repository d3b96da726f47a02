"""Every kind of fault between client and sandbox, in many of the requests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentcube_kernel import AsyncCodeInterpreterClient, Settings
from tests.endpoints import Endpoint
from tests.faultproxy import FaultPlan, running_fault_proxy

pytestmark = pytest.mark.anyio


@pytest.fixture(params=range(4), ids="seed {}".format)
async def shaken(
    request: pytest.FixtureRequest, endpoint: Endpoint, configured: dict[str, str]
) -> AsyncIterator[AsyncCodeInterpreterClient]:
    """A client whose data plane meets a fault in every fifth request."""
    async with AsyncCodeInterpreterClient() as straight:
        with running_fault_proxy(endpoint.data_url, FaultPlan(rate=0.2, seed=request.param)) as proxy:
            settings = Settings.load()
            url = {"picod_url": proxy.url} if settings.picod_url else {"router_url": proxy.url}
            async with AsyncCodeInterpreterClient(
                settings=settings.override(**url), session_id=straight.session_id
            ) as client:
                yield client
        await straight.execute_command(["sh", "-c", "rm -rf folder file count lines"])


async def test_streamed_command_runs_once(shaken: AsyncCodeInterpreterClient) -> None:
    """A streamed command is started once, and all of its output arrives once and in order."""
    script = "echo x >>count; n=0; while [ $n -lt 40 ]; do echo $n; n=$((n+1)); sleep 0.02; done"
    text = ""
    async for output in shaken.stream_command(["sh", "-c", script]):
        text += output.text
    assert text == "".join(f"{n}\n" for n in range(40))
    assert await shaken.read_file("count") == b"x\n"


@pytest.mark.timeout(180)
async def test_files_arrive_whole(shaken: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """An upload and a download of many pieces end with the right content, without the caller's help."""
    data = os.urandom(40_000_000)
    (tmp_path / "file").write_bytes(data)
    await shaken.upload_file(str(tmp_path / "file"), "file")
    await shaken.download_file("file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "file"]
