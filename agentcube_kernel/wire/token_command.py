"""A token from a command's output, as kubectl's plug-ins give theirs."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import os
import shlex
import subprocess

from ..errors import AuthenticationError, ConfigurationError, Delivery
from ..secret import Secret
from .tokens import FetchedToken, check_token


class TokenCommandAuth(FetchedToken):
    """A token that a command prints: alone, or as the `ExecCredential` of a kubectl plug-in.

    `command` is split into arguments as a shell would, but no shell runs it. It gets no input and up to `timeout`
    seconds. Its token is used until it expires (`status.expirationTimestamp`), or until a server refuses it.

    Raises:
        ConfigurationError: the command is empty or its quotes do not close.
    """

    def __init__(self, command: str, *, timeout: float = 30.0) -> None:
        super().__init__()
        try:
            self._command = shlex.split(command, posix=os.name == "posix")
        except ValueError as error:
            raise ConfigurationError(
                f"token_command cannot be split into arguments: {error}.", name="token_command"
            ) from None
        if not self._command:
            raise ConfigurationError("token_command must not be empty.", name="token_command")
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"TokenCommandAuth({self._command[0]!r})"

    async def _fetch(self) -> tuple[Secret, float]:
        problem, output = await asyncio.to_thread(self._run)
        if problem is None:
            try:
                return _token_and_lifetime(output.reveal())
            except (ValueError, TypeError, KeyError, RecursionError):
                problem = (
                    "printed no usable token: expected is one line with a token, or an ExecCredential as JSON"
                )
        # What the command said is never repeated: the token may be in it.
        raise AuthenticationError(
            f"No token: the command {self._command[0]!r} {problem}. Run it by hand to see what is wrong; "
            "AGENTCUBE_TOKEN_COMMAND sets it.",
            delivery=Delivery.NEVER,
        )

    def _run(self) -> tuple[str | None, Secret]:
        """What went wrong, if anything did, and the output."""
        try:
            done = subprocess.run(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=self._timeout,
            )
        except subprocess.TimeoutExpired:
            return f"did not end within {self._timeout:g} s", Secret("")
        except OSError as error:
            return f"could not be started ({error.strerror or type(error).__name__})", Secret("")
        if done.returncode:
            return f"ended with exit code {done.returncode}", Secret("")
        return None, Secret(done.stdout.decode("utf-8", "replace").strip())


def _token_and_lifetime(output: str) -> tuple[Secret, float]:
    """The token in a command's output and its lifetime in seconds. Raises ValueError, TypeError or KeyError."""
    if not output.startswith("{"):
        return check_token(output, "token"), math.inf
    status = json.loads(output)["status"]
    token, expires = check_token(status["token"], "token"), status.get("expirationTimestamp")
    if expires is None:
        return token, math.inf
    left = datetime.datetime.fromisoformat(expires) - datetime.datetime.now(datetime.UTC)
    if left.total_seconds() <= 0:
        raise ValueError("the token has expired")
    return token, left.total_seconds()
