"""Whether a file on its way into a sandbox looks like a credential: a key, a token, a password file."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

# Below the home folder, asked about wherever the notebook is. A folder stands for all that is in it.
_PLACES = (
    *(".aws", ".azure", ".config/gcloud", ".config/gh", ".config/hub", ".docker", ".gnupg", ".kube", ".ssh"),
    *(".git-credentials", ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc", ".my.cnf", ".vault-token"),
    *(
        ".config/rclone",
        ".config/sops",
        ".local/share/keyrings",
        ".password-store",
        ".mozilla",
        ".terraform.d",
    ),
    *(".cargo/credentials.toml", ".huggingface", ".cache/huggingface/token", ".kaggle", ".jupyter"),
)
_SYSTEM = ("/etc/shadow", "/etc/gshadow", "/etc/ssh", "/proc", "/run/secrets", "/var/run/secrets")
# Names that are asked about outside the notebook's folder.
_NAMES = (
    *(
        "*.pem",
        "*.key",
        "*.p12",
        "*.pfx",
        "*.jks",
        "*.keytab",
        "*.kdbx",
        "*.ppk",
        "*.ovpn",
        "id_rsa*",
        "id_dsa*",
    ),
    *(
        "id_ecdsa*",
        "id_ed25519*",
        "*token*",
        "*credential*",
        "*secret*",
        "*password*",
        "*passwd*",
        ".env",
        ".env.*",
    ),
    *(
        "kubeconfig*",
        "service-account*.json",
        "service_account*.json",
        ".netrc",
        "_netrc",
        ".git-credentials",
    ),
    *(".pgpass", ".pypirc", ".npmrc", ".htpasswd"),
)
# A larger folder is asked about as it is: looking through it would take too long.
_MOST_ENTRIES = 50_000


def find_credential(path: str, *, notebook_folder: str) -> str | None:
    """The first thing at or below `path` that looks like a credential, or what cannot be looked through; or None."""
    real = os.path.realpath(path)
    home = Path(os.path.realpath(Path.home()))
    places = [*(str(home / place) for place in _PLACES), *_SYSTEM]
    if any(_is_within(found, place) for place in places for found in (real, os.path.abspath(path))):
        return path
    inside = _is_within(real, os.path.realpath(notebook_folder))
    if not inside and _has_name(real, path):
        return path
    if not os.path.isdir(real):
        return None
    below = [place for place in places if _is_within(place, real) and os.path.exists(place)]
    return below[0] if below else None if inside else _search(path)


def _search(folder: str) -> str | None:
    seen = 0
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            seen += 1
            if _has_name(name):
                return os.path.join(parent, name)
        if seen > _MOST_ENTRIES:
            return folder
    return None


def _has_name(*paths: str) -> bool:
    names = [os.path.basename(path).lower() for path in paths]
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in _NAMES)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
