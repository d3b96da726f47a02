"""The tests of each framework's integration, in an environment that has this framework."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.frameworks import FRAMEWORKS, ROOT, run_tests

pytestmark = [pytest.mark.rare, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_framework(name: str, endpoint_env: Mapping[str, str]) -> None:
    """The integration's tests pass with the framework installed."""
    file = f"tests/integrations/test_{name.replace('-', '_')}.py"
    assert (ROOT / file).is_file()
    run_tests(name, file, env=endpoint_env)
