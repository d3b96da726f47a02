"""`agentcube-kernel install`: write a kernelspec that starts this environment's kernel with settings."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config import SETTINGS
from ..errors import ConfigurationError
from ..setting import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_NAME = "agentcube"
DEFAULT_DISPLAY_NAME = "AgentCube Remote"
SHIPPED = "share/jupyter/kernels/agentcube/"

NO_SECRETS = (
    "a kernelspec is a plain file that others may read, so no token or secret is ever written to it. "
    "Put the token into a file that only you can read (chmod 600) and give its path with --token-file, "
    "or set {variable} in the environment that Jupyter is started in."
)
# Variables that are no settings of ours may be given with --env, but not these.
_SECRET = re.compile(r"TOKEN$|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE_KEY|AUTHORIZATION|COOKIE")
_LOOKS_LIKE_TOKEN = re.compile(r"^\s*(Bearer\s|eyJ[\w-]+\.[\w-]+\.)")


def _refuse(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Refuse a secret without repeating it."""
    if value is not None:
        row = next(row for row in SETTINGS if row.name == param.name)
        raise click.BadParameter(NO_SECRETS.format(variable=row.variables[0]), ctx=ctx, param=param)


def _setting(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check the value of a setting as the kernel would, and make a path absolute: kernels start in other folders."""
    if value is None:
        return None
    row = next(row for row in SETTINGS if row.name == param.name)
    if _LOOKS_LIKE_TOKEN.match(value):
        message = "this looks like a token; "
        raise click.BadParameter(
            message + NO_SECRETS.format(variable="AGENTCUBE_TOKEN"), ctx=ctx, param=param
        )
    try:
        checked = str(row.parse(value, row.flag))
    except ConfigurationError as error:
        raise click.UsageError(str(error), ctx=ctx) from error
    return str(Path(checked).expanduser().absolute()) if row.kind is Kind.PATH else checked


def _setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting that may stand in a kernelspec; secrets are refused, not unknown."""
    for row in reversed(SETTINGS):
        if row.option:
            help = f"{row.help[0].upper()}{row.help[1:]}."
            option = click.option(row.flag, metavar=row.kind.value, callback=_setting, help=help)
        elif row.kind is Kind.SECRET:
            option = click.option(row.flag, hidden=True, expose_value=False, callback=_refuse)
        else:
            continue
        command = option(command)
    return command


def _extra_env(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Parse NAME=VALUE pairs and refuse names that stand for secrets."""
    env = {}
    for pair in values:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{name!r} is not of the form NAME=VALUE", ctx=ctx, param=param)
        row = next((row for row in SETTINGS if name in row.variables), None)
        secret = _SECRET.search(name.upper()) if row is None else row.kind is Kind.SECRET
        if secret or _LOOKS_LIKE_TOKEN.match(value):
            raise click.BadParameter(NO_SECRETS.format(variable=name), ctx=ctx, param=param)
        if row is not None and value.strip():
            try:
                row.parse(value.strip(), name)
            except ConfigurationError as error:
                raise click.BadParameter(str(error), ctx=ctx, param=param) from error
        env[name] = value
    return env


def _kernel_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", value):
        raise click.BadParameter(
            f"{value!r}: a kernel's name has only letters, digits, '.', '_' and '-'", ctx=ctx, param=param
        )
    return value.lower()


@click.command()
@click.option("--user", is_flag=True, help="For the current user, whatever environment Jupyter is in.")
@click.option("--sys-prefix", is_flag=True, help="Into this Python environment (the default inside of one).")
@click.option("--prefix", metavar="P", help="Below P, as P/share/jupyter/kernels/NAME.")
@click.option(
    "--name", default=DEFAULT_NAME, show_default=True, callback=_kernel_name, help="The folder's name."
)
@click.option("--display-name", metavar="TEXT", help="What notebooks show  [default: AgentCube Remote]")
@_setting_options
@click.option("--env", multiple=True, metavar="NAME=VALUE", callback=_extra_env, help="Any other variable.")
def install(
    *,
    user: bool,
    sys_prefix: bool,
    prefix: str | None,
    name: str,
    display_name: str | None,
    env: dict[str, str],
    **settings: Any,
) -> None:
    """Install a kernelspec for this Python environment.

    `pip install` has already put one named "agentcube" into the environment that it installed to. Use this to
    make the kernel known to a Jupyter that lives elsewhere, or to have a kernel per AgentCube: each --name is
    a kernel of its own, with the settings given here written into it. Never a token: that comes from the file
    of --token-file, or from the environment.
    """
    if sum((user, sys_prefix, prefix is not None)) > 1:
        raise click.UsageError("Give one of --user, --sys-prefix and --prefix.")
    given = {row.variables[0]: settings[row.name] for row in SETTINGS if settings.get(row.name) is not None}
    variables = {**env, **given}
    spec = kernelspec(display_name or default_display_name(name), variables)
    in_environment = sys.prefix != sys.base_prefix
    target = prefix or (sys.prefix if sys_prefix or (in_environment and not user) else None)
    where = install_kernelspec(name, spec, prefix=target)
    click.echo(f"Installed the kernel {spec['display_name']!r} in {where}")
    for variable, value in variables.items():
        click.echo(f"  {variable}={value}")
    token_file = variables.get("AGENTCUBE_TOKEN_FILE")
    if token_file is not None and not Path(token_file).is_file():
        click.echo(f"Warning: there is no file {token_file} yet.", err=True)


def default_display_name(name: str) -> str:
    """What a kernel of this name is called unless the user says otherwise."""
    return DEFAULT_DISPLAY_NAME if name == DEFAULT_NAME else f"{DEFAULT_DISPLAY_NAME} ({name})"


def kernelspec(display_name: str, variables: dict[str, str]) -> dict[str, object]:
    """The content of kernel.json: as shipped, but for this very Python and with these variables."""
    spec: dict[str, object] = {
        "argv": [sys.executable, "-m", "agentcube_kernel", "-f", "{connection_file}"],
        "display_name": display_name,
        "language": "python",
        "interrupt_mode": "message",
        "kernel_protocol_version": "5.5",
        "metadata": {"supported_encryption": ["curve"]},
    }
    if variables:
        spec["env"] = variables
    return spec


def install_kernelspec(name: str, spec: dict[str, object], *, prefix: str | None) -> Path:
    """Put a kernelspec below a prefix, or into the user's own folder when it is None, and return its folder.

    Raises:
        ClickException: another program's kernel has that name there, or the folder cannot be written.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    manager = KernelSpecManager()
    kernels = Path(prefix, "share", "jupyter", "kernels") if prefix else Path(manager.user_kernel_dir)
    _check_replaceable(kernels / name, name)
    with tempfile.TemporaryDirectory() as folder:
        write_kernelspec(Path(folder), spec)
        try:
            return Path(manager.install_kernel_spec(folder, name, user=prefix is None, prefix=prefix))
        except OSError as error:
            raise click.ClickException(
                f"The kernelspec could not be written: {error}. Choose another place with --user or --prefix."
            ) from error


def write_kernelspec(folder: Path, spec: dict[str, object]) -> None:
    """Write kernel.json and the logos into a folder."""
    (folder / "kernel.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    for logo in _shipped_logos():
        shutil.copyfile(logo, folder / logo.name)


def _shipped_logos() -> list[Path]:
    """The logos that pip installed, found through the record of what it installed."""
    try:
        files = distribution("agentcube-kernel").files or []
    except PackageNotFoundError:
        return []
    found = [Path(str(file.locate())) for file in files if file.as_posix().endswith((".svg", ".png"))]
    return [path for path in found if SHIPPED in path.resolve().as_posix() and path.is_file()]


def _check_replaceable(folder: Path, name: str) -> None:
    """Refuse to overwrite a kernelspec that is not one of ours."""
    try:
        argv = json.loads((folder / "kernel.json").read_text(encoding="utf-8")).get("argv", [])
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError):
        argv = []
    if "agentcube_kernel" not in argv:
        raise click.ClickException(f"{folder} holds another kernel; choose a --name other than {name!r}.")
