"""What the sandbox's side does for a transfer, and how files are written on either side."""

from __future__ import annotations

import json
import os
from typing import Any

from .decoder import Decoder
from .encoder import Encoder
from .format import CodecError

# What IPython puts into every namespace.
_SHELLS = frozenset({"In", "Out", "exit", "get_ipython", "open", "quit"})


def answer(namespace: Any, request: Any) -> Any:
    """Do the sandbox's side of one transfer. Returns JSON; errors are told in it, never raised."""
    try:
        reply = {"dump": _dump, "load": _load, "facts": _facts, "check": _check}[request["do"]](
            namespace, request
        )
    except CodecError as exc:
        reply = {"error": str(exc)}
    except Exception as exc:
        reply = {"error": f"{type(exc).__name__}: {exc}"}
    return json.dumps(reply)


def _facts(namespace: Any, request: Any) -> Any:
    import importlib.util

    return {name: importlib.util.find_spec(name) is not None for name in ("numpy", "pandas", "pyarrow")}


def _check(namespace: Any, request: Any) -> Any:
    missing = [name for name in request["names"] if name not in namespace]
    near = [name for name in namespace if not name.startswith("_") and name not in _SHELLS]
    return {"missing": missing, "near": sorted(near)[:2000]}


def _dump(namespace: Any, request: Any) -> Any:
    if "out" in request:
        number = request["out"]
        values = {request["name"]: None if number is None else namespace["Out"][number]}
        return dump(values, request["path"], arrow=request["arrow"], pickle=request["pickle"])
    checked = _check(namespace, request)
    if checked["missing"]:
        return checked
    names = request["names"]
    values = {request.get("as", {}).get(name, name): namespace[name] for name in names}
    return dump(values, request["path"], arrow=request["arrow"], pickle=request["pickle"])


def _load(namespace: Any, request: Any) -> Any:
    try:
        with open(request["path"], "rb") as file:
            values = Decoder(file, pickle=request["pickle"]).read(request["names"])
    finally:
        os.unlink(request["path"])
    store(namespace, values, request.get("key"))
    return {"names": sorted(values)}


def store(namespace: Any, values: Any, key: Any = None) -> None:
    """Set variables; with `key`, as an item of dictionaries that have their names."""
    if key is None:
        namespace.update(values)
        return
    for name, value in values.items():
        collected = namespace.get(name)
        if not isinstance(collected, dict):
            collected = namespace[name] = {}
        collected[key] = value


def dump(values: Any, path: Any, arrow: bool = False, pickle: bool = False) -> dict[str, Any]:
    """Write variables into a new file that only its owner can read. Nothing is left when that fails."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with open(fd, "wb") as file:
            encoder = Encoder(file, arrow=arrow, pickle=pickle)
            encoder.finish(values)
            size = file.tell()
    except BaseException:
        os.unlink(path)
        raise
    return {"size": size, "pickled": encoder.pickled}
