"""Where bearer tokens come from.

Anything with a `get_token` method, synchronous or not, is a credential. A provider may also have
`invalidate(token)`, which is called once when a server answers 401 to that token, before one more attempt.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import time
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlencode

from ..arguments import check_url
from ..errors import (
    ArgumentTypeError,
    AuthenticationError,
    ConfigurationError,
    Delivery,
    ExchangeError,
)
from ..secret import Secret
from .token_command import TokenCommandAuth
from .tokens import FetchedToken, check_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..config import Credentials
    from .http import AsyncTransport, HttpRequest

logger = logging.getLogger("agentcube_kernel.auth")

_LONGEST_TOKEN = 64 * 1024


@runtime_checkable
class AuthProvider(Protocol):
    """Any object that yields a bearer token, at once or awaited."""

    def get_token(self) -> str | Awaitable[str]:
        """The token to send with the next request."""
        ...


class TokenAuth:
    """A token that never changes."""

    def __init__(self, token: str | Secret) -> None:
        self._token = check_token(token, "token")

    def __repr__(self) -> str:
        return f"TokenAuth({self._token!r})"

    def get_token(self) -> str:
        """The token."""
        return self._token.reveal()


class TokenFileAuth:
    """A token in a file, read again whenever the file changes, as Kubernetes rotates service-account tokens."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._seen: tuple[int, int, int] | None = None
        self._token = Secret("")

    def __repr__(self) -> str:
        return f"TokenFileAuth({self._path!r})"

    def get_token(self) -> str:
        """The file's content without surrounding white space.

        Raises:
            AuthenticationError: the file cannot be read or holds no token.
        """
        return self._read().reveal()

    def _read(self) -> Secret:
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                with open(self._path, encoding="utf-8") as file:
                    self._token = check_token(file.read(_LONGEST_TOKEN).strip(), "token")
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise AuthenticationError(
                f"The token file {self._path} cannot be read: {reason}.", delivery=Delivery.NEVER
            ) from None
        except ConfigurationError:
            raise AuthenticationError(
                f"The token file {self._path} holds no usable token.", delivery=Delivery.NEVER
            ) from None
        return self._token

    def invalidate(self, token: str) -> None:
        """Read the file again at the next request."""
        if token == self._token.reveal():
            self._seen = None


class ServiceAccountAuth(FetchedToken):
    """OAuth2 client credentials: a token fetched when first needed, once for all who wait for it.

    It is renewed 30 seconds before it expires (half-way for tokens that live less than a minute). `timeout` is
    in seconds, for one fetch; a pair (connect, read) is taken as well.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | Secret,
        scope: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | tuple[float, float] = (5.0, 30.0),
        *,
        transport: AsyncTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock=clock)
        self._token_url = check_url(token_url, name="token_url")
        self._client_id, self._client_secret = client_id, Secret.of(client_secret)
        self._scope = scope
        self._headers = dict(headers or {})
        self._connect, self._read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        self._transport = transport

    def __repr__(self) -> str:
        return f"ServiceAccountAuth({self._token_url!r}, client_id={self._client_id!r})"

    async def _fetch(self) -> tuple[Secret, float]:
        from .http import Connections

        logger.debug("fetching a token from %s", self._token_url)
        connections = Connections(self._token_url, connect_timeout=self._connect, transport=self._transport)
        try:
            answer = await connections.exchange(self._request())
        except ExchangeError as error:
            raise self._failed(f"cannot be reached: {error}", transient=True) from None
        finally:
            await connections.aclose()
        if answer.status != 200:
            code = self._error_code(answer.body)
            raise self._failed(
                f"refused the client credentials with status {answer.status}{code}.", status=answer.status
            )
        granted = _granted(answer.body)
        if granted is None:
            raise self._failed("did not answer with an access_token and expires_in.", status=answer.status)
        return granted

    def _request(self) -> HttpRequest:
        from .http import HttpRequest

        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret.reveal(),
        }
        if self._scope:
            form["scope"] = self._scope
        headers = {
            "accept": "application/json",
            **{name.lower(): value for name, value in self._headers.items()},
            "content-type": "application/x-www-form-urlencoded",
        }
        body = urlencode(form).encode()
        return HttpRequest("POST", self._token_url, tuple(headers.items()), body, timeout=self._read)

    def _error_code(self, body: bytes) -> str:
        """The error code that OAuth2 prescribes, in brackets, or nothing."""
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return ""
        code = content.get("error") if isinstance(content, dict) else None
        if not isinstance(code, str) or not code.isprintable() or len(code) >= 100:
            return ""
        return f" ({self._client_secret.scrub(code)})"

    def _failed(
        self, reason: str, *, status: int | None = None, transient: bool = False
    ) -> AuthenticationError:
        return AuthenticationError(
            f"No token: the token endpoint {self._token_url} {reason} Check AGENTCUBE_OAUTH_TOKEN_URL, "
            "AGENTCUBE_OAUTH_CLIENT_ID and AGENTCUBE_OAUTH_CLIENT_SECRET, or the arguments given in their place.",
            status=status,
            delivery=Delivery.NEVER,
            url=self._token_url,
            transient=transient,
        )


def _granted(body: bytes) -> tuple[Secret, float] | None:
    """The token and its lifetime in seconds, from an answer of a token endpoint."""
    try:
        content = json.loads(body)
        return check_token(content.get("access_token"), "access_token"), float(
            content.get("expires_in", 3600)
        )
    except (AttributeError, TypeError, ValueError, RecursionError):
        return None


_OWN_SYNCHRONOUS = (TokenAuth, TokenFileAuth)


class Authorizer:
    """Turns a credential into the Authorization header of one server."""

    def __init__(self, provider: AuthProvider | None) -> None:
        self.provider = provider
        self._inline = isinstance(provider, _OWN_SYNCHRONOUS)

    async def token(self) -> Secret | None:
        """The token for the next request, or None without a credential.

        Raises:
            AuthenticationError: the provider did not yield a token that can be sent.
        """
        if self.provider is None:
            return None
        try:
            return await self._ask(self.provider)
        except ConfigurationError as error:
            raise AuthenticationError(
                f"get_token() of {type(self.provider).__name__} did not yield a usable token: {error}",
                delivery=Delivery.NEVER,
            ) from None

    async def _ask(self, provider: AuthProvider) -> Secret:
        if self._inline:
            return check_token(provider.get_token(), "token")
        if inspect.iscoroutinefunction(provider.get_token):
            return check_token(await provider.get_token(), "token")
        # Somebody else's provider may do blocking I/O in here.
        token = await asyncio.to_thread(provider.get_token)
        return check_token(await token if inspect.isawaitable(token) else token, "token")

    def invalidate(self, token: Secret | None) -> bool:
        """Drop a token that was refused; False when there is no point in trying again."""
        if token is None or isinstance(self.provider, TokenAuth):
            return False
        drop = getattr(self.provider, "invalidate", None)
        if drop is not None:
            drop(token.reveal())
        return True


def resolve_router_auth(credentials: Credentials) -> AuthProvider | None:
    """The credential for the Router: OAuth2 when configured, else the token, the token command, the token file.

    The pod's service-account token is for the WorkloadManager only and is never shown to the Router.
    """
    return _oauth(credentials) or _token(credentials)


def resolve_workload_manager_auth(credentials: Credentials) -> AuthProvider | None:
    """The credential for the WorkloadManager: token, token command, token file, the pod's token, OAuth2."""
    token = _token(credentials)
    if token is not None:
        return token
    if os.path.exists(credentials.service_account_file):
        return TokenFileAuth(credentials.service_account_file)
    return _oauth(credentials)


def explicit_auth(auth: AuthProvider | None, auth_token: str | None) -> AuthProvider | None:
    """The credential given as argument, `auth` before `auth_token`."""
    if auth is not None:
        if not callable(getattr(auth, "get_token", None)):
            raise ArgumentTypeError(
                f"auth must have a get_token() method; {type(auth).__name__} has none.", name="auth"
            )
        return auth
    return None if auth_token is None else TokenAuth(auth_token)


def _oauth(credentials: Credentials) -> AuthProvider | None:
    if not credentials.oauth_token_url:
        return None
    return ServiceAccountAuth(
        credentials.oauth_token_url,
        credentials.oauth_client_id or "",
        credentials.oauth_client_secret or "",
        credentials.oauth_scope,
    )


def _token(credentials: Credentials) -> AuthProvider | None:
    if credentials.token:
        return TokenAuth(credentials.token)
    if credentials.token_command:
        return TokenCommandAuth(credentials.token_command)
    return TokenFileAuth(credentials.token_file) if credentials.token_file else None
