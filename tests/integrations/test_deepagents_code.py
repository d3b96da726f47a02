"""Deep Agents Code finds sandboxes by the entry point."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "deepagents_code", reason="tests/integrations/test_frameworks.py runs this where deepagents-code is"
)

from deepagents_code.integrations.sandbox_provider import SandboxError
from deepagents_code.integrations.sandbox_registry import SandboxRegistry

pytestmark = pytest.mark.timeout(120)


def test_provider(configured: dict[str, str], needs_sessions: None) -> None:
    """The provider makes sandboxes, finds them by their ids, and deletes them."""
    registry = SandboxRegistry()
    assert registry.provider_metadata("agentcube").name == "agentcube"
    provider = registry.create_provider("agentcube")
    backend = provider.get_or_create()
    session = backend.id
    again = provider.get_or_create(sandbox_id=session)
    again.execute("echo hello > note")
    assert backend.execute("cat note").output == "hello\n"
    again.sandbox.close()
    provider.delete(sandbox_id=session)
    provider.delete(sandbox_id=session)
    with pytest.raises(SandboxError, match=session):
        provider.get_or_create(sandbox_id=session)
    backend.close()
