"""Sandboxes that integrations make for themselves, and that do not outlive the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..client.code_interpreter import AsyncCodeInterpreterClient
from ..sandbox import AsyncSandbox
from ..sync_sandbox import Sandbox

if TYPE_CHECKING:
    from ..sessions.keeper import Keeper


def own_sandbox(keeper: Keeper) -> Sandbox:
    """A sandbox for callers that wait, whose session does not outlive this process, however that ends. No I/O.

    A session that is lost is replaced, after an error that says so.
    """

    def new_client() -> AsyncCodeInterpreterClient:
        return AsyncCodeInterpreterClient(keeper=keeper)

    return Sandbox(new_client(), new_client=new_client)


def own_async_sandbox(keeper: Keeper) -> AsyncSandbox:
    """As `own_sandbox`, for callers with an event loop."""

    def new_client() -> AsyncCodeInterpreterClient:
        return AsyncCodeInterpreterClient(keeper=keeper)

    return AsyncSandbox(new_client(), new_client=new_client)
