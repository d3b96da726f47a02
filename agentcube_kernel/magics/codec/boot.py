"""Run the codec where this package is not installed: from the sources of its modules, leaving no module behind."""

from __future__ import annotations

import sys
import types
from typing import Any

_PACKAGE = "agentcube_variables"


def run(sources: Any, namespace: Any, request: Any) -> Any:
    """The answer of `service.answer`. `sources` are the modules' by name, each after those that it imports."""
    package = types.ModuleType(_PACKAGE)
    package.__path__ = []
    loaded: Any = {_PACKAGE: package}
    try:
        sys.modules[_PACKAGE] = package
        for name, source in sources.items():
            module = types.ModuleType(f"{_PACKAGE}.{name}")
            module.__package__ = _PACKAGE
            loaded[module.__name__] = sys.modules[module.__name__] = module
            exec(compile(source, f"<{module.__name__}>", "exec"), module.__dict__)  # noqa: S102 - our own source
        return loaded[f"{_PACKAGE}.service"].answer(namespace, request)
    finally:
        for name in loaded:
            sys.modules.pop(name, None)
