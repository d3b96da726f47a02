"""The embedded AgentCube: WorkloadManager, Router and PicoD in one small server on this machine.

It speaks AgentCube's wire contract closely enough that the stock `agentcube-sdk` runs against it unchanged,
so that a notebook needs no cluster and the tests need no mock.

It is for development and is **no security boundary**: a "sandbox" is a folder and the processes started for it. Where
bubblewrap is not installed they have the rights of the user who started the gateway; where it is, they see the system's
programs, the user's Python and their own folder, and share the network and the kernel with the host. `GatewayInfo` and
the health route tell which isolation is in force.

What guards it from outside: a random bearer token, checks of the `Host` and `Origin` headers on every route, file
routes that are walked from an open folder, limits on bodies, and sessions that expire. Linux and macOS only.
"""
