"""The named sandboxes of one notebook, and which of them is the current one."""
