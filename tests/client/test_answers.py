"""Answers that are refusals, nonsense or cut short: each its own clear error."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from agentcube_kernel import (
    AgentCubeError,
    AsyncAgentRuntimeClient,
    AsyncCodeInterpreterClient,
    AsyncCodeInterpreterDataPlaneClient,
    AsyncControlPlaneClient,
    AuthenticationError,
    ConnectionFailedError,
    DataPlaneError,
    Delivery,
    ExchangeError,
    InterpreterNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RequestTooLargeError,
    ResponseError,
    RetryPolicy,
    ServerError,
    SessionCreateError,
    SessionError,
    SessionNotFoundError,
)
from tests.client.stub import Request, from_sandbox, ran, reply, stub

pytestmark = pytest.mark.anyio

HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
NEVER, UNKNOWN, DELIVERED = Delivery.NEVER, Delivery.UNKNOWN, Delivery.DELIVERED


async def execute_error(answer: bytes | None, **options: Any) -> ExchangeError:
    """The error of one execute call that gets this answer."""
    async with (
        stub(lambda request: answer) as router,
        AsyncCodeInterpreterDataPlaneClient("s-1", router.url, "default", "i", **options) as plane,
    ):
        with pytest.raises(ExchangeError) as caught:
            await plane.execute(["true"], retry=RetryPolicy.NONE)
    return caught.value


OLD_404 = {"error": 'sessions.agentcube.volcano.sh "s-1" not found'}
NEW_404 = {"error": "session not found", "code": "SESSION_NOT_FOUND"}
NO_CR = {"error": 'codeinterpreters.agentcube.volcano.sh "default/i" not found'}
UNREACHABLE = {"error": "sandbox unreachable"}

CASES: list[tuple[str, bytes | None, type[AgentCubeError], Delivery, bool, str]] = [
    ("not found, old", reply(404, OLD_404), SessionNotFoundError, NEVER, False, "s-1 does not exist"),
    ("not found, new", reply(404, NEW_404), SessionNotFoundError, NEVER, False, "Create a new session"),
    (
        "no interpreter",
        reply(404, NO_CR),
        InterpreterNotFoundError,
        NEVER,
        False,
        "'i' in namespace 'default'",
    ),
    (
        "starting",
        reply(404, {"error": "no entry point found for sandbox"}),
        ServerError,
        NEVER,
        True,
        "starting",
    ),
    ("no router", reply(404, b"404 page not found"), ResponseError, NEVER, False, "ROUTER_URL"),
    (
        "401",
        reply(401, {"error": "invalid or expired token"}),
        AuthenticationError,
        NEVER,
        False,
        "AGENTCUBE_TOKEN",
    ),
    (
        "403",
        reply(403, {"error": "you do not own this sandbox"}),
        PermissionDeniedError,
        NEVER,
        False,
        "owner",
    ),
    (
        "409",
        reply(409, {"error": "x", "code": "SESSION_TARGET_MISMATCH"}),
        SessionError,
        NEVER,
        False,
        "kind",
    ),
    ("429", reply(429, {"error": "server overloaded"}), OverloadedError, NEVER, True, "later"),
    ("502", reply(502, UNREACHABLE), ServerError, NEVER, True, "refuses connections"),
    ("502 of another", reply(502, HTML), ServerError, UNKNOWN, True, "502"),
    ("503", reply(503, UNREACHABLE), ServerError, UNKNOWN, True, "may or may not"),
    ("504", reply(504, {"error": "sandbox timeout"}), ConnectionFailedError, UNKNOWN, True, "in time"),
    ("500", reply(500, {"error": "internal server error"}), ServerError, UNKNOWN, True, "500"),
    (
        "redirect",
        reply(302, headers={"location": "http://x/"}),
        ResponseError,
        UNKNOWN,
        False,
        "redirects to http",
    ),
    ("html", reply(200, HTML), ResponseError, DELIVERED, False, "web page"),
    ("html from sandbox", from_sandbox(200, HTML), ResponseError, DELIVERED, False, "web page"),
    ("empty", from_sandbox(200, b""), ResponseError, DELIVERED, True, "empty"),
    ("list", from_sandbox(200, [1]), ResponseError, DELIVERED, False, "unexpected shape"),
    ("deep", from_sandbox(200, b"[" * 100_000), ResponseError, DELIVERED, False, "unexpected shape"),
    ("no stdout", from_sandbox(200, {"exit_code": 0}), ResponseError, DELIVERED, False, "'stdout'"),
    (
        "exit code as text",
        from_sandbox(200, {"exit_code": "0"}),
        ResponseError,
        DELIVERED,
        False,
        "'exit_code'",
    ),
    (
        "truncated, clean end",
        from_sandbox(200, b'{"stdout": "a'),
        ResponseError,
        DELIVERED,
        True,
        "cut short",
    ),
    ("truncated", from_sandbox(200, b'{"stdout": "a"}', cut=4), ResponseError, DELIVERED, True, "cut short"),
    ("nothing", None, ConnectionFailedError, UNKNOWN, True, "lost"),
    ("no http", b"SSH-2.0-OpenSSH\r\n\r\n", ConnectionFailedError, UNKNOWN, True, "lost"),
    (
        "400",
        from_sandbox(400, {"error": "command cannot be empty"}),
        DataPlaneError,
        DELIVERED,
        False,
        "refused",
    ),
    ("413", from_sandbox(413, {"error": "too large"}), RequestTooLargeError, DELIVERED, False, "parts"),
    (
        "401 inside",
        from_sandbox(401, {"error": "Invalid token"}),
        AuthenticationError,
        NEVER,
        False,
        "signature",
    ),
    ("404 inside", from_sandbox(404, b"404 page not found"), SessionError, DELIVERED, False, "agent runtime"),
]


@pytest.mark.parametrize(
    ("answer", "kind", "delivery", "transient", "words"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
async def test_every_answer_has_its_error(
    answer: bytes | None, kind: type[AgentCubeError], delivery: Delivery, transient: bool, words: str
) -> None:
    """Type, what is known of the delivery, whether trying again may help, and words that help."""
    error = await execute_error(answer)
    assert type(error) is kind
    assert (error.delivery, error.transient) == (delivery, transient)
    assert words in str(error)
    assert "httpx" not in str(error)
    restored = pickle.loads(pickle.dumps(error))
    assert (type(restored), str(restored), restored.delivery) == (kind, str(error), delivery)


async def test_no_answer_in_time() -> None:
    """A server that says nothing ends the call after the command's time and a while."""
    import asyncio

    async with (
        stub(lambda request: asyncio.sleep(60, b"")) as router,
        AsyncCodeInterpreterDataPlaneClient("s-1", router.url, "default", "i", timeout=0.3) as plane,
    ):
        with pytest.raises(ConnectionFailedError, match=r"within 0\.3 s"):
            await plane.health()


async def test_hostile_words_are_tamed() -> None:
    """Control characters and megabytes in an error text do not reach the message."""
    error = await execute_error(from_sandbox(400, {"error": "\x1b[2Jevil\r\n" + "x" * 1_000_000}))
    assert "\x1b" not in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


async def test_credential_is_in_no_error() -> None:
    """The token shows in no message, no repr and no traceback's attributes."""
    error = await execute_error(reply(401, {"error": "invalid"}), auth=_Provider("s3cr3t-token"))
    shown = "".join([str(error), repr(error), repr(error.__dict__), repr(error.__cause__)])
    assert "s3cr3t" not in shown


class _Provider:
    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self) -> str:
        return self._token


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (reply(400, {"message": "name is required"}), SessionCreateError, "name is required"),
        (reply(401, {"message": "Missing authorization header"}), AuthenticationError, "WorkloadManager"),
        (reply(403, {"message": "no"}), PermissionDeniedError, "refused"),
        (
            reply(404, b"404 page not found", headers={"content-type": "text/plain"}),
            ResponseError,
            "WORKLOAD_MANAGER",
        ),
        (reply(500, {"message": "internal server error"}), SessionCreateError, "could not create"),
        (reply(504, {"message": "sandbox creation timed out"}), SessionCreateError, "two minutes"),
        (reply(200, HTML), ResponseError, "web page"),
        (reply(200, {"id": 1}), ResponseError, "sessionId"),
        (reply(200, {"sessionId": "../../x"}), ResponseError, "sessionId"),
        (reply(307, headers={"location": "https://elsewhere/"}), ResponseError, "redirects"),
        (reply(200, b'{"sessionId": "s', cut=0), ResponseError, "cut short"),
        (None, ConnectionFailedError, "lost"),
    ],
)
async def test_creation_errors(answer: bytes | None, kind: type[AgentCubeError], words: str) -> None:
    """What can go wrong when a session is created."""
    async with stub(lambda request: answer) as manager, AsyncControlPlaneClient(manager.url) as control_plane:
        with pytest.raises(kind, match=words) as caught:
            await control_plane.create_session("i")
    assert isinstance(caught.value, ExchangeError)
    assert len(manager.requests) == 1


async def test_creation_with_an_unknown_end_says_so() -> None:
    """When the answer to a creation is lost, the error notes that a sandbox may exist."""
    async with stub(lambda request: None) as manager, AsyncControlPlaneClient(manager.url) as control_plane:
        with pytest.raises(ConnectionFailedError) as caught:
            await control_plane.create_session("i")
    assert "may have been created" in caught.value.__notes__[0]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_creation_through_the_router_is_tried_once(status: int) -> None:
    """The Router may have made a sandbox before it failed, so asking again could leave one behind each time."""
    async with stub(lambda request: reply(status, UNREACHABLE)) as router:
        client = AsyncCodeInterpreterClient(router_url=router.url)
        with pytest.raises(SessionCreateError, match="idle timeout"):
            await client.open()
        await client.close()
    assert len(router.requests) == 1


async def test_session_of_another_kind() -> None:
    """A session that answers, but not as its kind does, is told from one that is gone."""
    async with (
        stub(lambda request: from_sandbox(404, b"<html>no such page</html>")) as router,
        AsyncCodeInterpreterClient(router_url=router.url, session_id="s-1") as client,
    ):
        with pytest.raises(SessionError, match="AsyncAgentRuntimeClient"):
            await client.execute_command("true")
        with pytest.raises(SessionError, match="AsyncAgentRuntimeClient"):
            await client.list_files()


def counting(*answers: bytes | None) -> Callable[[Request], bytes | None]:
    """A handler that gives these answers, the last again and again."""
    left = list(answers)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize(
    ("failure", "policy", "attempts"),
    [
        (reply(429, {"error": "overloaded"}), RetryPolicy.ONCE_DELIVERED, 3),
        (reply(502, UNREACHABLE), RetryPolicy.ONCE_DELIVERED, 3),
        (reply(503, UNREACHABLE), RetryPolicy.ONCE_DELIVERED, 1),
        (None, RetryPolicy.ONCE_DELIVERED, 1),
        (from_sandbox(200, b'{"cut'), RetryPolicy.ONCE_DELIVERED, 1),
        (reply(503, UNREACHABLE), RetryPolicy.IDEMPOTENT, 3),
        (reply(504, UNREACHABLE), RetryPolicy.IDEMPOTENT, 3),
        (None, RetryPolicy.IDEMPOTENT, 3),
        (from_sandbox(200, b'{"cut'), RetryPolicy.IDEMPOTENT, 3),
        (reply(404, NEW_404), RetryPolicy.IDEMPOTENT, 1),
        (reply(401, {"error": "x"}), RetryPolicy.IDEMPOTENT, 1),
        (reply(200, HTML), RetryPolicy.IDEMPOTENT, 1),
        (reply(429, {"error": "overloaded"}), RetryPolicy.NONE, 1),
    ],
)
async def test_what_is_sent_again(failure: bytes | None, policy: RetryPolicy, attempts: int) -> None:
    """Two failures, then success: only what the policy allows is tried again."""
    async with (
        stub(counting(failure, failure, ran("done"))) as router,
        AsyncCodeInterpreterDataPlaneClient("s-1", router.url, "default", "i") as plane,
    ):
        if attempts == 3:
            assert (await plane.execute(["true"], retry=policy)).stdout == "done"
        else:
            with pytest.raises(ExchangeError):
                await plane.execute(["true"], retry=policy)
    assert len(router.requests) == attempts


async def test_patience_ends() -> None:
    """A failure that stays is raised once the patience is used up, and not before."""
    async with (
        stub(lambda request: reply(502, UNREACHABLE)) as router,
        AsyncCodeInterpreterDataPlaneClient("s-1", router.url, "default", "i") as plane,
    ):
        with pytest.raises(ServerError):
            await plane.execute(["true"], retry=RetryPolicy.ONCE_DELIVERED.with_patience(0.5))
    assert len(router.requests) > 2


async def test_retry_after_is_respected() -> None:
    """A server that says when to come back is not asked before."""
    import time

    slow_down = reply(429, {"error": "x"}, headers={"retry-after": "1"})
    async with (
        stub(counting(slow_down, ran())) as router,
        AsyncCodeInterpreterDataPlaneClient("s-1", router.url, "default", "i") as plane,
    ):
        started = time.monotonic()
        await plane.execute(["true"])
    assert time.monotonic() - started >= 1


async def test_agent_answers() -> None:
    """An agent's refusal, a truncated answer and a vanished session, each its own error."""
    cases: list[tuple[bytes, type[AgentCubeError], str]] = [
        (from_sandbox(422, {"error": "bad prompt"}), DataPlaneError, "422.*bad prompt"),
        (
            from_sandbox(200, b'{"a":', headers={"content-type": "application/json"}),
            ResponseError,
            "cut short",
        ),
        (reply(404, OLD_404), SessionNotFoundError, "s-1"),
        (reply(200, HTML), ResponseError, "web page"),
    ]
    for answer, kind, words in cases:
        async with (
            stub(lambda request, answer=answer: answer) as router,  # type: ignore[misc]
            AsyncAgentRuntimeClient("a", router_url=router.url, session_id="s-1") as agent,
        ):
            with pytest.raises(kind, match=words):
                await agent.invoke({})
