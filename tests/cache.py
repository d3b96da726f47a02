"""What is worth keeping between test runs; imported before the run's own home folder takes HOME over."""

from __future__ import annotations

import os
from pathlib import Path

USER_HOME = Path.home()
# Fonts that matplotlib found, and other projects' tests.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or USER_HOME / ".cache") / "agentcube-kernel-tests"
