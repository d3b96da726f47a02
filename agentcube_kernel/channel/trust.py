"""How far the output of a sandbox is trusted in the user's front end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .mime_bundles import restrained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .shapes import Content


class Trust(Enum):
    """What the output of a sandbox may do in the user's front end."""

    ON = "on"
    """All that the output of local code may do."""
    OFF = "off"
    """Be seen: text, images and cleaned HTML, and nothing that runs, loads or talks back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What one level of trust makes of output that could do more than be seen."""

    bundle: Callable[[Content], Content]
    """Takes and returns a clean mime bundle."""
    comms: bool
    """Whether widgets and other comms pass."""
    next_input: bool
    """Whether code may propose the text of the next cell."""
    buffers: bool
    """Whether binary parts of displays pass."""


_POLICIES: Mapping[Trust, Policy] = {
    Trust.ON: Policy(bundle=lambda data: data, comms=True, next_input=True, buffers=True),
    Trust.OFF: Policy(bundle=restrained, comms=False, next_input=False, buffers=False),
}


def policy_of(trust: Trust) -> Policy:
    """The policy of a level of trust."""
    return _POLICIES[trust]
