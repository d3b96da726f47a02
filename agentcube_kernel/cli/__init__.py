"""The command line, `agentcube-kernel`."""
