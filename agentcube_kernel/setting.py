"""One setting: which variables it is read from, and which values it takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .arguments import check_segment, check_text, check_url
from .errors import ArgumentTypeError, ConfigurationError
from .secret import Secret
from .timings import check_waiting_time

_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Kind(Enum):
    """What the value of a setting is; each kind's own value is what stands for it in usage messages."""

    URL = "URL"
    NAME = "NAME"
    PATH = "PATH"
    TEXT = "TEXT"
    COMMAND = "COMMAND"
    """A command line, split into arguments as a shell would; only its program is ever shown."""
    SECRET = "SECRET"  # noqa: S105 - not one
    SECONDS = "SECONDS"
    SWITCH = "0|1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table. The first of its variables that is set counts."""

    name: str
    variables: tuple[str, ...]
    kind: Kind
    help: str
    default: str = ""
    """The default in words, for the documentation."""
    option: bool = False
    """Whether `agentcube-kernel install` has an option for it."""
    least: float = 0.0
    most: float = 0.0

    @property
    def flag(self) -> str:
        """The option's name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def parse(self, given: str | Secret, source: str) -> Any:
        """The value that a text stands for, checked. One that is to stay hidden is given as `Secret`.

        Raises:
            ConfigurationError: the text stands for no allowed value; the message names `source`.
        """
        if self.kind is Kind.SECRET:
            return Secret.of(given)
        text = given.reveal() if isinstance(given, Secret) else given
        value: object = text
        if self.kind is Kind.SECONDS:
            try:
                value = float(text)
            except ValueError:
                value = text  # which the check refuses by the setting's name
        elif self.kind is Kind.SWITCH:
            if text.lower() not in _ON + _OFF:
                raise ConfigurationError(
                    f"{source} must be 1 or 0 (or true, false, yes, no, on, off), not {text!r}.", name=source
                )
            value = text.lower() in _ON
        return self.check(value, source)

    def check(self, value: object, source: str) -> Any:
        """The value as it is kept, checked.

        Raises:
            ConfigurationError: wrong type (a `TypeError` too) or value; the message names `source` and what is allowed.
        """
        match self.kind:
            case Kind.URL:
                return check_url(value, name=source)
            case Kind.NAME:
                return check_segment(value, name=source)
            case Kind.SECRET if isinstance(value, str | Secret):
                return Secret.of(value)
            case Kind.SECRET:
                raise ArgumentTypeError(f"{source} must be a str, not {type(value).__name__}.", name=source)
            case Kind.SECONDS:
                return check_waiting_time(value, source, self.least, self.most)
            case Kind.SWITCH if not isinstance(value, bool):
                raise ArgumentTypeError(
                    f"{source} must be True or False, not {type(value).__name__}.", name=source
                )
            case Kind.SWITCH:
                return value
            case Kind.PATH if isinstance(value, os.PathLike):
                return os.fspath(value)
        return check_text(value, name=source)

    def shown(self, value: object) -> str:
        """A value as it may be shown."""
        if self.kind is Kind.SECONDS:
            return f"{value:g} s"
        if self.kind is Kind.SWITCH:
            return "on" if value else "off"
        if self.kind is Kind.COMMAND:
            return f"{str(value).split()[0]} …" if " " in str(value) else str(value)
        return str(value)
