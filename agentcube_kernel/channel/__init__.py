"""Cells over one-shot calls: the protocol, the relay, the guest's start, and the host's side of it all."""
