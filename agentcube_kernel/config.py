"""Where every setting comes from, and from where it came.

A setting is taken from the first of: an argument, an environment variable, the default. `Settings.origin` tells
which one it was, so that an error message or a `config` command can say it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import ArgumentTypeError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_NAMESPACE = "default"
DEFAULT_INTERPRETER = "my-interpreter"
SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path, no secret

# The first name of each row is AgentCube's own and wins over its alias.
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "router_url": ("ROUTER_URL", "AGENTCUBE_ROUTER_URL"),
    "workload_manager_url": ("WORKLOAD_MANAGER_URL", "AGENTCUBE_WORKLOAD_MANAGER_URL"),
    "picod_url": ("AGENTCUBE_PICOD_URL",),
    "namespace": ("AGENTCUBE_NAMESPACE",),
    "interpreter": ("AGENTCUBE_INTERPRETER",),
    "session_id": ("AGENTCUBE_SESSION_ID",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where a bearer token is to come from. Secrets are kept out of the repr."""

    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    oauth_token_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret: str | None = field(default=None, repr=False)
    oauth_scope: str | None = None
    service_account_file: str = SERVICE_ACCOUNT_TOKEN

    @property
    def has_oauth(self) -> bool:
        """True when OAuth2 client credentials are configured."""
        return self.oauth_token_url is not None

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Credentials:
        """Read the credentials' variables.

        Raises:
            ConfigurationError: some but not all of the OAuth variables are set, or a URL is bad.
        """
        oauth = {
            name: environ.get(name) or None
            for name in (
                "AGENTCUBE_OAUTH_TOKEN_URL",
                "AGENTCUBE_OAUTH_CLIENT_ID",
                "AGENTCUBE_OAUTH_CLIENT_SECRET",
            )
        }
        missing = [name for name, value in oauth.items() if value is None]
        if missing and len(missing) < len(oauth):
            raise ConfigurationError(
                f"OAuth2 client credentials are incomplete: {' and '.join(missing)} must be set too.",
                name=missing[0],
            )
        token_url = oauth["AGENTCUBE_OAUTH_TOKEN_URL"]
        return cls(
            token=(environ.get("AGENTCUBE_TOKEN") or "").strip() or None,
            token_file=environ.get("AGENTCUBE_TOKEN_FILE") or None,
            oauth_token_url=token_url and check_url(token_url, name="AGENTCUBE_OAUTH_TOKEN_URL"),
            oauth_client_id=oauth["AGENTCUBE_OAUTH_CLIENT_ID"],
            oauth_client_secret=oauth["AGENTCUBE_OAUTH_CLIENT_SECRET"],
            oauth_scope=environ.get("AGENTCUBE_OAUTH_SCOPE") or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of one client, resolved. URLs carry no trailing slash.

    Use `Settings.load` to read the environment; the constructor takes values as they are.
    """

    router_url: str | None = None
    workload_manager_url: str | None = None
    picod_url: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    interpreter: str = DEFAULT_INTERPRETER
    session_id: str | None = None
    credentials: Credentials = field(default_factory=Credentials)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def uses_embedded_gateway(self) -> bool:
        """True when nothing says where AgentCube is, so that the gateway on this machine is used."""
        return self.router_url is None and self.workload_manager_url is None and self.picod_url is None

    def origin(self, name: str) -> str:
        """Where a setting came from: a variable's name, ``argument`` or ``default``."""
        return self.origins.get(name, "default")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables (`os.environ` unless given).

        An empty variable counts as not set.

        Raises:
            ConfigurationError: a value is bad, or values contradict each other; `name` is the variable.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, str] = {}
        origins: dict[str, str] = {}
        for setting, names in VARIABLES.items():
            variable = next((name for name in names if environ.get(name, "").strip()), None)
            if variable is None:
                continue
            value = environ[variable].strip()
            values[setting] = check_url(value, name=variable) if setting.endswith("_url") else value
            origins[setting] = variable
        for setting in ("namespace", "interpreter", "session_id"):
            if setting in values:
                check_segment(values[setting], name=origins[setting])
        return cls(
            router_url=values.get("router_url"),
            workload_manager_url=values.get("workload_manager_url"),
            picod_url=values.get("picod_url"),
            namespace=values.get("namespace", DEFAULT_NAMESPACE),
            interpreter=values.get("interpreter", DEFAULT_INTERPRETER),
            session_id=values.get("session_id"),
            credentials=Credentials.load(environ),
            origins=origins,
        )

    def override(
        self,
        *,
        router_url: str | None = None,
        workload_manager_url: str | None = None,
        picod_url: str | None = None,
        namespace: str | None = None,
        interpreter: str | None = None,
        session_id: str | None = None,
    ) -> Settings:
        """The same settings with arguments in place of what was there; None leaves a setting as it is.

        A URL given as argument also takes the place of a PicoD URL from the environment, and the other way round.

        Raises:
            ConfigurationError: a value is bad; `name` is the parameter.
        """
        given: dict[str, str] = {}
        for name, url in (
            ("router_url", router_url),
            ("workload_manager_url", workload_manager_url),
            ("picod_url", picod_url),
        ):
            if url is not None:
                given[name] = check_url(url, name=name)
        for name, segment in (
            ("namespace", namespace),
            ("interpreter", interpreter),
            ("session_id", session_id),
        ):
            if segment is not None:
                given[name] = check_segment(segment, name=name)
        origins = {**self.origins, **dict.fromkeys(given, "argument")}
        changes: dict[str, str | None] = dict(given)
        if "picod_url" in given:
            changes = {"router_url": None, "workload_manager_url": None, **changes}
        elif "router_url" in given or "workload_manager_url" in given:
            changes = {"picod_url": None, **changes}
        return replace(self, origins=origins, **changes)  # type: ignore[arg-type]


def check_url(value: object, *, name: str) -> str:
    """A base URL without its trailing slash.

    Raises:
        ConfigurationError: it is not an http(s) URL with a host, or carries a user, a query or a fragment.
    """
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{name} must be a URL as str, not {type(value).__name__}.", name=name)
    try:
        parts = urlsplit(value.strip())
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{name} is not a valid URL: {error}.", name=name) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"{name} must not carry a user or password; give the credential as a token instead.", name=name
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"{name} must be an http:// or https:// URL such as http://router.example:8080, not {value!r}.",
            name=name,
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(f"{name} must be a base URL without '?' and '#', not {value!r}.", name=name)
    return value.strip().rstrip("/")


def check_segment(value: object, *, name: str) -> str:
    """A name that becomes one segment of a URL's path.

    Raises:
        ConfigurationError: it is empty, contains ``/``, white space or control characters, or is ``.`` or ``..``.
    """
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{name} must be a str, not {type(value).__name__}.", name=name)
    if not value or value in (".", "..") or not value.isprintable() or any(c in "/\\ " for c in value):
        raise ConfigurationError(
            f"{name} must be a plain name without '/' and spaces, not {value!r}.", name=name
        )
    return value
