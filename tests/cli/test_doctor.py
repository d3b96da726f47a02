"""`agentcube-kernel doctor` tells at which step things stop to work, and leaves nothing behind."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from agentcube_kernel.sessions.ledger import Ledger
from agentcube_kernel.wire.control_plane import AsyncControlPlaneClient
from tests.commands import run_cli
from tests.endpoints import Endpoint
from tests.faultproxy import Fault, FaultPlan, running_fault_proxy

STEPS = [
    "settings",
    "kernelspec",
    "reachability",
    "credential",
    "session",
    "python3",
    "interpreter",
    "cell",
    "cleanup",
]


def steps_of(output: str) -> dict[str, dict[str, str]]:
    """The steps of `--json`, by name."""
    return {step["name"]: step for step in json.loads(output)["steps"]}


def test_every_step_works(endpoint_env: Mapping[str, str]) -> None:
    """Against a working AgentCube every step is fine and the exit status is 0."""
    told = json.loads(run_cli("doctor", "--json", env=endpoint_env).stdout)
    assert told["ok"] is True
    assert [step["name"] for step in told["steps"]] == STEPS
    assert {step["status"] for step in told["steps"]} <= {"ok", "note"}


def test_tells_a_person(endpoint_env: Mapping[str, str]) -> None:
    """The table has a line for each step, with where each setting came from, and never the token."""
    told = run_cli("doctor", env=endpoint_env).stdout
    for name in STEPS:
        assert re.search(rf"^(ok|note) +{name} ", told, re.MULTILINE), name
    assert "Everything works." in told
    assert re.search(r"(ROUTER_URL|AGENTCUBE_PICOD_URL)\)", told)
    assert endpoint_env.get("AGENTCUBE_TOKEN", "no token") not in told


async def test_deletes_its_session(
    needs_sessions: None, endpoint_env: Mapping[str, str], configured: Mapping[str, str]
) -> None:
    """The session that was created is gone afterwards, from AgentCube and from the ledger."""
    steps = steps_of(run_cli("doctor", "--json", env=endpoint_env).stdout)
    session_id = steps["session"]["detail"].removeprefix("created ")
    async with AsyncControlPlaneClient() as control_plane:
        assert await control_plane.delete_session(session_id) is False
    assert Ledger().session(session_id) is None


def test_an_unreachable_router(endpoint_env: Mapping[str, str]) -> None:
    """A Router that is not there fails the step that reaches for it; what needs it is skipped."""
    env = {"ROUTER_URL": "http://127.0.0.1:9", "WORKLOAD_MANAGER_URL": "http://127.0.0.1:9"}
    steps = steps_of(run_cli("doctor", "--json", env=env, status=1).stdout)
    assert "http://127.0.0.1:9" in steps["reachability"]["detail"]
    assert [steps[name]["status"] for name in STEPS[2:-1]] == ["failed"] + 5 * ["skipped"]
    assert "cleanup" not in steps


def test_a_bad_setting() -> None:
    """A setting that cannot be right is named."""
    told = run_cli("doctor", env={"ROUTER_URL": "router:80"}, status=1)
    assert "failed" in told.stdout
    assert "ROUTER_URL" in told.stdout


def test_a_refused_token(needs_embedded: None, endpoint_env: Mapping[str, str]) -> None:
    """A token that is not accepted fails the first step that shows it to AgentCube."""
    env = {**endpoint_env, "AGENTCUBE_TOKEN": "wrong"}
    steps = steps_of(run_cli("doctor", "--json", env=env, status=1).stdout)
    assert steps["session"]["status"] == "failed"
    assert "token" in steps["session"]["detail"].lower()


def test_a_failure_after_the_session(needs_sessions: None, endpoint: Endpoint) -> None:
    """When a later step fails the session is deleted all the same."""
    broken = FaultPlan(
        rate=1.0, kinds=[Fault.STATUS_504_BEFORE], only=lambda method, target: "/api/" in target
    )
    with running_fault_proxy(endpoint.data_url, broken) as proxy:
        env = {**endpoint.env, "ROUTER_URL": proxy.url}
        steps = steps_of(run_cli("doctor", "--json", "--timeout", "20", env=env, status=1).stdout)
    assert steps["python3"]["status"] == "failed"
    assert steps["interpreter"]["status"] == "skipped"
    assert steps["cleanup"]["detail"].startswith("deleted ")


def test_takes_the_settings_of_a_kernelspec(home: Path) -> None:
    """`--kernel` looks through the eyes of an installed kernel."""
    run_cli("install", "--user", "--name", "elsewhere", "--router-url", "http://127.0.0.1:9")
    steps = steps_of(run_cli("doctor", "--json", "--kernel", "elsewhere", status=1).stdout)
    assert "http://127.0.0.1:9" in steps["settings"]["detail"]
    assert "elsewhere" in steps["kernelspec"]["detail"]
    assert "no kernel 'nowhere'" in run_cli("doctor", "--kernel", "nowhere", status=2).stderr
