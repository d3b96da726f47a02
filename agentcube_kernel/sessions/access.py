"""How a WorkloadManager is talked to by another process of the same user."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ..config import Credentials
from ..secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config import Settings
    from ..wire.auth import AuthProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A WorkloadManager's address, with credentials to be looked up there or with this very token."""

    url: str
    credentials: Credentials | None = None
    token: Secret | None = None

    @classmethod
    def of(cls, settings: Settings) -> Access | None:
        """Access to the WorkloadManager that the settings name, if they name one."""
        url = settings.workload_manager_url
        return None if url is None else cls(url=url, credentials=settings.credentials)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Access:
        """The access that `to_dict` has written down."""
        credentials, token = told["credentials"], told["token"]
        return cls(
            url=told["url"],
            credentials=None if credentials is None else Credentials(**credentials),
            token=None if token is None else Secret(token),
        )

    def to_dict(self) -> dict[str, Any]:
        """The access as JSON data, secrets included: for the reaper's socket alone."""
        credentials = None
        if self.credentials is not None:
            credentials = {
                each.name: revealed(getattr(self.credentials, each.name)) for each in fields(Credentials)
            }
        return {"url": self.url, "credentials": credentials, "token": revealed(self.token)}

    def auth(self) -> AuthProvider | None:
        """The credential for requests."""
        from ..wire.auth import TokenAuth, resolve_workload_manager_auth

        if self.token is not None:
            return TokenAuth(self.token)
        return None if self.credentials is None else resolve_workload_manager_auth(self.credentials)


def revealed(value: Secret | str | None) -> str | None:
    """A value that may be secret, as it is."""
    return value.reveal() if isinstance(value, Secret) else value
