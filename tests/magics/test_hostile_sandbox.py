"""Transfers between a notebook and a sandbox whose interpreter belongs to somebody hostile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.magics.notebooks import KINDS, Notebook, notebook, shown

pytestmark = [pytest.mark.usefixtures("configured", "needs_sessions"), pytest.mark.timeout(120)]

# Every file of variables that the sandbox writes gets more names, and what is asked for by one name another value.
MORE_NAMES = """
import json
_dumps = json.dumps
def dumps(value, **options):
    if isinstance(value, dict) and "x" in value:
        value = {**value, "print": 1, "API_URL": "evil", "__builtins__": 2, "x": VALUE}
    return _dumps(value, **options)
json.dumps = dumps
x = 1
"""


@pytest.fixture
async def user(endpoint_env: dict[str, str], tmp_path: Path) -> AsyncIterator[Notebook]:
    """An IPython notebook with one sandbox, `a`."""
    async with notebook("ipykernel", tmp_path, endpoint_env) as opened:
        await opened.cell("%sandbox new a")
        yield opened
        await opened.cell("%sandbox stop --all")


async def test_pull_sets_what_was_asked_for_and_nothing_else(user: Notebook) -> None:
    """More names in the file set nothing; `--out` neither."""
    await user.cell("API_URL = 'mine'")
    await user.cell("%%sandbox a\n" + MORE_NAMES.replace("VALUE", "5"))
    await user.cell("%sandbox pull x")
    assert shown(await user.cell("print(x, API_URL, type(__builtins__).__name__)")) == "5 mine module\n"
    await user.cell("%%sandbox a --out x\n7")
    assert shown(await user.cell("print(x, API_URL)")) == "5 mine\n"


@pytest.mark.parametrize(
    "name", ["print", "__builtins__", "_", "_i3", "In", "get_ipython", "__name__", "sandbox"]
)
async def test_names_that_are_never_set(user: Notebook, name: str) -> None:
    """Builtins, dunders and IPython's own names are refused, with the way to have the value all the same."""
    await user.cell(f"%%sandbox a\nx = 1\n{'print' if name == 'print' else 'y'} = 2")
    assert "is not overwritten" in await user.fails(f"%sandbox pull x:{name}")
    assert "is not overwritten" in await user.fails(f"%%sandbox a --out {name}\n1")
    assert "not the name of a variable" in await user.fails("%sandbox pull x:for")


@pytest.mark.parametrize(
    "value",
    [
        '{"$": "fraction", "v": "1e99999999"}',
        '{"$": "decimal", "v": "1e99999999"}',
        '{"$": "arrow", "at": 17}',
    ],
)
async def test_a_value_that_is_a_bomb(user: Notebook, value: str) -> None:
    """It is refused at once, and the notebook goes on."""
    await user.cell("%%sandbox a\n" + MORE_NAMES.replace("VALUE", value))
    assert "cannot be read" in await user.fails("%sandbox pull x", timeout=20)
    assert "NameError" in await user.fails("x")


async def test_a_file_that_is_larger_than_allowed(user: Notebook) -> None:
    """A file above its ceiling leaves nothing here."""
    await user.cell("%%sandbox a --bash\necho 0123456789012345 >f")
    await user.cell("import os")
    assert "more than the 10 bytes" in await user.fails("%sandbox get f --max-bytes 10")
    assert shown(await user.cell("print(os.listdir())")) == "[]\n"
    await user.cell("%sandbox get f --max-bytes 17")


@pytest.mark.parametrize("kind", KINDS)
async def test_put_asks_before_it_sends_a_credential(
    kind: str, endpoint_env: dict[str, str], tmp_path: Path
) -> None:
    """A key outside the notebook's folder is sent after a yes only, or with --yes; without stdin it is refused."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_rsa").write_text("key")
    (tmp_path / "work").mkdir()
    line = f"%sandbox put {home}/.ssh/id_rsa"
    async with notebook(kind, tmp_path / "notebook", {**endpoint_env, "HOME": str(home)}) as user:
        await user.cell("%sandbox new a")
        refused = await user.end(user.begin(line, allow_stdin=False))
        error = refused.content["evalue"]
        assert "looks like a credential" in error
        assert "--yes" in error
        for answer, status in (("", "error"), ("no", "error"), ("y", "ok")):
            request = user.begin(line, allow_stdin=True)
            assert "Send it? [y/N]" in (await user.asked(request))["prompt"]
            user.answer(answer)
            assert (await user.end(request)).status == status
            assert ("id_rsa" in await user.says("ls")) == (status == "ok")
        await user.cell(f"{line} --to again --yes")
        assert "again" in await user.says("ls")
        await user.cell("%sandbox stop --all")
