"""Imports between the rooms point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "agentcube_kernel"

# What a room may import of ours. A room is a folder or a module right below the package.
BASE = {"errors", "config"}
BELOW_SANDBOX = BASE | {"client", "channel", "ledger", "reaper", "cleanup", "kept", "processes", "waiting"}
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "processes": {"errors"},
    "client": BASE | {"gateway"},
    "channel": BASE | {"client"},
    "guest": {"channel"},
    "gateway": {"errors", "processes"},
    "ledger": BASE | {"processes"},
    "reaper": BASE | {"client", "ledger", "processes", "cleanup"},
    "cleanup": BASE | {"client", "ledger", "processes", "gateway"},
    "kept": {"errors", "ledger", "processes"},
    "waiting": {"errors"},
    "sandbox": BELOW_SANDBOX,
    "sync_sandbox": BELOW_SANDBOX | {"sandbox"},
    "kernel": BELOW_SANDBOX | {"sandbox", "magics"},
    "magics": BELOW_SANDBOX | {"sandbox", "sync_sandbox", "kernel"},
    "pool": BELOW_SANDBOX | {"sandbox", "sync_sandbox"},
    "integrations": BELOW_SANDBOX | {"sandbox", "pool"},
    "cli": BELOW_SANDBOX | {"sandbox", "kernel", "gateway"},
    "__main__": {"kernel"},
    "__init__": BELOW_SANDBOX | {"sandbox", "sync_sandbox", "magics", "pool"},
}

# Where in a room alone such an import may stand.
# client → gateway: starting the embedded gateway on demand. magics → kernel: the types of what the kernel hands over.
ONLY_IN = {
    ("client", "gateway"): {"embedded.py", "lifecycle.py"},
    ("magics", "kernel"): {"in_kernel.py", "kernel_sandboxes.py"},
}


def room(path: Path) -> str:
    """The room that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[str]:
    """The rooms of ours that a file imports, in whatever way."""
    depth = len(path.relative_to(PACKAGE).parts) - 1
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # Relative: count up from the file's own folder.
            above = path.relative_to(PACKAGE).parts[:-1][: depth - node.level + 1]
            stem = ".".join(["agentcube_kernel", *above, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "agentcube_kernel" and len(parts) > 1:
                yield parts[1]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """A room imports only what lies below it."""
    own = room(path)
    known = {p.name.removesuffix(".py") for p in PACKAGE.iterdir()}
    for other in set(imported_rooms(path)) & known - {own}:
        assert other in ALLOWED[own], f"{own} must not import {other}"
        places = ONLY_IN.get((own, other))
        assert places is None or path.name in places, f"only {places} in {own} may import {other}"


def test_one_module_knows_the_http_library() -> None:
    """httpx could be replaced in one file."""
    users = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            if any(name.split(".")[0] in ("httpx", "httpx2", "httpcore") for name in names):
                users.add(str(path.relative_to(PACKAGE)))
    assert users == {"client/http.py"}


def test_the_guest_needs_only_the_protocol() -> None:
    """What is shipped into a sandbox imports the protocol and nothing else of ours."""
    for path in (PACKAGE / "guest").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level >= 2:
                assert (node.level, node.module) == (2, "channel.protocol"), path.name
