"""How much of what a sandbox sends is accepted: every ceiling, in one place."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ceilings for what comes from a sandbox. Sizes are bytes of content."""

    file_bytes: int = 256 * GIB
    """A downloaded file whose size the sandbox announced."""
    unannounced_bytes: int = GIB
    """A downloaded file whose size the sandbox did not announce."""
    growth_bytes: int = 64 * MIB
    """How much larger than in its listing a file may be when it is downloaded, or twice its size if that is more."""
    folder_bytes: int = 16 * GIB
    """A downloaded folder, unpacked."""
    folder_members: int = 200_000
    """Files, folders and links in a downloaded folder."""
    folder_depth: int = 100
    """Folders inside each other in a downloaded folder; what lies deeper is skipped."""
    name_bytes: int = 255
    """The name of one file or folder in a downloaded folder; what has a longer one is skipped."""
    listing_bytes: int = 64 * MIB
    """The answer to a request for a folder's entries."""
    listing_entries: int = 200_000
    """Entries in a folder's listing."""
    pull_bytes: int = 4 * GIB
    """The file in which pulled variables arrive."""

    def file_ceiling(self, listed: int) -> int:
        """Bytes that a file listed with `listed` bytes may have when it is downloaded."""
        return min(max(2 * listed, listed + self.growth_bytes), self.file_bytes)


DEFAULT_LIMITS = Limits()
