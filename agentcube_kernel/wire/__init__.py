"""AgentCube's HTTP, raw: connections, credentials, retries, and what every answer of its servers means."""
