"""Who may talk to the gateway: the bearer token, and the Host header against DNS rebinding."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Guard:
    """Checks requests against the gateway's token and the names it goes by."""

    def __init__(self, token: str, *, host: str = "127.0.0.1") -> None:
        self._token = token.encode()
        self._bearer = b"Bearer " + self._token
        self._names = {b"localhost", host.lower().encode(), socket.gethostname().lower().encode()}
        self._seen: set[bytes] = set()

    def foreign(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Why a request may come from a web page of another machine; empty when it does not.

        A page can make its own host name point here, so the Host header must be an address or a name of this machine;
        and its Origin, which a browser adds, must be of this machine itself.
        """
        hosts = [value for name, value in headers if name == b"host"]
        if not all(map(self._is_ours, hosts or [b""])):
            return "the Host header names another machine"
        if not all(_is_loopback(value) for name, value in headers if name == b"origin"):
            return "the request comes from a web page of another machine"
        return ""

    def _is_ours(self, value: bytes) -> bool:
        if value in self._seen:
            return True
        name = _host(value)
        if name not in self._names and _address(name) is None:
            return False
        if len(self._seen) < 64:
            self._seen.add(value)
        return True

    def problem(self, headers: Mapping[bytes, bytes]) -> str:
        """Empty when the request shows the token; else one of the Router's own reasons.

        The token may also come as the password of Basic authentication, which is what HTTP libraries send for
        a URL with user information: the only way to give it to a client that knows nothing of tokens.
        """
        value = headers.get(b"authorization")
        if value is None:
            return "missing authorization header"
        if hmac.compare_digest(value, self._bearer):
            return ""
        scheme, _, credential = value.partition(b" ")
        credential = credential.strip()
        if scheme.lower() == b"basic":
            try:
                credential = base64.b64decode(credential, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return "invalid authorization header format"
        elif scheme.lower() != b"bearer":
            return "invalid authorization header format"
        if not credential:
            return "empty bearer token"
        return "" if hmac.compare_digest(credential, self._token) else "invalid or expired token"

    def proof(self, nonce: bytes) -> str:
        """Shows knowledge of the token without telling it."""
        return token_proof(self._token.decode(), nonce)


def token_proof(token: str, nonce: bytes) -> str:
    """What a gateway that knows `token` answers to `nonce`."""
    return hmac.new(token.encode(), nonce, hashlib.sha256).hexdigest()


def _host(value: bytes) -> bytes:
    """The name or address in a Host header, without the port."""
    name = value.lower()
    if name.startswith(b"["):
        return name[1:].partition(b"]")[0]
    return name.partition(b":")[0] if name.count(b":") <= 1 else name


def _is_loopback(origin: bytes) -> bool:
    scheme, _, place = origin.partition(b"://")
    name = _host(place)
    address = _address(name)
    loopback = name == b"localhost" or (address is not None and address.is_loopback)
    return scheme in (b"http", b"https") and loopback


def _address(name: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.decode("ascii"))
    except ValueError:
        return None
