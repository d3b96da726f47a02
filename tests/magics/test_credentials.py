"""What counts as a credential on its way into a sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcube_kernel.magics.credentials import find_credential


@pytest.fixture
def user_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a project, keys and tokens."""
    home = tmp_path / "home"
    for name in (
        ".ssh/config",
        ".aws/config",
        ".config/gcloud/access.db",
        ".netrc",
        "keys/server.pem",
        "other/my_token.txt",
        "other/deep/er/.env",
        "plain/data.csv",
        "project/data/tokens.csv",
        "project/cert.pem",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    (home / "project" / "link").symlink_to(home / ".ssh")
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".ssh", ".ssh"),
        (".ssh/config", ".ssh/config"),
        (".config/gcloud/access.db", ".config/gcloud/access.db"),
        (".config", ".config/gcloud"),
        (".netrc", ".netrc"),
        ("keys", "keys/server.pem"),
        ("other", "other/my_token.txt"),
        ("other/deep", "other/deep/er/.env"),
        ("project/link", "project/link"),
        ("plain", None),
        ("plain/data.csv", None),
        ("project", None),
        ("project/data/tokens.csv", None),
        ("project/cert.pem", None),
    ],
)
def test_what_is_found(user_home: Path, path: str, found: str | None) -> None:
    """Well-known places and telling names are found, also in folders and behind links; a project's own are not."""
    result = find_credential(str(user_home / path), notebook_folder=str(user_home / "project"))
    assert result == (None if found is None else str(user_home / found))


def test_a_notebook_in_the_home_folder(user_home: Path) -> None:
    """Where the notebook is in the home folder itself, the well-known places are asked about all the same."""
    here = str(user_home)
    assert find_credential(str(user_home / ".ssh" / "config"), notebook_folder=here) is not None
    assert find_credential(str(user_home), notebook_folder=here) is not None
    assert find_credential(str(user_home / "project"), notebook_folder=here) is None
