"""AgentCube sandboxes from Jupyter and from Python.

The clients, `AsyncSandbox` and `Sandbox`, their results and their errors. Names are imported when they are first
used, so that importing the package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arguments import (
        NO_TIMEOUT,
    )
    from .channel.cell_result import (
        CellResult,
    )
    from .channel.cell_run import (
        CellRun,
    )
    from .channel.trust import (
        Trust,
    )
    from .client.agent_data_plane import (
        AsyncAgentRuntimeDataPlaneClient,
        Invocation,
    )
    from .client.agent_runtime import (
        AsyncAgentRuntimeClient,
    )
    from .client.code_interpreter import (
        AsyncCodeInterpreterClient,
    )
    from .client.data_plane import (
        AsyncCodeInterpreterDataPlaneClient,
    )
    from .client.session import (
        SessionLeakWarning,
    )
    from .client.sync.agent_runtime import (
        AgentRuntimeClient,
    )
    from .client.sync.code_interpreter import (
        CodeInterpreterClient,
    )
    from .config import (
        Credentials,
        Settings,
    )
    from .errors import (
        AgentCubeError,
        ArgumentTypeError,
        AuthenticationError,
        CellTimeoutError,
        ClientStateError,
        CommandExecutionError,
        CommandTimeoutError,
        ConfigurationError,
        ConnectionFailedError,
        DataPlaneError,
        Delivery,
        ExchangeError,
        GuestLostError,
        GuestStartError,
        InterpreterNotFoundError,
        InvocationError,
        LedgerCorruptError,
        LedgerError,
        LedgerLockedError,
        LedgerVersionError,
        LocalFileError,
        LocalFileNotFoundError,
        OutsideWorkspaceError,
        OverloadedError,
        PermissionDeniedError,
        RemoteFileError,
        RemoteFileNotFoundError,
        RemoteIsADirectoryError,
        RemoteNotADirectoryError,
        RemoteStorageError,
        RequestTooLargeError,
        ResponseError,
        SandboxError,
        SandboxUnreachableError,
        ServerError,
        SessionCreateError,
        SessionDeleteError,
        SessionError,
        SessionNotFoundError,
        TransferError,
    )
    from .results import (
        CommandResult,
        FileInfo,
        Health,
        Output,
        Ownership,
        SessionInfo,
        Transferred,
    )
    from .sandbox import (
        AsyncSandbox,
        SandboxState,
    )
    from .secret import (
        Secret,
    )
    from .sync_cell_run import (
        SyncCellRun,
    )
    from .sync_sandbox import (
        Sandbox,
    )
    from .timings import (
        Timings,
    )
    from .wire.auth import (
        AuthProvider,
        ServiceAccountAuth,
        TokenAuth,
        TokenFileAuth,
    )
    from .wire.control_plane import (
        AsyncControlPlaneClient,
    )
    from .wire.retry import (
        RetryPolicy,
    )
    from .wire.token_command import (
        TokenCommandAuth,
    )

__all__ = [
    "AgentCubeError",
    "AgentRuntimeClient",
    "ArgumentTypeError",
    "AsyncAgentRuntimeClient",
    "AsyncAgentRuntimeDataPlaneClient",
    "AsyncCodeInterpreterClient",
    "AsyncCodeInterpreterDataPlaneClient",
    "AsyncControlPlaneClient",
    "AsyncSandbox",
    "AuthenticationError",
    "AuthProvider",
    "CellResult",
    "CellRun",
    "CellTimeoutError",
    "ClientStateError",
    "CodeInterpreterClient",
    "CommandExecutionError",
    "CommandResult",
    "CommandTimeoutError",
    "ConfigurationError",
    "ConnectionFailedError",
    "Credentials",
    "DataPlaneError",
    "Delivery",
    "ExchangeError",
    "FileInfo",
    "GuestLostError",
    "GuestStartError",
    "Health",
    "InterpreterNotFoundError",
    "Invocation",
    "InvocationError",
    "LedgerCorruptError",
    "LedgerError",
    "LedgerLockedError",
    "LedgerVersionError",
    "load_ipython_extension",
    "LocalFileError",
    "LocalFileNotFoundError",
    "NO_TIMEOUT",
    "Output",
    "OutsideWorkspaceError",
    "OverloadedError",
    "Ownership",
    "PermissionDeniedError",
    "RemoteFileError",
    "RemoteFileNotFoundError",
    "RemoteIsADirectoryError",
    "RemoteNotADirectoryError",
    "RemoteStorageError",
    "RequestTooLargeError",
    "ResponseError",
    "RetryPolicy",
    "Sandbox",
    "SandboxError",
    "SandboxState",
    "SandboxUnreachableError",
    "Secret",
    "ServerError",
    "ServiceAccountAuth",
    "SessionCreateError",
    "SessionDeleteError",
    "SessionError",
    "SessionInfo",
    "SessionLeakWarning",
    "SessionNotFoundError",
    "Settings",
    "SyncCellRun",
    "Timings",
    "TokenAuth",
    "TokenCommandAuth",
    "TokenFileAuth",
    "TransferError",
    "Transferred",
    "Trust",
]

# Where each name lives. The type checker's imports above say the same; a test compares the two.
_HOMES = {
    "channel.cell_result": ("CellResult",),
    "channel.cell_run": ("CellRun",),
    "channel.trust": ("Trust",),
    "client.agent_data_plane": (
        "AsyncAgentRuntimeDataPlaneClient",
        "Invocation",
    ),
    "client.agent_runtime": ("AsyncAgentRuntimeClient",),
    "arguments": ("NO_TIMEOUT",),
    "wire.auth": (
        "AuthProvider",
        "ServiceAccountAuth",
        "TokenAuth",
        "TokenFileAuth",
    ),
    "client.code_interpreter": ("AsyncCodeInterpreterClient",),
    "wire.control_plane": ("AsyncControlPlaneClient",),
    "client.data_plane": ("AsyncCodeInterpreterDataPlaneClient",),
    "client.session": ("SessionLeakWarning",),
    "results": (
        "CommandResult",
        "FileInfo",
        "Health",
        "Output",
        "Ownership",
        "SessionInfo",
        "Transferred",
    ),
    "wire.retry": ("RetryPolicy",),
    "client.sync.agent_runtime": ("AgentRuntimeClient",),
    "client.sync.code_interpreter": ("CodeInterpreterClient",),
    "config": (
        "Credentials",
        "Settings",
    ),
    "errors": (
        "AgentCubeError",
        "ArgumentTypeError",
        "AuthenticationError",
        "CellTimeoutError",
        "ClientStateError",
        "CommandExecutionError",
        "CommandTimeoutError",
        "ConfigurationError",
        "ConnectionFailedError",
        "DataPlaneError",
        "Delivery",
        "ExchangeError",
        "GuestLostError",
        "GuestStartError",
        "InterpreterNotFoundError",
        "InvocationError",
        "LedgerCorruptError",
        "LedgerError",
        "LedgerLockedError",
        "LedgerVersionError",
        "LocalFileError",
        "LocalFileNotFoundError",
        "OutsideWorkspaceError",
        "OverloadedError",
        "PermissionDeniedError",
        "RemoteFileError",
        "RemoteFileNotFoundError",
        "RemoteIsADirectoryError",
        "RemoteNotADirectoryError",
        "RemoteStorageError",
        "RequestTooLargeError",
        "ResponseError",
        "SandboxError",
        "SandboxUnreachableError",
        "ServerError",
        "SessionCreateError",
        "SessionDeleteError",
        "SessionError",
        "SessionNotFoundError",
        "TransferError",
    ),
    "sandbox": (
        "AsyncSandbox",
        "SandboxState",
    ),
    "sync_cell_run": ("SyncCellRun",),
    "secret": ("Secret",),
    "sync_sandbox": ("Sandbox",),
    "timings": ("Timings",),
    "wire.token_command": ("TokenCommandAuth",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def load_ipython_extension(ipython: Any) -> None:
    """Add `%sandbox` and `%%sandbox` to an IPython; `%load_ext agentcube_kernel` calls this."""
    importlib.import_module(f"{__name__}.magics").load_ipython_extension(ipython)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("agentcube-kernel")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
