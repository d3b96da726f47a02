"""Where things are: URLs of the Router, the WorkloadManager and a bare PicoD, and the proxies before them."""

from __future__ import annotations

import ipaddress
import urllib.request
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit

from ..arguments import check_segment, check_url

Kind = Literal["code-interpreter", "agent-runtime"]

SESSION_HEADER = "x-agentcube-session-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationEndpoint:
    """Where requests to the sandboxes of one CodeInterpreter or AgentRuntime go.

    With `bare` set it is one PicoD itself: there is no session, and answers carry no session header.
    """

    base: str
    kind: Kind
    name: str
    namespace: str
    bare: bool = False

    @classmethod
    def through_router(cls, router_url: str, *, kind: Kind, name: str, namespace: str) -> InvocationEndpoint:
        """The invocations URL that the Router serves."""
        base = check_url(router_url, name="router_url")
        check_segment(name, name="name")
        check_segment(namespace, name="namespace")
        path = f"/v1/namespaces/{quote(namespace, safe='')}/{kind}s/{quote(name, safe='')}/invocations"
        return cls(base=base + path, kind=kind, name=name, namespace=namespace)

    @classmethod
    def bare_picod(cls, picod_url: str, *, name: str, namespace: str) -> InvocationEndpoint:
        """One PicoD and nothing else."""
        base = check_url(picod_url, name="picod_url")
        return cls(base=base, kind="code-interpreter", name=name, namespace=namespace, bare=True)

    def url(self, path: str) -> str:
        """The URL of an already quoted path; the slash after `invocations` is always there."""
        return f"{self.base}/{path}"

    def file_url(self, path: str) -> str:
        """The URL that serves a file of the workspace, given by a path relative to it."""
        # net/http redirects every path that ends in /index.html to its folder; a trailing slash stops that, and
        # PicoD drops it again.
        tail = "/" if path == "index.html" or path.endswith("/index.html") else ""
        return f"{self.base}/api/files/{quote(path, safe='/')}{tail}"


def create_url(workload_manager_url: str, kind: Kind) -> str:
    """Where the WorkloadManager creates sessions."""
    return f"{workload_manager_url}/v1/{kind}"


def delete_url(workload_manager_url: str, kind: Kind, session_id: str) -> str:
    """Where the WorkloadManager deletes one session."""
    return f"{workload_manager_url}/v1/{kind}/sessions/{quote(session_id, safe='')}"


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL; never one for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return (proxy if "://" in proxy else f"http://{proxy}") if proxy else None


def is_loopback(host: str) -> bool:
    """True for `localhost` and the loopback addresses."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
