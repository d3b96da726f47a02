"""What is said when a framework is not installed."""

from __future__ import annotations


def missing_framework(framework: str, extra: str) -> ImportError:
    """An error of one sentence that names the extra."""
    return ImportError(
        f"{framework} is not installed (or broken, as the cause says): pip install 'agentcube-kernel[{extra}]'"
    )
