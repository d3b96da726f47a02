"""Nothing is dead, and nothing is imported that is not declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "agentcube_kernel"
FILES = sorted(PACKAGE.rglob("*.py"))
PARSED = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
OUR_CLASSES = {
    node.name for tree in PARSED.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
}

# Names that nothing in the repository mentions again, and why they stay.
KEPT = {
    "unload_ipython_extension": "IPython calls it",
    "_parent_header": "code that was written for ipykernel reads it",
    "do_shutdown": "ipykernel calls it",
    "create_app": "made for servers that take an application factory",
}
# Found by name: Python's own methods, IPython's, the answer to each of the guest's requests, the decoder of each type.
FOUND_BY_NAME = re.compile(r"__|_repr_|_op_|_read_")
# Distributions that are needed though no module of ours imports them, and why.
NOT_IMPORTED: dict[str, str] = {}
# Modules that no installed distribution tells the name of here.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "backports": "backports-tarfile",
    "httpx2": "httpx2",
    "pyarrow": "pyarrow",
    "pydantic_ai": "pydantic-ai-slim",
}


def definitions(path: Path) -> Iterator[tuple[str, int]]:
    """The names that a module gives to functions, methods, classes and constants, with their lines.

    Methods of classes with a base from elsewhere are skipped, since their callers may be elsewhere too. So are
    functions that a decorator registers.
    """
    for node in PARSED[path].body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, node.lineno) for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ClassDef):
            yield node.name, node.lineno
            bases = {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
            if bases <= OUR_CLASSES | {"ABC", "Generic", "Protocol", "Enum", "Exception"}:
                yield from functions(node.body)
        else:
            yield from functions([node])


def functions(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """The functions of a body that no decorator takes, properties and the like aside."""
    plain = {"property", "classmethod", "staticmethod", "contextlib.contextmanager", "abstractmethod"}
    plain |= {"contextlib.asynccontextmanager", "functools.cache"}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and plain >= {
            ast.unparse(decorator) for decorator in node.decorator_list
        }:
            yield node.name, node.lineno


def test_nothing_is_dead() -> None:
    """Every name is mentioned somewhere else: in the package, or, being public, in a test, an example or the docs."""
    sources = [*FILES, ROOT / "pyproject.toml", *(ROOT / "kernelspec").glob("*.json")]
    words = Counter(word for path in sources for word in re.findall(r"\w+", path.read_text(encoding="utf-8")))
    outside = [
        path
        for folder in ("tests", "docs", "benchmarks", "notebooks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".ipynb") and path != Path(__file__)
    ]
    public = {
        word
        for path in [*outside, ROOT / "README.md"]
        for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
    }
    defined = [(path, name, line) for path in FILES for name, line in definitions(path)]
    times = Counter(name for _, name, _ in defined)
    dead = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path, name, line in defined
        if words[name] <= times[name]
        and not (not name.startswith("_") and name in public)
        and name not in KEPT
        and not FOUND_BY_NAME.match(name)
    ]
    assert dead == []


def imported() -> set[str]:
    """The modules of others that the package imports."""
    found = set()
    for tree in PARSED.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"agentcube_kernel"}


def test_imports_are_declared() -> None:
    """What the package imports is in `dependencies`, or in an extra for users, and nothing else is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    extras = {
        canonicalize_name(Requirement(line).name)
        for name, lines in project["optional-dependencies"].items()
        if name not in ("test", "dev", "docs")
        for line in lines
    }
    known = packages_distributions()
    used = {canonicalize_name(DISTRIBUTIONS.get(name) or known.get(name, [name])[0]) for name in imported()}
    assert used - needed - extras == set()
    assert needed - used - set(NOT_IMPORTED) == set()
