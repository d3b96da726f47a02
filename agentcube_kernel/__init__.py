"""AgentCube sandboxes from Jupyter and from Python."""

from __future__ import annotations
