"""Large files over a bad connection, with bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.cutting import cutting_proxy
from tests.endpoints import Endpoint

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(150 * MIB, id="150MB"),
        pytest.param(2048 * MIB, id="2GB", marks=[pytest.mark.rare, pytest.mark.timeout(600)]),
    ],
)
def test_large_file_through_a_proxy_that_cuts(endpoint: Endpoint, tmp_path: Path, size: int) -> None:
    """With a cut every 20 MB a file goes up and down whole, and the client grows by less than 64 MB."""
    digest = hashlib.sha256()
    with (tmp_path / "big").open("wb") as file:
        block = os.urandom(MIB)
        for number in range(size // MIB):
            data = number.to_bytes(8, "big") + block[8:]
            digest.update(data)
            file.write(data)
    with cutting_proxy(endpoint.data_url, every=20 * MIB) as proxy:
        name = "ROUTER_URL" if "ROUTER_URL" in endpoint.env else "AGENTCUBE_PICOD_URL"
        command = [
            sys.executable,
            "-m",
            "tests.client.cutting",
            str(tmp_path / "big"),
            str(tmp_path / "back"),
        ]
        shown = subprocess.run(
            command,
            env={**os.environ, **endpoint.env, name: proxy.url},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
    report = json.loads(shown.stdout)
    assert report["checksums"] == [digest.hexdigest()] * 3
    assert proxy.cuts >= 2 * size // (20 * MIB) - 1
    assert report["grown"] < 64 * MIB, report
    (tmp_path / "back").unlink()
    (tmp_path / "big").unlink()
