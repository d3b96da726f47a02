"""The environment of a sandbox: what commands need of the host's, and nothing that could be a credential."""

from __future__ import annotations

import os
import site
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .view import View

# An allowlist: a new credential variable of some tool must not be the one that was forgotten here.
_KEPT = frozenset(
    (
        *("LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL", "TERM", "SYSTEMROOT"),
        *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_PYTHON_EXE", "PYTHONDONTWRITEBYTECODE"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NIX_SSL_CERT_FILE"),
        *(
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "CUDA_VISIBLE_DEVICES",
            "MPLCONFIGDIR",
        ),
    )
)
_URLS = frozenset(
    (
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "UV_INDEX_URL", "UV_DEFAULT_INDEX"),
    )
)

_GATEWAY = frozenset(("HOME", "PATH", "TMPDIR"))
_GATEWAY_PREFIXES = ("AGENTCUBE_GATEWAY_", "JUPYTER_", "PYTHON", "XDG_")
# Folders that an isolated sandbox does not see.
_FOLDERS = ("MPLCONFIGDIR",)


def gateway_environment(host: Mapping[str, str]) -> dict[str, str]:
    """Variables for a gateway that is started in the background: none of them could be a credential.

    What a sandbox may have is among them, and what the gateway's Python needs to find its packages and settings.
    """
    kept = _allowed(host)
    kept.update((name, value) for name, value in host.items() if name in _GATEWAY)
    kept.update((name, value) for name, value in host.items() if name.startswith(_GATEWAY_PREFIXES))
    return kept


def sandbox_environment(host: Mapping[str, str], *, folder: str, view: View | None) -> dict[str, str]:
    """Variables for the commands of the sandbox in `folder`.

    `python3` is the interpreter that runs the gateway. HOME is the workspace, as it is in AgentCube's image. Caches
    are shared with the user's other programs (fonts and wheels are not fetched again for every sandbox), except in
    an isolated sandbox, which sees the `view` alone: it has a cache of its own, and what pip installs goes to a folder
    of its own, since it cannot write to its Python's.
    """
    env = _allowed(host)
    workspace = os.path.join(folder, "workspace")
    folders = search_path(host).split(os.pathsep)
    env["PATH"] = os.pathsep.join(place for place in folders if view is None or view.shows(place))
    env["HOME"] = env["PWD"] = workspace
    env["TMPDIR"] = os.path.join(folder, "tmp")
    env["XDG_CACHE_HOME"] = (user_cache() if view is None else "") or os.path.join(folder, "cache")
    if site.ENABLE_USER_SITE and site.USER_BASE:
        # HOME is another one in the sandbox; packages installed with pip --user stay importable.
        env["PYTHONUSERBASE"] = site.USER_BASE
    if view is not None:
        for name in _FOLDERS:
            env.pop(name, None)
        env["PIP_TARGET"] = env["PYTHONPATH"] = os.path.join(folder, "site-packages")
    return env


def _allowed(host: Mapping[str, str]) -> dict[str, str]:
    env = {name: value for name, value in host.items() if name in _KEPT or name.startswith("LC_")}
    env.update((name, value) for name, value in host.items() if name in _URLS and not _has_userinfo(value))
    return env


def user_cache() -> str:
    """The user's cache folder if there is one."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return folder if os.path.isabs(folder) and os.access(folder, os.W_OK) else ""


def search_path(host: Mapping[str, str]) -> str:
    """The host's PATH with the folder of the gateway's own interpreter first."""
    interpreter = os.path.dirname(sys.executable) if sys.executable else ""
    folders = [interpreter, *(host.get("PATH") or os.defpath).split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(folder for folder in folders if os.path.isabs(folder)))


def _has_userinfo(value: str) -> bool:
    return any("@" in (urlsplit(part).netloc or part) for part in value.split())
