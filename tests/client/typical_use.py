"""What users write, for type checkers; it is checked and never run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, assert_type

from agentcube_kernel import (
    NO_TIMEOUT,
    AgentCubeError,
    AgentRuntimeClient,
    AsyncAgentRuntimeClient,
    AsyncCodeInterpreterClient,
    AsyncCodeInterpreterDataPlaneClient,
    AsyncControlPlaneClient,
    AsyncSandbox,
    CellResult,
    CodeInterpreterClient,
    CommandExecutionError,
    CommandResult,
    Delivery,
    ExchangeError,
    FileInfo,
    Ownership,
    RetryPolicy,
    Sandbox,
    SessionInfo,
    Settings,
    Transferred,
)


class Vault:
    """A credential provider of the user's own."""

    async def get_token(self) -> str:
        return "token"


def remember(info: SessionInfo) -> None:
    assert_type(info.session_id, str)
    assert info.ownership is Ownership.OWNED


async def code_interpreter() -> None:
    async with AsyncCodeInterpreterClient(
        "my-interpreter", ttl=60, auth=Vault(), on_session=remember
    ) as client:
        assert_type(client, AsyncCodeInterpreterClient)
        assert_type(await client.run_code("python", "print(1)", timeout=5), str)
        assert_type(await client.execute_command("ls", NO_TIMEOUT, env={"A": "b"}), str)
        result = await client.execute_command_result(["ls", "-l"], working_dir="data")
        assert_type(result, CommandResult)
        assert_type(result.exit_code, int)
        assert_type(await client.list_files(), list[FileInfo])
        assert_type(await client.upload_file("a", "b", progress=lambda done, total: None), Transferred)
        assert_type(await client.read_file("b"), bytes)
        async with client.stream_command("make") as stream:
            async for output in stream:
                assert_type(output.text, str)
            assert_type(stream.exit_code, int | None)
    created = await AsyncCodeInterpreterClient.create(settings=Settings.load())
    assert_type(created, AsyncCodeInterpreterClient)
    async with AsyncCodeInterpreterClient.create(session_id="x") as attached:
        assert_type(attached.session_id, str | None)
        assert_type(attached.detach(), str)


async def low_level() -> None:
    async with AsyncControlPlaneClient("http://manager") as control:
        session_id = await control.create_session("i", metadata={"a": 1})
        assert_type(await control.delete_session(session_id), bool)
    async with AsyncCodeInterpreterDataPlaneClient(session_id, "http://router", "default", "i") as plane:
        try:
            await plane.execute(["true"], retry=RetryPolicy.IDEMPOTENT.with_patience(3))
        except CommandExecutionError as error:
            assert_type(error.exit_code, int)
        except ExchangeError as error:
            assert_type(error.delivery, Delivery)
        except AgentCubeError as error:
            assert_type(error.session_id, str | None)


async def agents() -> AsyncIterator[str]:
    async with AsyncAgentRuntimeClient("agent", workload_manager_url="http://manager") as agent:
        assert_type(await agent.invoke({"prompt": "x"}, 30, "chat"), Any)
        async with agent.invoke_stream({"prompt": "x"}) as stream:
            async for text in stream:
                yield text


async def cells() -> None:
    async with AsyncSandbox() as sandbox:
        assert_type(await sandbox.run_cell("1 + 1"), CellResult)
        async for event in sandbox.stream_cell("print(1)"):
            assert_type(event.type, str)


def synchronous() -> None:
    with CodeInterpreterClient(router_url="http://router") as client:
        assert_type(client, CodeInterpreterClient)
        assert_type(client.run_code("python", "1"), str)
        assert_type(client.execute_command_result("ls"), CommandResult)
        with client.stream_command("ls") as stream:
            for output in stream:
                assert_type(output.text, str)
    with AgentRuntimeClient("agent") as agent:
        assert_type(agent.invoke({}), Any)
        for text in agent.invoke_stream({}):
            assert_type(text, str)
    with Sandbox() as sandbox:
        assert_type(sandbox.run_cell("1"), CellResult)


def wrong() -> None:
    client = CodeInterpreterClient()
    client.run_code("python", "1", timeout="30s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.nonesuch()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    AsyncCodeInterpreterClient.create(nmae="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def main() -> None:
    await asyncio.gather(code_interpreter(), low_level(), cells())
