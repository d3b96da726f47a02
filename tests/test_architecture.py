"""Imports between the rooms point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "agentcube_kernel"

# The rooms from the ground up, a room being a folder or a module right below the package: each may import those in the
# rows above its own. `guest` and `gateway` stand apart.
FLOORS = (
    {"errors", "hardening", "limits"},
    {"text", "secret", "arguments", "results", "shared_attempt"},
    {"timings"},
    {"setting"},
    {"config"},
    {"wire"},
    {"sessions"},
    {"client"},
    {"channel"},
    {"sandbox", "sync_cell_run"},
    {"sync_sandbox", "registry"},
    {"frontend"},
    {"magics"},
    {"kernel"},
    {"pool", "integrations"},
    {"cli", "__main__", "__init__"},
)
GROUND = {"errors", "hardening", "text"}
APART = {"guest": {"channel"}, "gateway": GROUND}
# Rooms of one row know each other only like this.
BESIDE = {"integrations": {"pool"}}
# The embedded gateway is a server; what starts it or asks it knows its launcher alone.
STARTS_GATEWAY = {"sessions", "client", "cli"}


def allowed(own: str) -> set[str]:
    """The rooms that a room may import."""
    if own in APART:
        return APART[own]
    below: set[str] = set()
    for floor in FLOORS:
        if own in floor:
            return below | BESIDE.get(own, set()) | ({"gateway"} if own in STARTS_GATEWAY else set())
        below |= floor
    raise AssertionError(f"{own} has no place among the rooms")


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
        assert other in allowed(own), f"{own} must not import {other}"


def modules_imported_at_start(path: Path, modules: set[str]) -> set[str]:
    """The modules of ours that importing a file imports, those for type checkers aside."""
    own = path.relative_to(PACKAGE.parent).with_suffix("").parts
    found: set[str] = set()
    statements: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while statements:
        node = statements.pop()
        if isinstance(node, ast.If):
            guarded = ast.unparse(node.test).startswith("TYPE_CHECKING")
            statements += node.orelse if guarded else [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            statements += [*node.body, *(line for handler in node.handlers for line in handler.body)]
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(own[: -node.level]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            found |= {name if (name := f"{base}.{alias.name}") in modules else base for alias in node.names}
    return found & modules


def test_no_import_circles() -> None:
    """No module is imported, however indirectly, by what it imports itself."""
    names = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in FILES
    }
    imports = {name: modules_imported_at_start(path, set(names)) for name, path in names.items()}
    for name in names:
        reached: set[str] = set()
        ahead = set(imports[name])
        while ahead:
            reached |= ahead
            ahead = {other for module in ahead for other in imports[module]} - reached
        assert name not in reached, f"{name} imports itself through {sorted(reached)}"


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
    assert users == {"wire/http.py"}


def test_the_guest_needs_only_the_protocol() -> None:
    """What is shipped into a sandbox imports the protocol and nothing else of ours."""
    for path in (PACKAGE / "guest").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level >= 2:
                assert (node.level, node.module) == (2, "channel.protocol"), path.name
