"""The settings: one table that says what there is, and where each value in force came from.

A setting is taken from the first of: an argument, an environment variable, the default. `SETTINGS` drives reading,
checking, `agentcube-kernel install` and `doctor`, `%sandbox config` and docs/settings.md. To add a setting, add a row
here and a field of the same name to the class that holds it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError
from .secret import Secret
from .setting import Kind, Setting
from .timings import Timings

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_NAMESPACE = "default"
DEFAULT_INTERPRETER = "my-interpreter"
SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path, no secret

SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="router_url",
        variables=("ROUTER_URL", "AGENTCUBE_ROUTER_URL"),
        kind=Kind.URL,
        help="the AgentCube Router",
        default="the embedded gateway, if there is no WorkloadManager either",
        option=True,
    ),
    Setting(
        name="workload_manager_url",
        variables=("WORKLOAD_MANAGER_URL", "AGENTCUBE_WORKLOAD_MANAGER_URL"),
        kind=Kind.URL,
        help="the AgentCube WorkloadManager",
        default="the embedded gateway, if there is no Router either",
        option=True,
    ),
    Setting(
        name="picod_url",
        variables=("AGENTCUBE_PICOD_URL",),
        kind=Kind.URL,
        help="one PicoD and nothing else, for development",
        option=True,
    ),
    Setting(
        name="allow_embedded",
        variables=("AGENTCUBE_ALLOW_EMBEDDED",),
        kind=Kind.SWITCH,
        help="use the embedded gateway where nothing else is configured",
        default="1",
    ),
    Setting(
        name="namespace",
        variables=("AGENTCUBE_NAMESPACE",),
        kind=Kind.NAME,
        help="the Kubernetes namespace of the sandboxes",
        default=f"`{DEFAULT_NAMESPACE}`",
        option=True,
    ),
    Setting(
        name="interpreter",
        variables=("AGENTCUBE_INTERPRETER",),
        kind=Kind.NAME,
        help="the CodeInterpreter that sandboxes are made from",
        default=f"`{DEFAULT_INTERPRETER}`",
        option=True,
    ),
    Setting(
        name="session_id",
        variables=("AGENTCUBE_SESSION_ID",),
        kind=Kind.NAME,
        help="attach to this session instead of creating one",
        option=True,
    ),
    Setting(
        name="token",
        variables=("AGENTCUBE_TOKEN",),
        kind=Kind.SECRET,
        help="the bearer token",
        default="for the WorkloadManager, the pod's service-account token",
    ),
    Setting(
        name="token_command",
        variables=("AGENTCUBE_TOKEN_COMMAND",),
        kind=Kind.COMMAND,
        help="a command that prints the token, or the ExecCredential that kubectl's plug-ins print",
        option=True,
    ),
    Setting(
        name="token_file",
        variables=("AGENTCUBE_TOKEN_FILE",),
        kind=Kind.PATH,
        help="a file that holds the token; it is read again when it changes",
        option=True,
    ),
    Setting(
        name="oauth_token_url",
        variables=("AGENTCUBE_OAUTH_TOKEN_URL",),
        kind=Kind.URL,
        help="where OAuth2 client credentials get a token for the Router",
        option=True,
    ),
    Setting(
        name="oauth_client_id",
        variables=("AGENTCUBE_OAUTH_CLIENT_ID",),
        kind=Kind.TEXT,
        help="the OAuth2 client; its secret stays in the environment",
        option=True,
    ),
    Setting(
        name="oauth_client_secret",
        variables=("AGENTCUBE_OAUTH_CLIENT_SECRET",),
        kind=Kind.SECRET,
        help="the OAuth2 client's secret",
    ),
    Setting(
        name="oauth_scope",
        variables=("AGENTCUBE_OAUTH_SCOPE",),
        kind=Kind.TEXT,
        help="the OAuth2 scope to ask for",
    ),
    Setting(
        name="eager_start",
        variables=("AGENTCUBE_EAGER_START",),
        kind=Kind.SWITCH,
        help="start the sandbox with the kernel; 0: with the first cell",
        default="1",
    ),
    Setting(
        name="progress",
        variables=("AGENTCUBE_PROGRESS",),
        kind=Kind.SWITCH,
        help="show what a slow start waits for",
        default="1",
    ),
    Setting(
        name="log_file",
        variables=("AGENTCUBE_LOG_FILE",),
        kind=Kind.PATH,
        help="write the kernel's log to this file",
        default="no log",
    ),
    *(
        Setting(
            name=each.name,
            variables=(f"AGENTCUBE_{each.name.upper()}",),
            kind=Kind.SECONDS,
            help=each.metadata["help"],
            default=f"{each.default:g} s",
            least=each.metadata["least"],
            most=each.metadata["most"],
        )
        for each in fields(Timings)
    ),
)
_ROWS = {row.name: row for row in SETTINGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where a bearer token is to come from. Secrets may be given as str and are kept as `Secret`.

    Raises:
        ConfigurationError: a value is bad, or some but not all of the OAuth2 values are given.
    """

    token: Secret | str | None = None
    token_command: str | None = field(default=None, repr=False)
    token_file: str | None = None
    oauth_token_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret: Secret | str | None = None
    oauth_scope: str | None = None
    service_account_file: str = SERVICE_ACCOUNT_TOKEN

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in _ROWS and value is not None:
                object.__setattr__(self, each.name, _ROWS[each.name].check(value, each.name))
        oauth = ("oauth_token_url", "oauth_client_id", "oauth_client_secret")
        missing = [_ROWS[name].variables[0] for name in oauth if getattr(self, name) is None]
        if missing and len(missing) < len(oauth):
            raise ConfigurationError(
                f"OAuth2 client credentials are incomplete: {' and '.join(missing)} must be set too.",
                name=missing[0],
            )


NO_CREDENTIALS = Credentials(service_account_file="")
"""No credential, whatever this machine has."""


def _given(environ: Mapping[str, str] | None) -> dict[str, tuple[str, Secret]]:
    """The variable and its text for each setting that is set. An empty variable counts as not set.

    The environment itself is in no other frame, since tracebacks show variables and credentials are among these.
    """
    environ = os.environ if environ is None else environ
    found = {}
    for row in SETTINGS:
        variable = next((name for name in row.variables if environ.get(name, "").strip()), None)
        if variable is not None:
            found[row.name] = variable, Secret(environ[variable].strip())
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, resolved. URLs carry no trailing slash.

    Use `Settings.load` to read the environment; the constructor takes values as they are and reads nothing.
    """

    router_url: str | None = None
    workload_manager_url: str | None = None
    picod_url: str | None = None
    allow_embedded: bool = True
    namespace: str = DEFAULT_NAMESPACE
    interpreter: str = DEFAULT_INTERPRETER
    session_id: str | None = None
    eager_start: bool = True
    progress: bool = True
    log_file: str | None = None
    credentials: Credentials = field(default_factory=Credentials)
    timings: Timings = field(default_factory=Timings)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def uses_embedded_gateway(self) -> bool:
        """True when nothing says where AgentCube is, so that the gateway on this machine is used."""
        return self.router_url is None and self.workload_manager_url is None and self.picod_url is None

    def check_embedded_allowed(self) -> None:
        """Do nothing if the embedded gateway may be used.

        Raises:
            ConfigurationError: it is switched off.
        """
        if not self.allow_embedded:
            raise ConfigurationError(
                "No AgentCube is configured, and the embedded gateway is switched off "
                f"({self.origin('allow_embedded')}): set ROUTER_URL and WORKLOAD_MANAGER_URL, or "
                "AGENTCUBE_ALLOW_EMBEDDED=1 to run cells on this machine.",
                name="router_url",
            )

    def origin(self, name: str) -> str:
        """Where a setting came from: a variable's name, `argument` or `default`."""
        return self.origins.get(name, "default")

    def in_force(self) -> list[tuple[Setting, str, str]]:
        """Every setting that has a value: its row, the value as it may be shown, and where it came from."""
        found = []
        for row in SETTINGS:
            value = getattr(self._holder(row.name), row.name)
            if value is not None:
                found.append((row, row.shown(value), self.origin(row.name)))
        return found

    def _holder(self, name: str) -> Settings | Credentials | Timings:
        return next(part for part in (self, self.credentials, self.timings) if hasattr(part, name))

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables (`os.environ` unless given).

        An empty variable counts as not set.

        Raises:
            ConfigurationError: a value is bad, or values contradict each other; `name` is the variable.
        """
        given = _given(environ)
        del environ
        values = {name: _ROWS[name].parse(text, variable) for name, (variable, text) in given.items()}
        return cls()._with(values, {name: variable for name, (variable, _) in given.items()})

    @classmethod
    def load_one(cls, name: str, environ: Mapping[str, str] | None = None) -> Any:
        """One setting from the environment, whatever is wrong with the others; its default where it is bad itself.

        For what has to be known before an error can be shown to anybody: `load` will raise it.
        """
        given = _given(environ)
        if name in given:
            variable, text = given[name]
            with contextlib.suppress(ConfigurationError):
                return _ROWS[name].parse(text, variable)
        return getattr(cls()._holder(name), name)

    def override(self, **given: object) -> Settings:
        """The same settings with arguments in place of what was there; None leaves a setting as it is.

        Takes every setting by its name, and `credentials` and `timings` as a whole. A URL given as argument also takes
        the place of a PicoD URL from the environment, and the other way round.

        Raises:
            ConfigurationError: a value is bad, or there is no such setting; `name` is the parameter.
        """
        values: dict[str, Any] = {}
        for name, value in given.items():
            if value is None:
                continue
            if name in ("credentials", "timings"):
                values[name] = value
            elif name in _ROWS:
                values[name] = _ROWS[name].check(value, name)
            else:
                raise ConfigurationError(
                    f"There is no setting {name!r}; there are {', '.join(_ROWS)}.", name=name
                )
        origins = dict.fromkeys(values, "argument")
        if "picod_url" in values:
            values = {"router_url": None, "workload_manager_url": None, **values}
        elif "router_url" in values or "workload_manager_url" in values:
            values = {"picod_url": None, **values}
        return self._with(values, origins)

    def _with(self, values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
        """A copy with other values, each put where it is held."""
        own = {name: value for name, value in values.items() if hasattr(self, name)}
        for part in ("credentials", "timings"):
            held = own.get(part, getattr(self, part))
            theirs = {name: value for name, value in values.items() if hasattr(held, name)}
            if theirs:
                own[part] = replace(held, **theirs)
        return replace(self, origins={**self.origins, **origins}, **own)
