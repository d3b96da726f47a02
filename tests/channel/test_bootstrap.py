"""Starting a guest on machines that lack something, with the commands run as plain processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from agentcube_kernel.channel.channel import Channel
from agentcube_kernel.errors import GuestStartError, RemoteStorageError
from agentcube_kernel.results import CommandResult


class LocalRunner:
    """Runs the channel's commands in a folder of this machine, with a PATH of its own."""

    def __init__(self, workspace: Path, path: Path) -> None:
        self.workspace, self.path = workspace, path
        self.uploaded = 0

    async def execute(self, command: Sequence[str], *, timeout: float) -> CommandResult:
        env = {"PATH": str(self.path), "HOME": str(self.workspace)}
        program = shutil.which(command[0], path=str(self.path))
        if program is None:
            # PicoD's words.
            text = f'exec: "{command[0]}": executable file not found in $PATH'
            return CommandResult(stdout="", stderr=text, exit_code=1)
        done = await anyio.run_process(
            [program, *command[1:]], cwd=self.workspace, env=env, check=False, stdin=subprocess.DEVNULL
        )
        return CommandResult(
            stdout=done.stdout.decode(), stderr=done.stderr.decode(), exit_code=done.returncode
        )

    async def write(self, path: str, data: bytes) -> None:
        self.uploaded += len(data)
        target = self.workspace / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.write_bytes(data)
        except OSError as exc:
            raise RemoteStorageError(f"disk full: {exc}", path=path) from exc


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A PATH with what every sandbox has, python3 left out."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "bash", "cat", "rm", "echo", "ls"):
        (folder / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name} here"))
    return folder


def python3(commands: Path, preamble: str = "") -> None:
    """Put a python3 into the folder; `preamble` runs first in code given by -c."""
    real = os.path.realpath(sys.executable)
    script = commands / "python3"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || exec {real} "$@"\nshift; code=$1; shift\n'
        f'exec {real} -c "{preamble}\n$code" "$@"\n'
    )
    script.chmod(0o755)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty workspace."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


async def refused(workspace: Path, commands: Path) -> str:
    """What the start of a guest says there."""
    channel = Channel(LocalRunner(workspace, commands), client_id="c")
    with pytest.raises((GuestStartError, RemoteStorageError)) as caught:
        await channel.start()
    await channel.close()
    return str(caught.value)


async def test_no_python3(workspace: Path, commands: Path) -> None:
    """Says what is missing, what still works, and what to do."""
    message = await refused(workspace, commands)
    assert "no python3" in message
    assert "%%bash" in message


async def test_a_python3_that_is_too_old(workspace: Path, commands: Path) -> None:
    """Says which version is there and which is needed."""
    python3(commands, "import sys; sys.version_info = (3, 6, 9)")
    message = await refused(workspace, commands)
    assert "3.6.9" in message
    assert "3.10" in message


async def test_a_python3_that_does_not_start(workspace: Path, commands: Path) -> None:
    """What it says is passed on."""
    script = commands / "python3"
    script.write_text("#!/bin/sh\necho 'Fatal Python error: no encodings' >&2; exit 1\n")
    script.chmod(0o755)
    assert "no encodings" in await refused(workspace, commands)


async def test_ipython_is_sent_once_where_there_is_none(workspace: Path, commands: Path) -> None:
    """A bare python3 gets the host's IPython; a second start in the same sandbox sends nothing."""
    python3(commands)
    runner = LocalRunner(workspace, commands)
    for expected in (True, False):
        before = runner.uploaded
        channel = Channel(runner, client_id="c")
        await channel.start()
        cell = channel.submit({"id": f"cell-{expected}", "kind": "cell", "code": "1 + 1"})
        assert "execute_result" in [event.type async for event in cell.events()]
        assert (runner.uploaded > before) is expected
        archives = [
            p.name for p in (workspace / ".agentcube-kernel").iterdir() if p.name.startswith("ipython-")
        ]
        assert len(archives) == 1
        await channel.shut_down_guest()
        await channel.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(("options", "words"), [("size=32k", "full"), ("ro", "read-only")])
async def test_a_workspace_that_cannot_be_written(
    workspace: Path, commands: Path, options: str, words: str
) -> None:
    """A full disk and a read-only one are told apart."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(workspace)]
    if (await anyio.run_process(mount, check=False)).returncode:
        pytest.skip("mounting is not possible here")
    try:
        python3(commands)
        assert words in await refused(workspace, commands)
    finally:
        await anyio.run_process(["umount", str(workspace)])
