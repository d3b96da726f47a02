"""`python -m agentcube_kernel.gateway`: the background gateway that kernels start on demand.

It prints one JSON line when it answers requests: the contents of its state file. People use
`agentcube-kernel serve` instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time


def main() -> int:
    """Run the gateway; the exit status is 0 after an orderly end, 1 when it could not start."""
    options = _options()
    if options.detach and os.fork():
        # The launcher waits for this half only, so the gateway is no child, and never a zombie, of a kernel.
        os._exit(0)
    try:
        return _run(options)
    except (OSError, ValueError) as exc:
        print(f"the embedded gateway cannot start: {exc}", file=sys.stderr)  # noqa: T201
        return 1


def _run(options: argparse.Namespace) -> int:
    from . import server
    from .config import GatewayConfig, idle_exit_from
    from .version import package_version

    config = GatewayConfig.from_environ(os.environ, idle_exit=idle_exit_from(os.environ))
    listener = server.bind("127.0.0.1", 0)

    def announce(address: server.Address) -> None:
        state = {
            "router_url": address.url,
            "workload_manager_url": address.url,
            "token": config.token,
            "pid": os.getpid(),
            "version": package_version(),
            "python": sys.executable,
            "started": time.time(),
        }
        text = json.dumps(state)
        if options.state:
            _write_private(options.state, text)
        with contextlib.suppress(BrokenPipeError):
            print(text, flush=True)  # noqa: T201
        server.quiet_stdout()

    try:
        server.serve(config, listener=listener, announce=announce)
    finally:
        if options.state:
            _remove_own(options.state)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m agentcube_kernel.gateway", description=__doc__)
    parser.add_argument("--state", help="file to write the URL, the token and the pid to, mode 0600")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    return parser.parse_args()


def _write_private(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def _remove_own(path: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
        if state.get("pid") == os.getpid():
            os.unlink(path)


if __name__ == "__main__":
    sys.exit(main())
