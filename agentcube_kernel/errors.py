"""Everything this package raises on purpose.

::

    AgentCubeError                        .session_id
    ├── ConfigurationError (ValueError)   .name
    │   ├── ArgumentTypeError (TypeError)
    │   └── SandboxNameError              no sandbox of that name, or it cannot be given
    ├── ExchangeError                     .delivery  .status  .url  .transient
    │   ├── AuthenticationError           401, or no token could be had
    │   ├── PermissionDeniedError         403
    │   ├── ConnectionFailedError         refused, DNS, TLS, reset, no answer in time
    │   ├── OverloadedError               429
    │   ├── ServerError                   5xx, and what may or may not have reached the sandbox
    │   ├── ResponseError                 HTML, wrong shape, truncated, redirect
    │   ├── SessionError
    │   │   ├── SessionCreateError
    │   │   │   └── InterpreterNotFoundError   .kind  .name  .namespace
    │   │   ├── SessionNotFoundError      unknown, expired or deleted
    │   │   └── SessionDeleteError
    │   └── DataPlaneError                the sandbox itself said no
    │       ├── RequestTooLargeError      413
    │       ├── InvocationError           .content  the agent answered with an error
    │       └── RemoteFileError           .path
    │           ├── RemoteFileNotFoundError (FileNotFoundError)
    │           ├── RemoteIsADirectoryError (IsADirectoryError)
    │           ├── RemoteNotADirectoryError (NotADirectoryError)
    │           ├── OutsideWorkspaceError
    │           ├── RemoteStorageError    full, read-only, or not permitted
    │           └── TransferError         .transferred  checksum, or the file changed meanwhile
    ├── LocalFileError (OSError)          .path  on the disk of this machine
    │   └── LocalFileNotFoundError (FileNotFoundError)
    ├── ClientStateError (RuntimeError)   used before open, after close, or on another event loop
    ├── CommandExecutionError             .exit_code  .stdout  .stderr  .command
    │   └── CommandTimeoutError (TimeoutError)  .timeout
    ├── LedgerError                       .path  the local record of owned sessions
    │   ├── LedgerLockedError
    │   ├── LedgerCorruptError
    │   └── LedgerVersionError            written by a newer version
    └── SandboxError                      the stateful guest in the session
        ├── GuestStartError
        ├── GuestLostError
        ├── SandboxUnreachableError
        └── CellTimeoutError (TimeoutError)  .timeout  .started  .events

A message says what happened and what to do; everything a program may want to decide on is an attribute.
No error carries a credential, and no type of the HTTP library ever shows.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Delivery(Enum):
    """What is known about whether a failed request reached the sandbox."""

    NEVER = "never"
    """It did not; sending it again cannot do anything twice."""
    UNKNOWN = "unknown"
    """It may have; only an idempotent request may be sent again."""
    DELIVERED = "delivered"
    """It did; what failed is the answer, or the answer is a refusal."""


class AgentCubeError(Exception):
    """Base of everything this package raises on purpose."""

    def __init__(self, message: str, *, session_id: str | None = None) -> None:
        super().__init__(message)
        self.session_id = session_id

    @property
    def message(self) -> str:
        """What happened and what to do, as one text."""
        return str(self)


class ConfigurationError(AgentCubeError, ValueError):
    """A setting or an argument is missing or has a bad value; `name` says which."""

    def __init__(self, message: str, *, name: str | None = None, session_id: str | None = None) -> None:
        super().__init__(message, session_id=session_id)
        self.name = name


class ArgumentTypeError(ConfigurationError, TypeError):
    """An argument has a type that is not accepted; `name` says which argument."""


class SandboxNameError(ConfigurationError):
    """A notebook has no sandbox of that name, or a new one cannot get it."""


class ExchangeError(AgentCubeError):
    """One HTTP exchange with AgentCube failed.

    `status` is the HTTP status, or None when there was no answer. `transient` is True when the same request
    may succeed a little later; whether it may be *sent* again depends on `delivery`.
    """

    def __init__(
        self,
        message: str,
        *,
        session_id: str | None = None,
        status: int | None = None,
        delivery: Delivery = Delivery.UNKNOWN,
        url: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.status = status
        self.delivery = delivery
        self.url = url
        self.transient = transient


class AuthenticationError(ExchangeError):
    """AgentCube does not accept the credential (401), or no token could be obtained for it."""


class PermissionDeniedError(ExchangeError):
    """The credential is valid but may not do this (403)."""


class ConnectionFailedError(ExchangeError):
    """No answer: refused, name not found, TLS failure, connection lost, or nothing came in time."""


class OverloadedError(ExchangeError):
    """The Router has too many requests in flight (429); nothing was run.

    `retry_after` is the number of seconds the server asked to wait, or None.
    """

    retry_after: float | None = None


class ServerError(ExchangeError):
    """AgentCube or something between failed (5xx)."""


class ResponseError(ExchangeError):
    """The answer is not what AgentCube sends: HTML, a redirect, a wrong shape, or cut short."""


class SessionError(ExchangeError):
    """A session could not be created, found or deleted."""


class SessionCreateError(SessionError):
    """A session could not be created."""


class InterpreterNotFoundError(SessionCreateError):
    """The cluster has no CodeInterpreter or AgentRuntime of that name in that namespace."""

    def __init__(self, message: str, *, kind: str, name: str, namespace: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.kind = kind
        self.name = name
        self.namespace = namespace

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), str(self), dict(self.__dict__))


class SessionNotFoundError(SessionError):
    """The session does not exist, or does not exist any more."""


class SessionDeleteError(SessionError):
    """A session could not be deleted and may still be running; `session_id` names it."""


class DataPlaneError(ExchangeError):
    """The sandbox received the request and refused it or failed at it."""


class RequestTooLargeError(DataPlaneError):
    """The request is larger than the sandbox accepts (413)."""


class InvocationError(DataPlaneError):
    """An agent answered with an error status; `content` is the body of its answer."""

    def __init__(self, message: str, *, content: bytes = b"", **details: Any) -> None:
        super().__init__(message, **details)
        self.content = content


class RemoteFileError(DataPlaneError):
    """An operation on a file of the sandbox failed; `path` is the path as given."""

    def __init__(self, message: str, *, path: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), str(self), dict(self.__dict__))


class RemoteFileNotFoundError(RemoteFileError, FileNotFoundError):
    """The sandbox has no such file or folder."""


class RemoteIsADirectoryError(RemoteFileError, IsADirectoryError):
    """A file was expected in the sandbox and a folder is there."""


class RemoteNotADirectoryError(RemoteFileError, NotADirectoryError):
    """A folder was expected in the sandbox and something else is there."""


class OutsideWorkspaceError(RemoteFileError):
    """The path leads out of the sandbox's workspace."""


class RemoteStorageError(RemoteFileError):
    """The sandbox cannot store the file: disk full, read-only, or no permission."""


class TransferError(RemoteFileError):
    """A transfer could not be completed; nothing was left under the final name.

    `transferred` is the number of bytes that had arrived.
    """

    def __init__(self, message: str, *, path: str, transferred: int = 0, **details: Any) -> None:
        super().__init__(message, path=path, **details)
        self.transferred = transferred


class LocalFileError(AgentCubeError, OSError):
    """A file on this machine cannot be read or written; `path` names it."""

    def __init__(self, message: str, *, path: str, session_id: str | None = None) -> None:
        super().__init__(message, session_id=session_id)
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), str(self), dict(self.__dict__))


class LocalFileNotFoundError(LocalFileError, FileNotFoundError):
    """There is no such file on this machine."""


class ClientStateError(AgentCubeError, RuntimeError):
    """A client was used before it was open, after it was closed, or on an event loop that is not its own."""


class CommandExecutionError(AgentCubeError):
    """A command ended with an exit code other than 0. Its output is kept whole.

    `exit_code` is -1 when a signal killed the command.
    """

    def __init__(
        self,
        exit_code: int,
        stderr: str,
        command: str | Sequence[str] | None = None,
        *,
        stdout: str = "",
        session_id: str | None = None,
    ) -> None:
        ended = "was killed by a signal" if exit_code == -1 else f"failed (exit {exit_code})"
        tail = _tail(stderr) or _tail(stdout)
        super().__init__(f"Command {ended}: {tail}" if tail else f"Command {ended}", session_id=session_id)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), str(self), dict(self.__dict__))


class CommandTimeoutError(CommandExecutionError, TimeoutError):
    """A command did not end within its `timeout` (seconds) and was stopped; its output so far is kept."""

    def __init__(
        self,
        timeout: float,
        command: str | Sequence[str] | None = None,
        *,
        stdout: str = "",
        stderr: str = "",
        session_id: str | None = None,
    ) -> None:
        super().__init__(124, stderr, command, stdout=stdout, session_id=session_id)
        self.args = (
            f"The command did not end within {timeout:g} s and was stopped. Give a longer timeout=, or "
            "NO_TIMEOUT for no limit.",
        )
        self.timeout = timeout


class LedgerError(AgentCubeError):
    """The ledger of owned sessions (the file `path`) could not be read or written.

    Nothing else is affected. Who goes on without it should say so: what is made meanwhile is not cleaned up
    after a crash.
    """

    def __init__(self, message: str, *, path: str, session_id: str | None = None) -> None:
        super().__init__(message, session_id=session_id)
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), str(self), dict(self.__dict__))


class LedgerLockedError(LedgerError):
    """Another process held the ledger for longer than we were ready to wait."""


class LedgerCorruptError(LedgerError):
    """The ledger's file is damaged or is not a ledger."""


class LedgerVersionError(LedgerError):
    """The ledger was written by a newer version of agentcube-kernel."""


class SandboxError(AgentCubeError):
    """The stateful interpreter in a session could not do what was asked."""


class GuestStartError(SandboxError):
    """No interpreter could be started in the sandbox."""


class GuestLostError(SandboxError):
    """The interpreter in the sandbox is gone, and its variables with it."""


class SandboxUnreachableError(SandboxError):
    """The sandbox could not be reached for too long; what is in it is probably still there."""


class CellTimeoutError(SandboxError, TimeoutError):
    """A cell did not begin or end in time.

    `timeout` is the limit in seconds, `started` whether the cell had begun, `events` what it had put out until then.
    """

    def __init__(
        self,
        message: str,
        *,
        timeout: float,
        started: bool = True,
        events: tuple[Any, ...] = (),
        session_id: str | None = None,
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.timeout = timeout
        self.started = started
        self.events = events

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), str(self), dict(self.__dict__))


def _tail(text: str, limit: int = 2000) -> str:
    text = text.strip()
    return text if len(text) <= limit else "… " + text[-limit:]


def restored(cls: type[AgentCubeError], message: str, state: dict[str, Any]) -> AgentCubeError:
    """Rebuild an error whose constructor needs more than its message (pickle, copy)."""
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error
