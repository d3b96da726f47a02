"""The embedded AgentCube: WorkloadManager, Router and PicoD in one small server on this machine.

It speaks AgentCube's wire contract closely enough that the stock ``agentcube-sdk`` runs against it unchanged,
so that a notebook needs no cluster and the tests need no mock.

It is for development and is **no security boundary**: a "sandbox" is a folder and the processes started for
it, with the rights of the user who started the gateway. Whoever holds the token can run programs as that
user. What does guard it: a random bearer token, a check of the ``Host`` header, a jail for the paths of the
file API, limits on bodies, and sessions that expire. Linux and macOS only.
"""
