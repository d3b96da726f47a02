"""AgentCube over HTTP."""
