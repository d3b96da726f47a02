"""Who owns which session on this machine, and who deletes it."""
