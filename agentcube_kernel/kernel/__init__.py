"""Jupyter messages to and from a sandbox: translation only.

`app` is the process, `kernel` the table of who answers which message, and every other module one of those answers.
"""

from __future__ import annotations
