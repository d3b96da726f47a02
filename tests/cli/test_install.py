"""`agentcube-kernel install` writes kernelspecs that start, and never a secret."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from tests.commands import run_cli

LOGOS = {"logo-svg.svg", "logo-64x64.png", "logo-32x32.png"}


def spec_of(folder: Path) -> dict[str, object]:
    """The content of a kernelspec folder's kernel.json."""
    spec = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    assert isinstance(spec, dict)
    return spec


def test_pip_install_alone_makes_the_kernel_appear() -> None:
    """The kernelspec that came with the package is found by Jupyter, with its logos."""
    spec = KernelSpecManager().get_kernel_spec("agentcube")
    assert spec.display_name == "AgentCube Remote"
    assert spec.interrupt_mode == "message"
    assert spec.metadata == {"supported_encryption": ["curve"]}
    assert set(os.listdir(spec.resource_dir)) == LOGOS | {"kernel.json"}


def test_writes_the_same_kernel_as_the_package_ships(tmp_path: Path) -> None:
    """Without settings the kernelspec differs from the shipped one in nothing but the path of Python."""
    told = run_cli("install", "--prefix", str(tmp_path))
    folder = tmp_path / "share" / "jupyter" / "kernels" / "agentcube"
    assert str(folder) in told.stdout
    assert set(os.listdir(folder)) == LOGOS | {"kernel.json"}
    shipped = spec_of(Path(KernelSpecManager().get_kernel_spec("agentcube").resource_dir))
    written = spec_of(folder)
    assert written.pop("argv") == [sys.executable, "-m", "agentcube_kernel", "-f", "{connection_file}"]
    assert shipped.pop("argv") == ["python", "-m", "agentcube_kernel", "-f", "{connection_file}"]
    assert written == shipped


def test_writes_settings_into_a_kernel_of_its_own_name(tmp_path: Path) -> None:
    """Each setting becomes a variable of that kernel, and its name shows in its display name."""
    token_file = tmp_path / "token"
    token_file.write_text("t")
    run_cli(
        *("install", "--prefix", str(tmp_path), "--name", "Prod"),
        *("--router-url", "https://router.example/", "--workload-manager-url", "http://wm:8080"),
        *("--namespace", "team-a", "--interpreter", "gpu", "--token-file", str(token_file)),
        *("--env", "AGENTCUBE_OAUTH_SCOPE=a b"),
    )
    spec = spec_of(tmp_path / "share" / "jupyter" / "kernels" / "prod")
    assert spec["display_name"] == "AgentCube Remote (prod)"
    assert spec["env"] == {
        "ROUTER_URL": "https://router.example",
        "WORKLOAD_MANAGER_URL": "http://wm:8080",
        "AGENTCUBE_NAMESPACE": "team-a",
        "AGENTCUBE_INTERPRETER": "gpu",
        "AGENTCUBE_TOKEN_FILE": str(token_file),
        "AGENTCUBE_OAUTH_SCOPE": "a b",
    }


def test_installs_for_the_user(home: Path) -> None:
    """`--user` writes where every Jupyter of this user looks."""
    run_cli("install", "--user", "--name", "mine", "--display-name", "My sandbox")
    folder = Path(KernelSpecManager().user_kernel_dir) / "mine"
    assert folder.is_relative_to(home)
    assert spec_of(folder)["display_name"] == "My sandbox"


@pytest.mark.parametrize(
    "option",
    [
        ("--token", "s3cr3t"),
        ("--oauth-client-secret", "s3cr3t"),
        ("--env", "AGENTCUBE_TOKEN=s3cr3t"),
        ("--env", "AGENTCUBE_OAUTH_CLIENT_SECRET=s3cr3t"),
        ("--env", "EXTRA=Bearer s3cr3t"),
        ("--token-file", "eyJhbGciOi.eyJzdWIiOiJz3cr3t.c2ln"),
        ("--router-url", "https://user:s3cr3t@router.example"),
    ],
)
def test_refuses_secrets(tmp_path: Path, option: tuple[str, str]) -> None:
    """A secret is refused and not repeated, the message says where it belongs, and nothing is written."""
    told = run_cli("install", "--prefix", str(tmp_path), *option, status=2)
    assert "token" in told.stderr
    assert "s3cr3t" not in told.stderr + told.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--router-url", "router:80"), "--router-url"),
        (("--namespace", "a/b"), "--namespace"),
        (("--env", "AGENTCUBE_HOLD=soon"), "AGENTCUBE_HOLD"),
        (("--name", "a b"), "--name"),
        (("--env", "NOVALUE"), "NAME=VALUE"),
        (("--user",), "one of --user, --sys-prefix and --prefix"),
    ],
)
def test_names_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    """A bad option is named, with status 2, and nothing is written."""
    told = run_cli("install", "--prefix", str(tmp_path), *arguments, status=2)
    assert named in told.stderr
    assert not list(tmp_path.iterdir())


def test_does_not_overwrite_another_kernel(tmp_path: Path) -> None:
    """A kernelspec of another program stays as it is."""
    folder = tmp_path / "share" / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    other = (
        '{"argv": ["python", "-m", "ipykernel_launcher"], "display_name": "Python 3", "language": "python"}'
    )
    (folder / "kernel.json").write_text(other)
    told = run_cli("install", "--prefix", str(tmp_path), "--name", "python3", status=1)
    assert "another kernel" in told.stderr
    assert (folder / "kernel.json").read_text() == other


def test_overwrites_its_own_kernel(tmp_path: Path) -> None:
    """Installing again under the same name replaces the settings."""
    run_cli("install", "--prefix", str(tmp_path), "--namespace", "one")
    run_cli("install", "--prefix", str(tmp_path), "--namespace", "two")
    spec = spec_of(tmp_path / "share" / "jupyter" / "kernels" / "agentcube")
    assert spec["env"] == {"AGENTCUBE_NAMESPACE": "two"}


def test_warns_of_a_token_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing token file does not stop the installation, but is told."""
    told = run_cli("install", "--prefix", str(tmp_path), "--token-file", str(tmp_path / "none"))
    assert f"there is no file {tmp_path / 'none'}" in told.stderr
