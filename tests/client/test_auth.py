"""Credentials: the right one at the right server, and renewed in time."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import pickle
import shlex
import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from agentcube_kernel import (
    ArgumentTypeError,
    AsyncAgentRuntimeClient,
    AsyncCodeInterpreterClient,
    AsyncControlPlaneClient,
    AuthenticationError,
    AuthProvider,
    ConfigurationError,
    Credentials,
    ServiceAccountAuth,
    Settings,
    TokenAuth,
    TokenCommandAuth,
    TokenFileAuth,
)
from agentcube_kernel.sessions.access import Access
from agentcube_kernel.sessions.cleanup import delete_sessions
from agentcube_kernel.sessions.ledger import Ledger, SessionRecord
from tests.client.stub import Request, from_sandbox, ran, reply, stub

pytestmark = pytest.mark.anyio


def tokens(requests: list[Request]) -> list[str | None]:
    """The Authorization headers of requests."""
    return [request.headers.get("authorization") for request in requests]


def manager_answers(request: Request) -> bytes:
    return reply(200, {"sessionId": "s-1", "message": "ok"})


async def test_each_server_gets_its_own_credential() -> None:
    """Two credentials, two servers, and neither sees the other's."""
    async with (
        stub(manager_answers) as manager,
        stub(lambda request: ran()) as router,
        AsyncCodeInterpreterClient(
            workload_manager_url=manager.url,
            router_url=router.url,
            auth=TokenAuth("for-router"),
            workload_manager_auth=TokenAuth("for-manager"),
        ) as client,
    ):
        await client.execute_command("true")
    assert set(tokens(manager.requests)) == {"Bearer for-manager"}
    assert set(tokens(router.requests)) == {"Bearer for-router"}


async def test_one_credential_for_both() -> None:
    """`auth_token` is shown to both servers; `auth` wins over it."""
    async with stub(manager_answers) as manager, stub(lambda request: ran()) as router:
        urls = {"workload_manager_url": manager.url, "router_url": router.url}
        async with AsyncCodeInterpreterClient(**urls, auth_token="static") as client:
            await client.execute_command("true")
        assert set(tokens(manager.requests + router.requests)) == {"Bearer static"}
        async with AsyncCodeInterpreterClient(**urls, auth_token="static", auth=TokenAuth("better")):
            pass
        assert tokens(manager.requests)[-1] == "Bearer better"


async def test_service_account_token_is_for_the_manager_only(tmp_path: Path) -> None:
    """The pod's token, read again when it rotates, goes to the WorkloadManager and never to the Router."""
    (tmp_path / "token").write_text("pod-1\n")
    settings = Settings(credentials=Credentials(service_account_file=str(tmp_path / "token")))
    async with stub(manager_answers) as manager, stub(lambda request: ran()) as router:
        client = AsyncCodeInterpreterClient(
            workload_manager_url=manager.url, router_url=router.url, settings=settings
        )
        await client.open()
        await client.execute_command("true")
        (tmp_path / "new").write_text("pod-2\n")
        os.replace(tmp_path / "new", tmp_path / "token")
        await client.stop()
    assert tokens(manager.requests) == ["Bearer pod-1", "Bearer pod-2"]
    assert set(tokens(router.requests)) == {None}


async def test_environment_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OAuth2 credentials are for the Router, a token beside them for the WorkloadManager."""
    token_server = stub(lambda request: reply(200, {"access_token": "oauth-token", "expires_in": 3600}))
    async with (
        token_server as issuer,
        stub(manager_answers) as manager,
        stub(lambda request: ran()) as router,
    ):
        monkeypatch.setenv("AGENTCUBE_TOKEN", "manager-token")
        monkeypatch.setenv("AGENTCUBE_OAUTH_TOKEN_URL", issuer.url + "/token")
        monkeypatch.setenv("AGENTCUBE_OAUTH_CLIENT_ID", "me")
        monkeypatch.setenv("AGENTCUBE_OAUTH_CLIENT_SECRET", "s3cret&=")
        async with AsyncCodeInterpreterClient(
            workload_manager_url=manager.url, router_url=router.url, create_through="workload-manager"
        ) as client:
            await asyncio.gather(*(client.execute_command("true") for _ in range(20)))
    assert len(issuer.requests) == 1
    form = parse_qs(issuer.requests[0].body.decode())
    assert form == {"grant_type": ["client_credentials"], "client_id": ["me"], "client_secret": ["s3cret&="]}
    assert set(tokens(manager.requests)) == {"Bearer manager-token"}
    assert set(tokens(router.requests)) == {"Bearer oauth-token"}


async def test_incomplete_oauth_settings() -> None:
    """Some but not all of the OAuth variables are an error that names what is missing."""
    with pytest.raises(ConfigurationError, match="AGENTCUBE_OAUTH_CLIENT_SECRET"):
        Settings.load({"AGENTCUBE_OAUTH_TOKEN_URL": "http://x/", "AGENTCUBE_OAUTH_CLIENT_ID": "me"})


async def test_oauth_token_is_renewed_before_it_expires() -> None:
    """Thirty seconds before its end a token is replaced, and for short-lived ones half-way."""
    now = 0.0
    served = iter(range(1, 100))
    lifetime = 100

    def issue(request: Request) -> bytes:
        return reply(200, {"access_token": f"t{next(served)}", "expires_in": lifetime})

    async with stub(issue) as issuer:
        auth = ServiceAccountAuth(issuer.url, "id", "secret", clock=lambda: now)
        assert await auth.get_token() == "t1"
        now = 69
        assert await auth.get_token() == "t1"
        now = 71
        lifetime = 20
        assert await auth.get_token() == "t2"
        now = 80
        assert await auth.get_token() == "t2"
        now = 82
        assert await auth.get_token() == "t3"


async def test_waiters_share_one_fetch_and_survive_each_other() -> None:
    """Fifty waiters cause one request, and cancelling the first does not disturb the rest."""

    async def issue(request: Request) -> bytes:
        await asyncio.sleep(0.1)
        return reply(200, {"access_token": "shared"})

    async with stub(issue) as issuer:
        auth = ServiceAccountAuth(issuer.url, "id", "secret")
        waiters = [asyncio.create_task(auth.get_token()) for _ in range(50)]
        await asyncio.sleep(0.02)
        waiters[0].cancel()
        results = await asyncio.gather(*waiters, return_exceptions=True)
    assert results[1:] == ["shared"] * 49
    assert len(issuer.requests) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(401, {"error": "invalid_client"}), r"status 401 \(invalid_client\)"),
        (reply(200, {"token": "x"}), "access_token"),
        (reply(200, b"<html>"), "access_token"),
        (reply(200, {"access_token": "two words"}), "access_token"),
        (reply(302, headers={"location": "http://x"}), "status 302"),
        (None, "cannot be reached"),
    ],
)
async def test_token_endpoint_failures(answer: bytes | None, words: str) -> None:
    """What goes wrong at the token endpoint is an authentication error without the secret."""
    async with stub(lambda request: answer) as issuer:
        with pytest.raises(AuthenticationError, match=words) as caught:
            await ServiceAccountAuth(issuer.url, "id", "t0ps3cret").get_token()
    assert "t0ps3cret" not in str(caught.value) + repr(caught.value.__context__)


async def test_expired_token_is_renewed_once_after_401(tmp_path: Path) -> None:
    """A 401 makes the client read its token again and repeat the request once; a second 401 is the error."""
    path = tmp_path / "token"
    path.write_text("old")

    def handler(request: Request) -> bytes:
        if request.headers["authorization"] == "Bearer new":
            return ran("ok")
        path.write_text(replacement)
        return reply(401, {"error": "invalid or expired token", "code": "UNAUTHORIZED"})

    async with (
        stub(handler) as router,
        AsyncCodeInterpreterClient(router_url=router.url, session_id="s", auth=TokenFileAuth(path)) as client,
    ):
        replacement = "new"
        assert await client.execute_command("true") == "ok"
        assert tokens(router.requests) == ["Bearer old", "Bearer new"]
        path.write_text("older")
        replacement = "older"
        with pytest.raises(AuthenticationError, match="AGENTCUBE_TOKEN"):
            await client.execute_command("true")
        assert len(router.requests) == 4


async def test_static_token_is_not_tried_twice() -> None:
    """With a token that cannot change, a 401 is final at once."""
    async with (
        stub(lambda request: reply(401, {"error": "x"})) as router,
        AsyncCodeInterpreterClient(router_url=router.url, session_id="s", auth_token="t") as client,
    ):
        with pytest.raises(AuthenticationError):
            await client.execute_command("true")
    assert len(router.requests) == 1


class Synchronous:
    """Somebody else's provider, as the stock SDK has them."""

    def get_token(self) -> str:
        return "from-sync"


class Asynchronous:
    """Somebody else's provider, asynchronous."""

    async def get_token(self) -> str:
        await asyncio.sleep(0)
        return "from-async"


@pytest.mark.parametrize(
    ("provider", "token"), [(Synchronous(), "from-sync"), (Asynchronous(), "from-async")]
)
async def test_any_object_with_get_token(provider: AuthProvider, token: str) -> None:
    """A provider may be any object, synchronous or not."""
    assert isinstance(provider, AuthProvider)
    async with (
        stub(lambda request: from_sandbox(200, {"answer": 1})) as router,
        AsyncAgentRuntimeClient("a", router_url=router.url, session_id="s", auth=provider) as agent,
    ):
        assert await agent.invoke({}) == {"answer": 1}
    assert tokens(router.requests) == [f"Bearer {token}"]


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "tökén", 5, None])
async def test_bad_tokens(token: object) -> None:
    """What cannot be a token is refused without being shown."""
    with pytest.raises(ConfigurationError, match="token must") as caught:
        TokenAuth(token)  # type: ignore[arg-type]
    assert "a b" not in str(caught.value)


async def test_provider_without_get_token() -> None:
    """An object that is no provider is refused by name."""
    with pytest.raises(ArgumentTypeError, match="get_token"):
        AsyncCodeInterpreterClient(router_url="http://x", auth="token")  # type: ignore[arg-type]


async def test_provider_that_yields_nonsense() -> None:
    """A provider whose token cannot be sent is named in the error."""

    class Broken:
        def get_token(self) -> str:
            return "two\r\nlines"

    async with AsyncCodeInterpreterClient(
        router_url="http://127.0.0.1:1", session_id="s", auth=Broken()
    ) as client:
        with pytest.raises(AuthenticationError, match="Broken"):
            await client.execute_command("true")


async def test_token_file_that_is_missing(tmp_path: Path) -> None:
    """A token file that cannot be read is named."""
    with pytest.raises(AuthenticationError, match="none"):
        TokenFileAuth(tmp_path / "none").get_token()
    (tmp_path / "empty").touch()
    with pytest.raises(AuthenticationError, match="no usable token"):
        TokenFileAuth(tmp_path / "empty").get_token()


def test_secrets_stay_out_of_reprs() -> None:
    """No repr of anything that holds a credential shows it."""
    settings = Settings.load({"AGENTCUBE_TOKEN": "s3cr3t", "ROUTER_URL": "http://x"})
    client = AsyncCodeInterpreterClient(settings=settings, auth_token="s3cr3t2")
    shown = [repr(settings), repr(settings.credentials), repr(TokenAuth("s3cr3t")), repr(client)]
    shown.append(repr(ServiceAccountAuth("http://x", "me", "s3cr3t")))
    assert not any("s3cr3t" in text for text in shown)
    assert pickle.loads(pickle.dumps(settings)) == settings


async def test_settings_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A token of the environment never goes to a server that explicit settings or credentials name."""
    monkeypatch.setenv("AGENTCUBE_TOKEN", "of-the-environment")
    mine = Credentials(token="mine", service_account_file="")
    nothing = Credentials(service_account_file="")
    async with stub(manager_answers) as manager, stub(lambda request: ran()) as router:
        for credentials in (mine, nothing):
            settings = Settings(
                router_url=router.url, workload_manager_url=manager.url, credentials=credentials
            )
            async with AsyncCodeInterpreterClient(settings=settings) as client:
                await client.execute_command("true")
            async with AsyncControlPlaneClient(manager.url, credentials=credentials) as control_plane:
                await control_plane.delete_session("s")
            ledger = Ledger(tmp_path / "ledger.sqlite")
            record = SessionRecord.new("s-2", workload_manager_url=manager.url, router_url=router.url)
            ledger.record(record)
            access = Access.of(settings)
            assert access is not None
            assert [done.done for done in await delete_sessions([record], ledger, [access])] == [True]
            async with AsyncAgentRuntimeClient("a", session_id="s", settings=settings) as agent:
                await agent.invoke({})
        assert set(tokens(manager.requests + router.requests)) == {"Bearer mine", None}
        async with AsyncControlPlaneClient(manager.url) as control_plane:
            await control_plane.delete_session("s")
    assert tokens(manager.requests)[-1] == "Bearer of-the-environment"


def printing(*statements: str) -> str:
    """The command line of a Python program."""
    return shlex.join([sys.executable, "-c", "; ".join(statements)])


async def test_token_from_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command's output is the token: run once for all who wait, and again when a server refuses its token."""
    runs = tmp_path / "runs"
    runs.touch()
    command = printing(f"f = open({str(runs)!r}, 'a')", "print(f't{f.tell()}')", "f.write('x')")
    monkeypatch.setenv("AGENTCUBE_TOKEN_COMMAND", command)

    def handler(request: Request) -> bytes:
        if request.headers["authorization"] == "Bearer t0" and len(router.requests) > 20:
            return reply(401, {"error": "expired"})
        return ran("ok")

    async with (
        stub(handler) as router,
        AsyncCodeInterpreterClient(router_url=router.url, session_id="s") as client,
    ):
        await asyncio.gather(*(client.execute_command("true") for _ in range(20)))
        assert set(tokens(router.requests)) == {"Bearer t0"}
        await client.execute_command("true")
        assert tokens(router.requests)[-2:] == ["Bearer t0", "Bearer t1"]
    assert runs.read_text() == "xx"


def credential(token: object, seconds: float | None) -> str:
    """What a credential plug-in of kubectl's prints."""
    status: dict[str, object] = {"token": token}
    if seconds is not None:
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        status["expirationTimestamp"] = expires.isoformat().replace("+00:00", "Z")
    return json.dumps({"kind": "ExecCredential", "status": status})


@pytest.mark.parametrize(("seconds", "runs"), [(None, 1), (3600, 1), (0.5, 2)])
async def test_exec_credentials(seconds: float | None, runs: int, tmp_path: Path) -> None:
    """An ExecCredential's token is kept until half of its short life, or 30 s before its end."""
    log = tmp_path / "log"
    output = credential("from-plugin", seconds)
    auth = TokenCommandAuth(printing(f"open({str(log)!r}, 'a').write('x')", f"print({output!r})"))
    assert await auth.get_token() == "from-plugin"
    await asyncio.sleep(0 if seconds is None or seconds > 1 else seconds)
    if runs == 2:  # what is printed again has expired by now
        with pytest.raises(AuthenticationError, match="no usable token"):
            await auth.get_token()
    else:
        assert await auth.get_token() == "from-plugin"
    assert log.read_text() == "x" * runs


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (printing("print('s3cr3t two')"), "no usable token"),
        (printing("print('{}')"), "no usable token"),
        (printing("print('{s3cr3t')"), "no usable token"),
        (printing("print('{\"status\":' + '[' * 100000)"), "no usable token"),
        (printing(f"print({credential(5, None)!r})"), "no usable token"),
        (printing(f"print({credential('s3cr3t', -1)!r})"), "no usable token"),
        (printing("print('s3cr3t')", "raise SystemExit(3)"), "exit code 3"),
        (
            printing("import time", "print('s3cr3t', flush=True)", "time.sleep(60)"),
            "did not end within 0.5 s",
        ),
        ("no-such-program s3cr3t", "could not be started"),
    ],
)
async def test_token_commands_that_fail(command: str, words: str) -> None:
    """What a failing command printed, or was given, is not repeated; the message names the program and the setting."""
    auth = TokenCommandAuth(command, timeout=0.5 if "0.5 s" in words else 30)
    with pytest.raises(AuthenticationError, match=words) as caught:
        await auth.get_token()
    assert "AGENTCUBE_TOKEN_COMMAND" in str(caught.value)
    assert "s3cr3t" not in str(caught.value) + repr(auth)


@pytest.mark.parametrize("command", ["", "'unclosed"])
async def test_bad_token_commands(command: str) -> None:
    """A command line that is none is refused."""
    with pytest.raises(ConfigurationError, match="token_command"):
        TokenCommandAuth(command)
