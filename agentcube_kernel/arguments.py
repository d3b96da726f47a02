"""Arguments checked at the edge: the wrong type or value is named before anything is sent."""

from __future__ import annotations

import math
import os
import posixpath
import shlex
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from .errors import ArgumentTypeError, ConfigurationError, OutsideWorkspaceError

NO_TIMEOUT = math.inf
"""Give this as `timeout` for a call that may take for ever."""

# The longest duration that is sent; Go's time.Duration ends at 292 years.
_LONGEST = 10 * 365 * 86400.0
# One argument of a process may have 128 KiB on Linux, with its closing zero byte.
MAX_ARGUMENT_BYTES = 128 * 1024 - 1


def check_timeout(value: object, *, name: str = "timeout", default: float) -> float:
    """Seconds as float; None means `default`, `NO_TIMEOUT` (infinity) means no limit.

    Raises:
        ConfigurationError: not a number (a `TypeError` too), not greater than 0, or not a number at all (NaN).
    """
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(
            f"{name} must be seconds as a number, or None for the default, not {type(value).__name__} {value!r}.",
            name=name,
        )
    if math.isnan(value) or value <= 0:
        raise ConfigurationError(
            f"{name} must be greater than 0 seconds, not {value!r}. Use NO_TIMEOUT for no limit.", name=name
        )
    return float(value)


def check_count(value: object, *, name: str) -> int:
    """A whole number from 1 up.

    Raises:
        ConfigurationError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{name} must be a whole number, not {type(value).__name__}.", name=name)
    if value < 1:
        raise ConfigurationError(f"{name} must be at least 1, not {value}.", name=name)
    return value


def go_duration(seconds: float) -> str:
    """Seconds as Go writes a duration, which is what PicoD reads."""
    return f"{max(min(seconds, _LONGEST), 0.001):.3f}s"


def check_command(command: object, *, name: str = "command") -> list[str]:
    """A command as a list of arguments; a string is split as a shell would, but no shell runs it.

    Raises:
        ConfigurationError: empty, with a zero byte, or with quotes that do not close.
    """
    if isinstance(command, str):
        try:
            parts = shlex.split(command)
        except ValueError as error:
            raise ConfigurationError(f"{name} cannot be split into arguments: {error}.", name=name) from None
    elif isinstance(command, Sequence) and not isinstance(command, (bytes, bytearray, memoryview)):
        parts = list(command)
    else:
        raise ArgumentTypeError(
            f"{name} must be a str or a sequence of str, not {type(command).__name__}.", name=name
        )
    for part in parts:
        if not isinstance(part, str):
            raise ArgumentTypeError(f"{name} must consist of str, not {type(part).__name__}.", name=name)
        if "\0" in part:
            raise ConfigurationError(f"{name} must not contain a zero byte.", name=name)
    if not parts or not parts[0]:
        raise ConfigurationError(f"{name} must not be empty.", name=name)
    return parts


def check_env(env: object, *, name: str = "env") -> dict[str, str]:
    """Environment variables for a command.

    Raises:
        ConfigurationError: a name or value that no environment can hold.
    """
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise ArgumentTypeError(
            f"{name} must be a mapping of str to str, not {type(env).__name__}.", name=name
        )
    for key, value in env.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ArgumentTypeError(
                f"{name} must map str to str, not {key!r} to {type(value).__name__}.", name=name
            )
        if not key or "=" in key or "\0" in key or "\0" in value:
            raise ConfigurationError(f"{name} has an entry that no environment can hold: {key!r}.", name=name)
    return dict(env)


def check_text(value: object, *, name: str) -> str:
    """A str that can be sent as UTF-8.

    Raises:
        ConfigurationError: another type, or a lone surrogate.
    """
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{name} must be a str, not {type(value).__name__}.", name=name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{name} cannot be encoded as UTF-8: {error.reason}.", name=name) from None
    return value


def remote_path(value: object, *, name: str = "remote_path", session_id: str | None = None) -> str:
    """A path in the workspace, relative to it and normalised; `.` is the workspace itself.

    An absolute path counts from the workspace, as PicoD has it.

    Raises:
        OutsideWorkspaceError: it leads out of the workspace.
        ConfigurationError: another type, empty, or with a zero byte.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value).replace(os.sep, "/")
    text = check_text(value, name=name)
    if not text or "\0" in text:
        raise ConfigurationError(f"{name} must be a path, not {text!r}.", name=name)
    normal = posixpath.normpath(text.lstrip("/") or ".")
    if normal == ".." or normal.startswith("../"):
        raise OutsideWorkspaceError(
            f"{name} {text!r} leads out of the sandbox's workspace. Give a path inside it.",
            path=text,
            session_id=session_id,
        )
    return normal


def remote_file_path(value: object, *, name: str = "remote_path", session_id: str | None = None) -> str:
    """A path as `remote_path`, of a file: not the workspace itself, and without a slash at its end.

    Raises:
        ConfigurationError: it can only name a folder.
    """
    normal = remote_path(value, name=name, session_id=session_id)
    if normal == "." or str(value).endswith("/"):
        raise ConfigurationError(f"{name} must name a file, not the folder {str(value)!r}.", name=name)
    return normal


def local_path(value: object, *, name: str = "local_path") -> str:
    """A path on this machine, with `~` expanded.

    Raises:
        ConfigurationError: another type, empty, or with a zero byte.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise ArgumentTypeError(f"{name} must be a str or a path, not {type(value).__name__}.", name=name)
    text = os.fspath(value)
    if not isinstance(text, str):
        raise ArgumentTypeError(f"{name} must be a str or a path, not {type(text).__name__}.", name=name)
    if not text or "\0" in text:
        raise ConfigurationError(f"{name} must be a path, not {text!r}.", name=name)
    return os.path.expanduser(text)


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
        ConfigurationError: it is empty, contains `/`, white space or control characters, or is `.` or `..`.
    """
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{name} must be a str, not {type(value).__name__}.", name=name)
    if not value or value in (".", "..") or not value.isprintable() or any(c in "/\\ " for c in value):
        raise ConfigurationError(
            f"{name} must be a plain name without '/' and spaces, not {value!r}.", name=name
        )
    return value
