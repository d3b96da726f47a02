"""Which names a transfer may set in the user's own namespace."""

from __future__ import annotations

import builtins
import keyword
from typing import TYPE_CHECKING

from .usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_BUILTINS = frozenset(dir(builtins))
# What IPython and this package put into a namespace, or the user's next line relies on.
_OURS = frozenset(
    {
        "In",
        "Out",
        "_dh",
        "_exit_code",
        "_ih",
        "_oh",
        "agentcube_kernel",
        "exit",
        "get_ipython",
        "quit",
        "sandbox",
    }
)


def check_settable(names: Iterable[str]) -> None:
    """Refuse names that would change what the user's own code means.

    Raises:
        UsageError: a name is a keyword, a builtin's, one of Python's or IPython's own, or no name at all.
    """
    for name in names:
        reserved = name.startswith("_") and not name.strip("_0123456789i")
        dunder = name.startswith("__") and name.endswith("__")
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(f"{name!r} is not the name of a variable; nothing was set.")
        if reserved or dunder or name in _BUILTINS or name in _OURS:
            new = f"my_{name.strip('_') or 'value'}"
            raise UsageError(
                f"{name!r} is a name of Python or IPython, which is not overwritten with what a sandbox sent. Choose "
                f"another one; `%sandbox pull {name}:{new}` sets {new!r}."
            )
