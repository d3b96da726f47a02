"""Settings of the embedded gateway, and where each comes from."""

from __future__ import annotations

import math
import secrets
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SESSION_TIMEOUT = 15 * 60.0
DEFAULT_MAX_SESSION_DURATION = 8 * 3600.0
DEFAULT_IDLE_EXIT = 3600.0
MAX_BODY = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """What a gateway enforces. Durations are seconds.

    `session_timeout` and `max_session_duration` default to those of AgentCube's custom resources: a
    session ends after 15 idle minutes, and after 8 hours in any case.

    `interpreters` and `runtimes` name what may be created (`name` or `namespace/name`); None allows
    every name that Kubernetes would accept.

    `session_id_authorises` lets a request without an `Authorization` header use an existing session whose
    id it knows, as AgentCube's Router without OIDC does. The stock SDK depends on it: it sends its token to
    the WorkloadManager only. The shared background gateway, whose clients all send the token, is started
    without it.
    """

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    session_timeout: float = DEFAULT_SESSION_TIMEOUT
    max_session_duration: float = DEFAULT_MAX_SESSION_DURATION
    idle_exit: float | None = None
    interpreters: frozenset[str] | None = None
    runtimes: frozenset[str] | None = None
    runtime_command: tuple[str, ...] = ()
    legacy_not_found: bool = False
    session_id_authorises: bool = False
    bubblewrap: bool | None = None
    max_body: int = MAX_BODY
    max_output: int = 512 << 20
    max_concurrent: int = 1000
    upload_timeout: float = 30.0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], **overrides: object) -> GatewayConfig:
        """Settings from `AGENTCUBE_GATEWAY_*` variables; `overrides` win.

        Raises ValueError, naming the variable, for a value that cannot be used.
        """
        values: dict[str, object] = {
            "session_timeout": _seconds(
                environ, "AGENTCUBE_GATEWAY_SESSION_TIMEOUT", DEFAULT_SESSION_TIMEOUT
            ),
            "max_session_duration": _seconds(
                environ, "AGENTCUBE_GATEWAY_MAX_SESSION_DURATION", DEFAULT_MAX_SESSION_DURATION
            ),
            "interpreters": _names(environ, "AGENTCUBE_GATEWAY_INTERPRETERS"),
            "runtimes": _names(environ, "AGENTCUBE_GATEWAY_RUNTIMES"),
            "runtime_command": _command(environ, "AGENTCUBE_GATEWAY_RUNTIME_COMMAND"),
            "legacy_not_found": _switch(environ, "AGENTCUBE_GATEWAY_LEGACY_NOT_FOUND") or False,
            "bubblewrap": _switch(environ, "AGENTCUBE_GATEWAY_BUBBLEWRAP"),
        }
        values.update(overrides)
        return cls(**values)  # type: ignore[arg-type]


def idle_exit_from(environ: Mapping[str, str]) -> float:
    """Seconds without a request after which a gateway started on demand ends (`AGENTCUBE_GATEWAY_IDLE`)."""
    return _seconds(environ, "AGENTCUBE_GATEWAY_IDLE", DEFAULT_IDLE_EXIT)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number of seconds, not {text!r}")
    return value


def _names(environ: Mapping[str, str], name: str) -> frozenset[str] | None:
    text = environ.get(name, "").strip()
    return frozenset(part.strip() for part in text.split(",") if part.strip()) if text else None


def _command(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(environ.get(name, "")))
    except ValueError as exc:
        raise ValueError(f"{name} is not a command line: {exc}") from exc


def _switch(environ: Mapping[str, str], name: str) -> bool | None:
    text = environ.get(name, "").strip().lower()
    if not text or text == "auto":
        return None
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise ValueError(f"{name} must be 1, 0 or auto, not {text!r}")
