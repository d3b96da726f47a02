"""Running what lies in examples/ as its readers would."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from tests.integrations.frameworks import ROOT


async def output_of(example: str, env: Mapping[str, str]) -> str:
    """What an example prints, which must end well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / example),
        env={**os.environ, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return stdout.decode()
