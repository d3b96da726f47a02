"""The examples of docs/integrations.md."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.client.test_docs import run
from tests.integrations.frameworks import ROOT

PAGE = (ROOT / "docs" / "integrations.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples(number: int) -> None:
    """Each example runs by itself."""
    asyncio.run(run(EXAMPLES[number]))


def test_every_example_has_its_line() -> None:
    """The table names every file of examples/ and nothing else."""
    named = set(re.findall(r"\.\./examples/(\w+\.py)", PAGE))
    assert named == {path.name for path in (ROOT / "examples").glob("*.py")}
