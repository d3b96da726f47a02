"""The embedded gateway as one ASGI application."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import Route

from .auth import Guard
from .control import ControlPlane
from .picod import PicoD
from .processes import Children, kill_descendants
from .router import Router, read_body
from .sandboxes import AGENT_RUNTIME, CODE_INTERPRETER, SandboxStore
from .version import package_version
from .wire import Answer, ManagerError, RouterError, json_answer, not_routed, send_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from .config import GatewayConfig

    Handler = Callable[[Scope, Receive], Awaitable[Answer]]

_KINDS = {
    "code-interpreter": CODE_INTERPRETER,
    "agent-runtime": AGENT_RUNTIME,
    "code-interpreters": CODE_INTERPRETER,
    "agent-runtimes": AGENT_RUNTIME,
}


class Gateway:
    """The parts of one gateway, and the application that puts them on the wire.

    `root` is a private folder that belongs to this gateway alone; `endpoint` is the `host:port` it is
    reached at. The application must run in the main thread of a process of its own: see `Children`.
    """

    def __init__(self, config: GatewayConfig, *, root: str, endpoint: str = "127.0.0.1:0") -> None:
        self.config = config
        self.children = Children()
        self.store = SandboxStore(config, root, self.children)
        self.guard = Guard(config.token, host=endpoint.rpartition(":")[0])
        self.control = ControlPlane(self.store, endpoint)
        self.router = Router(self.store, self.control, PicoD(self.store), self.guard)
        self.last_request = time.monotonic()
        self.requests = 0
        self.app = _application(self)

    @property
    def idle(self) -> float:
        """Seconds since the last request ended; 0 while one is under way."""
        return 0.0 if self.requests else time.monotonic() - self.last_request

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Reap and collect while the server runs; leave no process and no folder behind."""
        self.children.start()
        self.store.start()
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """End every sandbox."""
        await self.store.close()
        kill_descendants()
        self.children.stop()


def create_app(config: GatewayConfig, *, root: str, endpoint: str = "127.0.0.1:0") -> Starlette:
    """The ASGI application of a gateway with the private folder `root`, reached at `endpoint`."""
    return Gateway(config, root=root, endpoint=endpoint).app


class _Anything(PathConvertor):
    """A path that may hold line breaks too, as the names of files do."""

    regex = "(?s:.*)"


register_url_convertor("anything", _Anything())


def _application(gateway: Gateway) -> Starlette:
    def route(path: str, handler: Handler) -> Route:
        return Route(path, endpoint=_Endpoint(gateway, handler))

    invoke, manage = _Invocations(gateway), _Management(gateway)
    app = Starlette(
        routes=[
            route("/v1/namespaces/{namespace}/{kind}/{name}/invocations/{path:anything}", invoke.forward),
            route("/v1/namespaces/{namespace}/{kind}/{name}/invocations", invoke.redirect),
            route("/v1/{kind}", manage.create),
            route("/v1/{kind}/sessions/{session_id}", manage.delete),
            Route("/health", endpoint=_Health({"status": "healthy"})),
            Route("/health/live", endpoint=_Health({"status": "alive"})),
            Route("/health/ready", endpoint=_Health({"status": "ready"})),
            Route("/health/gateway", endpoint=_Identity(gateway)),
        ],
        lifespan=gateway.lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = _unrouted
    app.state.gateway = gateway
    app.add_middleware(_Guarded, guard=gateway.guard)
    return app


class _Guarded:
    """Turns away, on every route, what a web page of another machine may have made a browser send."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._guard.foreign(scope["headers"]) if scope["type"] == "http" else ""
        if problem:
            await send_answer(send, json_answer(403, {"error": problem, "code": "FORBIDDEN"}))
            return
        await self._app(scope, receive, send)


class _Endpoint:
    """An ASGI endpoint around a handler, which gives its errors their shapes."""

    def __init__(self, gateway: Gateway, handler: Handler) -> None:
        self._gateway = gateway
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        gateway.requests += 1
        try:
            await send_answer(send, await self._answer(scope, receive))
        finally:
            gateway.requests -= 1
            gateway.last_request = time.monotonic()

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        try:
            return await self._handler(scope, receive)
        except (RouterError, ManagerError) as exc:
            return json_answer(exc.status, exc.body)


class _Invocations:
    """The Router's two routes. Only GET and POST exist."""

    def __init__(self, gateway: Gateway) -> None:
        self._router = gateway.router

    async def forward(self, scope: Scope, receive: Receive) -> Answer:
        parameters = scope["path_params"]
        kind = _KINDS.get(parameters["kind"])
        if scope["method"] not in {"GET", "POST"} or kind is None or not parameters["kind"].endswith("s"):
            return not_routed()
        path = "/" + parameters["path"]
        return await self._router.answer(
            kind, parameters["namespace"], parameters["name"], path, scope, receive
        )

    async def redirect(self, scope: Scope, _: Receive) -> Answer:
        if scope["method"] not in {"GET", "POST"} or scope["path_params"]["kind"] not in _KINDS:
            return not_routed()
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        location = scope["raw_path"].partition(b"?")[0] + b"/" + query
        return Answer(status=301 if scope["method"] == "GET" else 307, headers=[(b"location", location)])


class _Management:
    """The WorkloadManager's routes."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def create(self, scope: Scope, receive: Receive) -> Answer:
        kind = _KINDS.get(scope["path_params"]["kind"])
        if scope["method"] != "POST" or kind is None or scope["path_params"]["kind"].endswith("s"):
            return not_routed()
        self._authorise(scope)
        config = self._gateway.config
        body = await read_body(scope, receive, limit=1 << 20, timeout=config.upload_timeout)
        return await self._gateway.control.create(kind, body)

    async def delete(self, scope: Scope, _: Receive) -> Answer:
        parameters = scope["path_params"]
        if scope["method"] != "DELETE" or parameters["kind"] not in {"code-interpreter", "agent-runtime"}:
            return not_routed()
        self._authorise(scope)
        return await self._gateway.control.delete(parameters["session_id"])

    def _authorise(self, scope: Scope) -> None:
        problem = self._gateway.guard.problem(dict(scope["headers"]))
        if problem:
            raise ManagerError(401, problem[0].upper() + problem[1:])


class _Health:
    """A fixed answer that needs no token and does not keep the gateway awake."""

    def __init__(self, value: dict[str, str]) -> None:
        self._value = value

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(send, json_answer(200, self._value) if scope["method"] == "GET" else not_routed())


class _Identity:
    """Proves to a launcher that it found its gateway, without either side showing the token."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        nonce = parse_qs(scope["query_string"]).get(b"nonce", [b""])[0]
        if scope["method"] != "GET" or not 16 <= len(nonce) <= 128:
            await send_answer(send, not_routed())
            return
        # Who asks is about to use the gateway; it must not end in between.
        self._gateway.last_request = time.monotonic()
        value = {"pid": os.getpid(), "version": package_version(), "python": sys.executable}
        value |= {"isolation": self._gateway.store.isolation.kind, "proof": self._gateway.guard.proof(nonce)}
        await send_answer(send, json_answer(200, value))


async def _unrouted(scope: Scope, receive: Receive, send: Send) -> None:
    await send_answer(send, not_routed())
