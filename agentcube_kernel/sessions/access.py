"""How a WorkloadManager is talked to by another process of the same user."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..config import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config import Settings
    from ..wire.auth import AuthProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A WorkloadManager's address, with credentials to be looked up there or with this very token."""

    url: str
    credentials: Credentials | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Access | None:
        """Access to the WorkloadManager that the settings name, if they name one."""
        url = settings.workload_manager_url
        return None if url is None else cls(url=url, credentials=settings.credentials)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Access:
        """The access that `to_dict` has written down."""
        credentials = fields["credentials"]
        return cls(
            url=fields["url"],
            credentials=None if credentials is None else Credentials(**credentials),
            token=fields["token"],
        )

    def to_dict(self) -> dict[str, Any]:
        """The access as JSON data, secrets included: for the reaper's socket alone."""
        credentials = None if self.credentials is None else asdict(self.credentials)
        return {"url": self.url, "credentials": credentials, "token": self.token}

    def auth(self) -> AuthProvider | None:
        """The credential for requests."""
        from ..wire.auth import TokenAuth, resolve_workload_manager_auth

        if self.token is not None:
            return TokenAuth(self.token)
        return None if self.credentials is None else resolve_workload_manager_auth(self.credentials)
