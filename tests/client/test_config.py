"""Settings: from where, and what is wrong with them."""

from __future__ import annotations

from dataclasses import fields

import pytest

from agentcube_kernel import (
    ArgumentTypeError,
    AsyncCodeInterpreterClient,
    AsyncCodeInterpreterDataPlaneClient,
    AsyncControlPlaneClient,
    ConfigurationError,
    Credentials,
    Secret,
    Settings,
    Timings,
)
from agentcube_kernel.config import SETTINGS
from agentcube_kernel.setting import Kind


def test_nothing_set_means_the_embedded_gateway() -> None:
    """Defaults are the stock SDK's, and their origin says so."""
    settings = Settings.load({})
    assert settings.uses_embedded_gateway
    assert (settings.namespace, settings.interpreter) == ("default", "my-interpreter")
    assert settings.origin("namespace") == "default"


def test_origins() -> None:
    """Each setting says where it came from; AgentCube's own names win over their aliases."""
    settings = Settings.load(
        {
            "ROUTER_URL": "http://router:8080/",
            "AGENTCUBE_ROUTER_URL": "http://other",
            "AGENTCUBE_WORKLOAD_MANAGER_URL": "https://manager/base/",
            "AGENTCUBE_NAMESPACE": " lab ",
            "AGENTCUBE_INTERPRETER": "",
        }
    ).override(interpreter="mine")
    assert settings.router_url == "http://router:8080"
    assert settings.workload_manager_url == "https://manager/base"
    assert (settings.namespace, settings.interpreter) == ("lab", "mine")
    assert [
        settings.origin(name) for name in ("router_url", "workload_manager_url", "namespace", "interpreter")
    ] == [
        "ROUTER_URL",
        "AGENTCUBE_WORKLOAD_MANAGER_URL",
        "AGENTCUBE_NAMESPACE",
        "argument",
    ]
    assert not settings.uses_embedded_gateway


@pytest.mark.parametrize(
    "url",
    [
        "router:8080",
        "ftp://router",
        "http://",
        "http://host:port",
        "http://user:s3cret@host",
        "http://h/?q",
        "x y",
    ],
)
def test_bad_urls(url: str) -> None:
    """A URL that is none, or carries a password, is refused by its variable's or parameter's name."""
    with pytest.raises(ConfigurationError, match="ROUTER_URL") as caught:
        Settings.load({"ROUTER_URL": url})
    assert caught.value.name == "ROUTER_URL"
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="router_url"):
        AsyncCodeInterpreterClient(router_url=url)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "a\nb"])
def test_bad_names(name: str) -> None:
    """What would become another path is refused."""
    for parameter in ("name", "namespace", "session_id"):
        with pytest.raises(ConfigurationError):
            AsyncCodeInterpreterClient(**{parameter: name})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameter", "value", "error"),
    [
        ("timeout", "30s", TypeError),
        ("timeout", 0, ValueError),
        ("connect_timeout", -1, ValueError),
        ("max_connections", 0, ValueError),
        ("max_connections", 1.5, TypeError),
        ("ttl", "1h", TypeError),
        ("ttl", 0, ValueError),
        ("create_through", "gateway", ValueError),
        ("router_url", 5, TypeError),
    ],
)
def test_bad_arguments(parameter: str, value: object, error: type[Exception]) -> None:
    """Wrong types and values fail at the constructor, with the parameter's name."""
    with pytest.raises(error, match=parameter):
        AsyncCodeInterpreterClient(**{parameter: value})  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_manager_without_router() -> None:
    """A WorkloadManager alone is not enough, and the error says what to set."""
    client = AsyncCodeInterpreterClient(workload_manager_url="http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="ROUTER_URL"):
        await client.open()
    await client.close()


def test_low_level_clients_never_guess() -> None:
    """Without URLs the low-level clients say what is missing."""
    with pytest.raises(ConfigurationError, match="WORKLOAD_MANAGER_URL"):
        AsyncControlPlaneClient()
    with pytest.raises(ConfigurationError, match="router_url must be given"):
        AsyncCodeInterpreterDataPlaneClient("s")
    with pytest.raises(ConfigurationError, match="session_id"):
        AsyncCodeInterpreterDataPlaneClient(None, "http://x", "default", "i")
    with pytest.raises(ArgumentTypeError, match="session_id"):
        AsyncCodeInterpreterDataPlaneClient(5, "http://x", "default", "i")  # type: ignore[arg-type]


def test_the_table_is_complete() -> None:
    """Every setting has a row and a field that holds it, no two share a variable, and every default is allowed."""
    held = {each.name for part in (Settings, Credentials, Timings) for each in fields(part)}
    assert held - {row.name for row in SETTINGS} == {
        "credentials",
        "timings",
        "origins",
        "service_account_file",
    }
    assert {row.name for row in SETTINGS} <= held
    variables = [variable for row in SETTINGS for variable in row.variables]
    assert len(variables) == len(set(variables))
    for row, _, origin in Settings().in_force():
        assert origin == "default"
        assert row.default, row.name
    assert not [row.name for row in SETTINGS if row.option and row.kind is Kind.SECRET]


VALUES = {
    Kind.URL: "http://x",
    Kind.NAME: "n",
    Kind.PATH: "/f",
    Kind.TEXT: "t",
    Kind.COMMAND: "print-token --key=s3cr3t",
    Kind.SECRET: "s3cr3t",
    Kind.SECONDS: "7",
    Kind.SWITCH: "0",
}


def test_every_variable_is_read_and_shown() -> None:
    """Each row's variable sets its setting, its origin is told, and no secret is shown."""
    environ = {row.variables[-1]: f" {VALUES[row.kind]} " for row in SETTINGS}
    shown = {row.name: (value, origin) for row, value, origin in Settings.load(environ).in_force()}
    assert {name: origin for name, (_, origin) in shown.items()} == {
        row.name: row.variables[-1] for row in SETTINGS
    }
    assert shown["hold"][0] == "7 s"
    assert shown["eager_start"][0] == "off"
    assert shown["token_command"][0] == "print-token …"
    assert "s3cr3t" not in str(shown) + repr(Settings.load(environ))


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("AGENTCUBE_HOLD", "soon", "seconds"),
        ("AGENTCUBE_HOLD", "301", "from 0.1 to 300"),
        ("AGENTCUBE_PATIENCE", "0", "greater than 0"),
        ("AGENTCUBE_LISTEN", "nan", "seconds"),
        ("AGENTCUBE_EAGER_START", "maybe", "1 or 0"),
        ("AGENTCUBE_NAMESPACE", "a/b", "plain name"),
        ("AGENTCUBE_OAUTH_TOKEN_URL", "x", "http"),
    ],
)
def test_bad_values_name_the_variable(variable: str, value: str, allowed: str) -> None:
    """A bad value is an error that names the variable and what is allowed."""
    with pytest.raises(ConfigurationError, match=f"{variable}.*{allowed}") as caught:
        Settings.load({variable: value})
    assert caught.value.name == variable


@pytest.mark.parametrize(
    ("name", "value"),
    [("hold", "20"), ("eager_start", 1), ("token", 5), ("log_file", 5), ("router_url", b"x")],
)
def test_wrong_types_name_the_argument(name: str, value: object) -> None:
    """An argument of a wrong type is a TypeError that names it."""
    with pytest.raises(TypeError, match=f"^{name} must") as caught:
        Settings().override(**{name: value})
    assert isinstance(caught.value, ArgumentTypeError)


def test_override() -> None:
    """Every setting can be given by name, wherever it is held; one that does not exist is refused."""
    settings = Settings.load({"AGENTCUBE_HOLD": "5", "AGENTCUBE_TOKEN": "old"}).override(
        patience=3, token="new", progress=False
    )
    assert (settings.timings.hold, settings.timings.patience, settings.progress) == (5, 3, False)
    assert settings.credentials.token == Secret("new")
    assert [settings.origin(name) for name in ("hold", "patience", "token")] == [
        "AGENTCUBE_HOLD",
        "argument",
        "argument",
    ]
    with pytest.raises(ConfigurationError, match=r"no setting 'holt'.*hold"):
        settings.override(holt=1)


def test_one_setting_whatever_the_others_are() -> None:
    """What has to be known before an error can be shown is read alone, and its own bad value is its default."""
    environ = {"ROUTER_URL": "nonsense", "AGENTCUBE_PROGRESS": "off", "AGENTCUBE_EAGER_START": "maybe"}
    assert Settings.load_one("progress", environ) is False
    assert Settings.load_one("eager_start", environ) is True
    assert Settings.load_one("log_file", environ) is None


def test_bad_timings() -> None:
    """Waiting times out of their bounds, or no numbers, are refused by their names."""
    for name, value in (("hold", 300.5), ("question", 31), ("connect", 0), ("answer", "1"), ("listen", None)):
        with pytest.raises(ConfigurationError, match=f"^{name} must"):
            Timings(**{name: value})


@pytest.mark.anyio
async def test_the_embedded_gateway_can_be_forbidden() -> None:
    """With AGENTCUBE_ALLOW_EMBEDDED=0 and nothing else configured, opening says what to set."""
    client = AsyncCodeInterpreterClient(settings=Settings.load({"AGENTCUBE_ALLOW_EMBEDDED": "0"}))
    with pytest.raises(ConfigurationError, match=r"switched off.*AGENTCUBE_ALLOW_EMBEDDED.*ROUTER_URL"):
        await client.open()
    await client.close()
