"""No token is shown: not by tracebacks with their variables, not by quotes of what a server says."""

from __future__ import annotations

import copy
import io
import pickle
import traceback
from collections.abc import Callable

import pytest
import rich.console
import rich.traceback
from IPython.core.ultratb import VerboseTB

from agentcube_kernel import (
    AgentCubeError,
    AsyncCodeInterpreterClient,
    AuthenticationError,
    ConfigurationError,
    PermissionDeniedError,
    ServiceAccountAuth,
    Settings,
)
from agentcube_kernel.secret import Secret
from tests.client.stub import Request, from_sandbox, reply, stub

pytestmark = pytest.mark.anyio

TOKEN = "t0ps3cret-0123456789"


def shown_with_variables(error: BaseException) -> str:
    """What `%tb Verbose` and rich show of an error and its causes, with the variables of all frames but the test's."""
    assert error.__traceback__ is not None
    triple = (type(error), error, error.__traceback__.tb_next)
    console = rich.console.Console(file=io.StringIO(), width=200)
    console.print(rich.traceback.Traceback.from_exception(*triple, show_locals=True, locals_max_string=None))
    assert isinstance(console.file, io.StringIO)
    frames = traceback.TracebackException(*triple, capture_locals=True).format()
    return VerboseTB(theme_name="nocolor").text(*triple) + console.file.getvalue() + "".join(frames)


def echo(request: Request) -> str:
    """What a careless server says: the headers that it got."""
    return f"bad request: {request.headers}"


HANDLERS: dict[str, Callable[[Request], bytes | None]] = {
    "connection closed": lambda request: None,
    "cut short": lambda request: from_sandbox(200, {"stdout": "x"}, cut=3),
    "not JSON": lambda request: from_sandbox(200, echo(request).encode()),
    "wrong shape": lambda request: from_sandbox(200, {"said": "nothing"}),
    "sandbox refuses": lambda request: from_sandbox(400, {"error": echo(request)}),
    "401": lambda request: reply(401, {"error": echo(request)}),
    "403": lambda request: reply(403, {"error": echo(request)}),
    "500": lambda request: reply(500, {"error": echo(request)}),
    "400 with text": lambda request: reply(400, echo(request).encode()),
    "redirect": lambda request: reply(
        302, headers={"location": f"http://x/?{request.headers['authorization']}"}
    ),
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS.keys())
async def test_failed_requests_show_no_token(handler: Callable[[Request], bytes | None]) -> None:
    """Whatever a server answers, its error shows the token neither in its words nor in its frames."""
    async with (
        stub(handler) as router,
        AsyncCodeInterpreterClient(
            settings=Settings.load({"ROUTER_URL": router.url, "AGENTCUBE_TOKEN": TOKEN}), session_id="s"
        ) as client,
    ):
        with pytest.raises(AgentCubeError) as caught:
            await client.data_plane.wire.execute(["true"], timeout=5)
        assert router.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "execute" in shown_with_variables(caught.value)
    assert TOKEN not in str(caught.value) + shown_with_variables(caught.value)


async def test_unreachable_servers_show_no_token() -> None:
    """The error of a connection that cannot be made shows no token either."""
    async with AsyncCodeInterpreterClient(
        router_url="http://127.0.0.1:1", session_id="s", auth_token=TOKEN
    ) as client:
        with pytest.raises(AgentCubeError) as caught:
            await client.health()
    assert TOKEN not in str(caught.value) + shown_with_variables(caught.value)


@pytest.mark.parametrize(("status", "error"), [(401, AuthenticationError), (403, PermissionDeniedError)])
async def test_refusals_are_not_quoted(status: int, error: type[AgentCubeError]) -> None:
    """Of an answer that refuses access no word is repeated."""
    async with stub(lambda request: reply(status, {"error": "WORDS", "message": "WORDS"})) as server:
        client = AsyncCodeInterpreterClient(
            router_url=server.url, workload_manager_url=server.url, auth_token=TOKEN
        )
        with pytest.raises(error) as caught:
            await client.open()
        assert "WORDS" not in str(caught.value)
        async with AsyncCodeInterpreterClient(
            router_url=server.url, session_id="s", auth_token=TOKEN
        ) as client:
            with pytest.raises(error) as caught:
                await client.execute_command("true")
        assert "WORDS" not in str(caught.value)


async def test_client_secret_stays_hidden() -> None:
    """A token endpoint that repeats the client secret does not make it appear."""
    async with stub(lambda request: reply(400, {"error": request.body.decode()[-60:]})) as issuer:
        provider = ServiceAccountAuth(issuer.url, "id", Secret(TOKEN))
        with pytest.raises(AuthenticationError) as caught:
            await provider.get_token()
    assert TOKEN not in str(caught.value) + shown_with_variables(caught.value)


def test_bad_settings_show_no_token() -> None:
    """An error about one setting does not show the others."""
    with pytest.raises(ConfigurationError, match="ROUTER_URL") as caught:
        Settings.load({"AGENTCUBE_TOKEN": TOKEN, "ROUTER_URL": "nonsense"})
    assert TOKEN not in str(caught.value) + shown_with_variables(caught.value)


def test_secret() -> None:
    """A secret shows itself in no text, and is compared, copied and pickled by its value."""
    secret = Secret(TOKEN)
    assert f"{secret} {secret!r} {[secret]}" == "<secret> <secret> [<secret>]"
    assert secret == Secret(TOKEN) == pickle.loads(pickle.dumps(secret)) == copy.deepcopy(secret)
    assert secret != Secret("other")
    assert secret != TOKEN
    assert secret.reveal() == TOKEN
    assert not Secret("")
    assert secret.scrub(f"<{TOKEN}>") == "<<secret>>"
    assert Secret('a"b\\c').scrub('{"echo": "a\\"b\\\\c"}') == '{"echo": "<secret>"}'
