"""Opening, attaching, giving up and deleting sessions."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from agentcube_kernel import (
    AsyncCodeInterpreterClient,
    AsyncControlPlaneClient,
    ClientStateError,
    ConnectionFailedError,
    Delivery,
    InterpreterNotFoundError,
    Ownership,
    SessionDeleteError,
    SessionError,
    SessionInfo,
    SessionLeakWarning,
    SessionNotFoundError,
)
from tests.client.stub import Request, from_sandbox, ran, reply, stub

pytestmark = pytest.mark.anyio

PLAIN = {"content-type": "text/plain"}


async def gone(session_id: str) -> bool:
    """True when the Router does not know a session any more."""
    async with AsyncCodeInterpreterClient(session_id=session_id) as client:
        try:
            await client.health()
        except SessionNotFoundError as error:
            return (error.session_id, error.status) == (session_id, 404)
        return False


async def test_constructing_does_no_io() -> None:
    """A client for a server that does not exist can be made and thrown away."""
    client = AsyncCodeInterpreterClient(
        router_url="http://127.0.0.1:1", workload_manager_url="http://127.0.0.1:1"
    )
    assert client.session_id is None
    await client.close()


async def test_async_with_creates_and_deletes(configured: dict[str, str], needs_sessions: None) -> None:
    """A session lives as long as the block."""
    async with AsyncCodeInterpreterClient() as client:
        assert client.ownership is Ownership.OWNED
        assert client.session_id is not None
        session_id = client.session_id
        assert await client.execute_command("echo hello") == "hello\n"
    assert client.session_id is None
    assert await gone(session_id)


async def test_create_awaited(configured: dict[str, str]) -> None:
    """`await create()` gives an open client."""
    client = await AsyncCodeInterpreterClient.create()
    try:
        assert await client.run_code("python", "print(6 * 7)") == "42\n"
    finally:
        await client.stop()


async def test_create_as_context_manager(configured: dict[str, str]) -> None:
    """`async with create()` opens once and stops at the end."""
    async with AsyncCodeInterpreterClient.create() as client:
        assert await client.run_code("bash", "echo $((6 * 7))") == "42\n"
    assert client.closed


async def test_never_opens_twice(configured: dict[str, str], needs_sessions: None) -> None:
    """`create` followed by `async with`, and many concurrent `open()`s, make one session."""
    announced: list[SessionInfo] = []
    client = await AsyncCodeInterpreterClient.create(on_session=announced.append)
    async with client:
        await asyncio.gather(*(client.open() for _ in range(20)))
    assert len(announced) == 1

    announced.clear()
    client = AsyncCodeInterpreterClient(on_session=announced.append)
    await asyncio.gather(*(client.open() for _ in range(20)))
    await client.stop()
    assert [info.ownership for info in announced] == [Ownership.OWNED]


async def test_attached_session_is_not_deleted(configured: dict[str, str], needs_sessions: None) -> None:
    """A session whose id was given outlives the client; `stop(force=True)` deletes it."""
    async with AsyncCodeInterpreterClient() as owner:
        session_id = owner.session_id
        assert session_id is not None
        async with AsyncCodeInterpreterClient(session_id=session_id) as guest:
            assert guest.ownership is Ownership.ATTACHED
            await guest.write_file("shared", "note.txt")
        assert await owner.read_file("note.txt") == b"shared"
        await AsyncCodeInterpreterClient(session_id=session_id).stop(force=True)
        assert await gone(session_id)


async def test_close_keeps_the_session_and_stop_deletes_it_later(
    configured: dict[str, str], needs_sessions: None
) -> None:
    """`close()` is local; an owner that is closed can still delete its session."""
    client = await AsyncCodeInterpreterClient.create()
    session_id = client.session_id
    assert session_id is not None
    await client.close()
    await client.close()
    assert not await gone(session_id)
    await client.stop()
    assert await gone(session_id)


async def test_detach_hands_the_session_over(configured: dict[str, str], needs_sessions: None) -> None:
    """After `detach()` the block's end does not delete the session."""
    async with AsyncCodeInterpreterClient() as client:
        session_id = client.detach()
        assert await client.execute_command("echo still usable") == "still usable\n"
    async with AsyncCodeInterpreterClient(session_id=session_id) as heir:
        assert await heir.execute_command("echo here") == "here\n"
        await heir.stop(force=True)


async def test_detach_without_session() -> None:
    """There is nothing to detach before a session exists."""
    with pytest.raises(SessionError, match="no session"):
        AsyncCodeInterpreterClient(router_url="http://127.0.0.1:1").detach()


async def test_use_before_and_after(configured: dict[str, str]) -> None:
    """A client says so when it is used before it is open or after it was closed."""
    client = AsyncCodeInterpreterClient()
    with pytest.raises(ClientStateError, match="not open"):
        await client.execute_command("true")
    await client.open()
    await client.stop()
    with pytest.raises(ClientStateError, match="closed"):
        await client.execute_command("true")
    with pytest.raises(ClientStateError, match="closed"):
        await client.open()


async def test_two_event_loops_are_refused(configured: dict[str, str]) -> None:
    """A client on another event loop gets a clear error and not httpx's confusion."""
    client = await AsyncCodeInterpreterClient.create()
    try:
        await client.health()

        def elsewhere() -> None:
            asyncio.run(_health(client))

        with pytest.raises(ClientStateError, match="event loop"):
            await asyncio.to_thread(elsewhere)
    finally:
        await client.stop()


async def _health(client: AsyncCodeInterpreterClient) -> None:
    await client.health()


async def test_unknown_interpreter(configured: dict[str, str], needs_sessions: None) -> None:
    """An interpreter that the cluster does not have is named in the error."""
    async with stub(lambda request: reply(404, {"message": "code interpreter not found"})) as manager:
        client = AsyncCodeInterpreterClient(
            "nonesuch", "lab", workload_manager_url=manager.url, router_url="http://127.0.0.1:1"
        )
        with pytest.raises(InterpreterNotFoundError, match="'nonesuch' in namespace 'lab'") as caught:
            await client.open()
        await client.close()
    assert (caught.value.kind, caught.value.name) == ("CodeInterpreter", "nonesuch")


async def test_failing_callback_leaves_no_session() -> None:
    """When `on_session` raises, the session that it was told of is deleted, and the error is its own."""
    deleted = []

    def handler(request: Request) -> bytes:
        if request.method == "DELETE":
            deleted.append(request.target)
            return reply(200, {"message": "Sandbox deleted successfully"})
        return reply(200, {"sessionId": "s-1"})

    def refuse(info: SessionInfo) -> None:
        raise RuntimeError("ledger is locked")

    async with stub(handler) as server:
        client = AsyncCodeInterpreterClient(
            router_url=server.url, workload_manager_url=server.url, on_session=refuse
        )
        with pytest.raises(RuntimeError, match="ledger is locked"):
            await client.open()
        assert deleted == ["/v1/code-interpreter/sessions/s-1"]
        assert client.session_id is None
        await client.close()
        await asyncio.sleep(0)
    assert server.open_connections == 0


async def test_failed_delete_keeps_the_first_error() -> None:
    """A failure in the block stays the error; the failed clean-up is a note on it, with id and command."""

    def handler(request: Request) -> bytes:
        if request.method == "DELETE":
            return reply(403, {"message": "forbidden"})
        return reply(200, {"sessionId": "s-1"})

    async with stub(handler) as server:
        with pytest.raises(KeyError) as caught:
            async with AsyncCodeInterpreterClient(router_url=server.url, workload_manager_url=server.url):
                raise KeyError("mine")
    assert "agentcube-kernel sessions stop s-1" in caught.value.__notes__[0]


async def test_delete_that_fails_is_loud_and_can_be_repeated() -> None:
    """`stop()` raises with the id and the command, keeps the id, and works once the server does."""
    broken = True

    def handler(request: Request) -> bytes:
        if request.method == "DELETE":
            return (
                reply(401, {"message": "Invalid or expired token"})
                if broken
                else reply(200, {"message": "ok"})
            )
        return reply(200, {"sessionId": "s-1"})

    async with stub(handler) as server:
        client = await AsyncCodeInterpreterClient.create(
            router_url=server.url, workload_manager_url=server.url
        )
        with pytest.raises(SessionDeleteError, match="agentcube-kernel sessions stop s-1") as caught:
            await client.stop()
        assert caught.value.session_id == "s-1"
        assert client.session_id == "s-1"
        broken = False
        await client.stop()
    assert client.session_id is None


async def test_deleted_already_is_success() -> None:
    """A 404 on delete means that the session is gone, which is what was asked for."""

    def handler(request: Request) -> bytes:
        if request.method == "DELETE":
            return reply(404, {"message": "Session ID s-1 not found, maybe already deleted"})
        return reply(200, {"sessionId": "s-1"})

    async with stub(handler) as server:
        async with AsyncCodeInterpreterClient(router_url=server.url, workload_manager_url=server.url):
            pass
        async with AsyncControlPlaneClient(server.url) as control_plane:
            assert await control_plane.delete_session("s-1") is False


async def test_wrong_url_on_delete_is_not_success() -> None:
    """A 404 from a server that is no WorkloadManager does not count as deleted."""
    async with (
        stub(lambda request: reply(404, b"404 page not found", headers=PLAIN)) as server,
        AsyncControlPlaneClient(server.url) as control_plane,
    ):
        with pytest.raises(SessionDeleteError, match="WORKLOAD_MANAGER_URL"):
            await control_plane.delete_session("s-1")


async def test_session_without_workload_manager_is_reported() -> None:
    """Created through the Router and not deletable: a warning names the session and the command."""
    async with stub(lambda request: from_sandbox(200, {"status": "ok"}, session="s-9")) as router:
        client = await AsyncCodeInterpreterClient.create(router_url=router.url)
        assert client.session_id == "s-9"
        assert "x-agentcube-session-id" not in router.requests[0].headers
        with pytest.warns(SessionLeakWarning, match="sessions stop s-9"):
            await client.stop()


async def test_owner_is_demanded_by_the_router() -> None:
    """A Router that serves only owned sessions gets to create it; the ownerless one is deleted."""
    calls: list[tuple[str, str]] = []

    def handler(request: Request) -> bytes:
        session = request.headers.get("x-agentcube-session-id", "")
        calls.append((request.method, session or request.target.rpartition("/")[2]))
        if request.method == "DELETE" or request.target.startswith("/v1/code-interpreter"):
            return reply(200, {"sessionId": "ownerless", "message": "ok"})
        if session == "ownerless":
            return reply(403, {"error": "sandbox has no owner record", "code": "FORBIDDEN"})
        if request.target.endswith("health"):
            return from_sandbox(200, {"status": "ok"}, session="owned")
        return ran("hi\n")

    async with (
        stub(handler) as server,
        AsyncCodeInterpreterClient(
            router_url=server.url, workload_manager_url=server.url, auth_token="t"
        ) as client,
    ):
        assert client.session_id == "owned"
        assert await client.execute_command("echo hi") == "hi\n"
    assert calls == [
        ("POST", "code-interpreter"),
        ("GET", "ownerless"),
        ("DELETE", "ownerless"),
        ("GET", "health"),
        ("POST", "owned"),
        ("DELETE", "owned"),
    ]


async def test_cancelled_open_keeps_the_session_for_later() -> None:
    """Giving up on a slow creation and asking again takes the session that was being made."""
    release = asyncio.Event()
    created = []

    async def handler(request: Request) -> bytes:
        if request.method == "DELETE":
            return reply(200, {"message": "ok"})
        created.append(1)
        await release.wait()
        return reply(200, {"sessionId": "s-1"})

    async with stub(handler) as server:
        client = AsyncCodeInterpreterClient(router_url=server.url, workload_manager_url=server.url)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.open()
        release.set()
        await client.open()
        assert client.session_id == "s-1"
        await client.stop()
    assert len(created) == 1
    assert [request.method for request in server.requests] == ["POST", "DELETE"]


async def test_stop_while_a_session_is_being_created() -> None:
    """Stopping hangs up on a creation that takes long, so that the WorkloadManager rolls it back."""
    hung_up = asyncio.Event()

    async def handler(request: Request) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            hung_up.set()
            raise
        return reply(200, {"sessionId": "s-1"})

    async with stub(handler) as server:
        client = AsyncCodeInterpreterClient(router_url=server.url, workload_manager_url=server.url)
        opening = asyncio.create_task(client.open())
        await server.asked.wait()
        async with asyncio.timeout(5):
            await client.stop()
        with pytest.raises((ClientStateError, asyncio.CancelledError)):
            await opening
    assert hung_up.is_set()


async def test_cancelled_block_entry_leaves_no_session() -> None:
    """`async with` cancelled while it opens stops the client, since its end will never be reached."""
    deleted = []
    release = asyncio.Event()

    async def handler(request: Request) -> bytes:
        if request.method == "DELETE":
            deleted.append(request.target)
            return reply(200, {"message": "ok"})
        await release.wait()
        return reply(200, {"sessionId": "s-1"})

    async def use() -> None:
        async with AsyncCodeInterpreterClient(router_url=server.url, workload_manager_url=server.url):
            pass

    async with stub(handler) as server:
        task = asyncio.create_task(use())
        await server.asked.wait()
        task.cancel()
        asyncio.get_running_loop().call_later(0.2, release.set)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert deleted == ["/v1/code-interpreter/sessions/s-1"]


async def test_forgotten_client_warns() -> None:
    """A client that is thrown away open warns and names its session."""
    import gc

    async with stub(lambda request: reply(200, {"sessionId": "s-7"})) as server:
        client = await AsyncCodeInterpreterClient.create(
            router_url=server.url, workload_manager_url=server.url
        )
        assert "owned session s-7" in repr(client)
        parts = (client.data_plane, client.control_plane)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del client
            gc.collect()
        for part in parts:
            assert part is not None
            await part.close()
    assert any("s-7" in str(warning.message) for warning in caught)


async def test_everything_raised_is_ours(configured: dict[str, str]) -> None:
    """Whatever goes wrong on the way to a server, the error is an `AgentCubeError` that says what to do."""
    for url in ("http://127.0.0.1:1", "http://no-such-host.invalid", "https://127.0.0.1:1"):
        with pytest.raises(ConnectionFailedError, match="Cannot connect") as caught:
            await _try_once(url)
        assert caught.value.delivery is Delivery.NEVER


async def _try_once(url: str) -> None:
    from agentcube_kernel import AsyncCodeInterpreterDataPlaneClient, RetryPolicy

    async with AsyncCodeInterpreterDataPlaneClient("s-1", url, "default", "i") as plane:
        await plane.execute(["true"], retry=RetryPolicy.NONE)
