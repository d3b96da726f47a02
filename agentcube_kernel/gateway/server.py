"""Run a gateway in this process: bind, announce, serve, end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from ..hardening import hide_memory
from .app import Gateway
from .root import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .config import GatewayConfig

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a gateway listens. One server plays Router and WorkloadManager, so both have the same URL."""

    host: str
    port: int

    @property
    def endpoint(self) -> str:
        """`host:port`, as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self.endpoint}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the sandboxes have to end before the connections do."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on `host`; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named in full: asyncio turns Nagle off only on sockets whose protocol says TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener


def serve(
    config: GatewayConfig,
    *,
    listener: socket.socket,
    announce: Callable[[Address], None],
    base: str | None = None,
) -> None:
    """Serve on `listener` until SIGTERM, SIGINT, SIGHUP or the idle time's end.

    `announce` is called once requests are answered. On return every sandbox has ended: its processes are
    dead and its folder is gone. A second signal meanwhile changes nothing. Must be called in the main thread.
    """
    # The token is in this process's memory, and every sandbox belongs to the same user.
    hide_memory()
    host, port = listener.getsockname()[:2]
    address = Address(host=host, port=port)
    for number in _signals():
        # Until the loop takes over: leave by the way that removes the folder.
        signal.signal(number, lambda *_: sys.exit(0))
    with Root(base) as root:
        gateway = Gateway(config, root=root.path, endpoint=address.endpoint)
        options = uvicorn.Config(
            gateway.app,
            http="auto",
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=90,
            timeout_graceful_shutdown=1,
        )
        asyncio.run(_serve(_Server(options), gateway, listener, lambda: announce(address)))


async def _serve(
    server: _Server, gateway: Gateway, listener: socket.socket, announce: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in _signals():
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.001)
        announce()
        idling = tasks.create_task(_idle_out(gateway, stop))
        waiting = tasks.create_task(stop.wait())
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        idling.cancel()
        waiting.cancel()
        for listening in server.servers:
            listening.close()
        # First the sandboxes, so that no request is left that waits for one.
        await gateway.store.close()
        server.should_exit = True


async def _idle_out(gateway: Gateway, stop: asyncio.Event) -> None:
    limit = gateway.config.idle_exit
    while limit is not None:
        left = limit - gateway.idle
        if left <= 0:
            stop.set()
            return
        await asyncio.sleep(max(left, 0.05))


def _signals() -> list[signal.Signals]:
    """The signals that end a gateway; nohup's wish to ignore SIGHUP is respected."""
    return [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def explain_bind(exc: OSError, host: str, port: int) -> str:
    """What to tell the user when `bind` failed."""
    if exc.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken; choose another with --port, or 0 for any free one"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return f"binding port {port} on {host} is not allowed; choose one above 1023"
    return f"cannot listen on {host}:{port}: {exc.strerror or exc}"


def quiet_stdout() -> None:
    """Point stdout at nothing, for a server whose reader has gone after the first line."""
    import os

    with contextlib.suppress(OSError), open(os.devnull, "w", encoding="utf-8") as devnull:
        sys.stdout.flush()
        os.dup2(devnull.fileno(), 1)
