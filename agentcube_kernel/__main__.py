"""Start the kernel: `python -m agentcube_kernel -f CONNECTION_FILE`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the kernel, without the notebook's folder in the module search path.

    A `json.py` beside a notebook must not become a part of the kernel.
    """
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    from .kernel.app import main as run

    run()


if __name__ == "__main__":
    main()
