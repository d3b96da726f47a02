"""Settings: from where, and what is wrong with them."""

from __future__ import annotations

import pytest

from agentcube_kernel import (
    ArgumentTypeError,
    AsyncCodeInterpreterClient,
    AsyncCodeInterpreterDataPlaneClient,
    AsyncControlPlaneClient,
    ConfigurationError,
    Settings,
)


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
