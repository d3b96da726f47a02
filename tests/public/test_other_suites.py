"""The kernel passes ipykernel's and nbclient's own tests; those left out are named in the tables here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cache import CACHE
from tests.public import suite as public
from tests.public.suite import Outcome, Suite

SUITES = {name: Suite.load(name) for name in ("ipykernel", "nbclient")}
# One run of a whole suite happens inside of the first test that asks for its outcomes.
RUN_TIMEOUT = 420.0
pytestmark = [pytest.mark.rare, pytest.mark.timeout(RUN_TIMEOUT + 60)]


def outcomes_of(name: str, folder: Path, env: Mapping[str, str]) -> dict[str, Outcome]:
    """Fetch a suite, run it against this kernel, and return what became of each test."""
    suite = SUITES[name]
    root = public.unpack(suite, public.fetch(suite, CACHE / "suites"), folder)
    return public.run(suite, root, public.redirect(folder / "jupyter", env=env), timeout=RUN_TIMEOUT)


@pytest.fixture(scope="module")
def ipykernel_outcomes(
    endpoint_env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """What became of each of ipykernel's tests."""
    return outcomes_of("ipykernel", tmp_path_factory.mktemp("ipykernel"), endpoint_env)


@pytest.fixture(scope="module")
def nbclient_outcomes(
    endpoint_env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """What became of each of nbclient's tests."""
    return outcomes_of("nbclient", tmp_path_factory.mktemp("nbclient"), endpoint_env)


def check(outcomes: Mapping[str, Outcome], name: str) -> None:
    """Fail with what the suite's test said, unless it passed."""
    assert name in outcomes, f"{name} was not run"
    assert outcomes[name].status == "passed", outcomes[name].details


@pytest.mark.parametrize("name", SUITES["ipykernel"].run)
def test_ipykernel(ipykernel_outcomes: Mapping[str, Outcome], name: str) -> None:
    """A test of ipykernel's passes on this kernel."""
    check(ipykernel_outcomes, name)


@pytest.mark.parametrize("name", SUITES["nbclient"].run)
def test_nbclient(nbclient_outcomes: Mapping[str, Outcome], name: str) -> None:
    """A test of nbclient's passes with this kernel as its default."""
    check(nbclient_outcomes, name)


def test_no_test_is_forgotten(
    ipykernel_outcomes: Mapping[str, Outcome], nbclient_outcomes: Mapping[str, Outcome]
) -> None:
    """Every test of the files that are run is in the tables: run, or left out with a reason."""
    assert set(ipykernel_outcomes) == set(SUITES["ipykernel"].run)
    assert set(nbclient_outcomes) == set(SUITES["nbclient"].run)
