"""Set everything up in virtual environments of its own, and run it. Needs Python 3.11 and a package index.

    python3 dev.py lab     JupyterLab on notebooks/quickstart.ipynb, on the embedded gateway
    python3 dev.py test    the linters, the type checker and the tests; with --all also those that are slow
    python3 dev.py coverage    which lines the tests reach, in every process: kernels, gateways and guests too
    python3 dev.py bench   the benchmarks

What comes after the command is passed on to JupyterLab, pytest or the benchmarks.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venv"
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
# The extra of pyproject.toml that each command needs.
EXTRAS = {"lab": "lab", "test": "test", "bench": "test", "coverage": "test"}

# Takes the place of an environment's Python, so that every process is measured: those of a sandbox, which have an
# environment of their own, and the guest's supervisor, which runs without site-packages (-S).
MEASURED_PYTHON = """\
#!/bin/bash
export COVERAGE_PROCESS_START={settings}
measure='import sys; sys.path.append("{packages}"); import coverage; coverage.process_startup(); sys.path.pop()'
if [ "$1 $2 $3" = "-I -S -c" ]; then code=$4; shift 4; set -- -I -S -c "$measure
$code" "$@"; fi
exec -a "$0" {python} "$@"
"""
COVERAGE_SETTINGS = """\
[run]
branch = true
parallel = true
sigterm = true
source_pkgs = agentcube_kernel, _agentcube_guest
data_file = {folder}/data
disable_warnings = module-not-imported, no-data-collected, module-not-measured, couldnt-parse
[paths]
source =
    {root}/agentcube_kernel
    */_agentcube_guest
[report]
omit = */guest/boot.py
"""


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what an older Python is tried with
        return fail(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    if not arguments or arguments[0] not in EXTRAS:
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    command, passed_on = arguments[0], arguments[1:]
    try:
        python = environment(
            EXTRAS[command], VENVS / ("coverage" if command == "coverage" else EXTRAS[command])
        )
    except subprocess.CalledProcessError as error:
        return fail(
            f"The environment could not be set up: {' '.join(error.cmd)} ended with {error.returncode}."
        )
    except OSError as error:
        return fail(f"The environment could not be set up: {error}. Is the package index reachable?")
    os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {"lab": lab, "test": test, "bench": bench, "coverage": coverage}[command](python, passed_on)


def lab(python: Path, arguments: list[str]) -> int:
    """Open JupyterLab on the quickstart."""
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    # The address that Jupyter prints leads to the notebook too, for machines that have no browser to open.
    place = [f"--ServerApp.root_dir={NOTEBOOK.parent}", f"--LabApp.default_url=/lab/tree/{NOTEBOOK.name}"]
    return run(python, "-m", "jupyterlab", *place, *as_root, *arguments)


def test(python: Path, arguments: list[str]) -> int:
    """Run every check, also when an earlier one failed; with other arguments than --all, pytest alone."""
    everything = arguments == ["--all"]
    checks: list[tuple[str, ...]] = [("-m", "pytest", *arguments)]
    if everything or not arguments:
        lint = [("-m", "ruff", "check"), ("-m", "ruff", "format", "--check"), ("-m", "mypy")]
        # Much of the time is spent waiting, so that more processes than two help even two processors.
        checks = [*lint, ("-m", "pytest", "-n", "3", "--dist", "loadfile")]
        if everything:
            # One after the other: such suites want the machine to themselves.
            checks.append(("-m", "pytest", "-m", "rare"))
    failed = [" ".join(check) for check in checks if run(python, *check)]
    return fail(f"Failed: {'; '.join(failed)}") if failed else 0


def coverage(python: Path, arguments: list[str]) -> int:
    """Run the tests, all or those that pytest is told to, and print the lines that nothing has reached."""
    folder = VENVS / "coverage" / "measured"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    settings = folder / "settings"
    settings.write_text(COVERAGE_SETTINGS.format(folder=folder, root=ROOT))
    wrapped = python.parent / "measured"
    if not wrapped.exists():
        real = os.path.realpath(python)
        packages = next((python.parents[1] / "lib").glob("python*/site-packages"))
        (packages / "measured.pth").write_text("import coverage; coverage.process_startup()\n")
        wrapped.write_text(MEASURED_PYTHON.format(settings=settings, packages=packages, python=real))
        wrapped.chmod(0o755)
        for name in ("python", "python3", os.path.basename(real)):
            (python.parent / name).unlink(missing_ok=True)
            (python.parent / name).symlink_to(wrapped)
    # An isolated sandbox could not write down what it has reached.
    os.environ["AGENTCUBE_GATEWAY_BUBBLEWRAP"] = "0"
    status = run(python, "-m", "pytest", *(arguments or ("-n", "3", "--dist", "loadfile")))
    data = ["-m", "coverage", "combine", "--quiet", "--rcfile", str(settings)]
    run(python, *data)
    run(python, "-m", "coverage", "report", "--rcfile", str(settings), "--skip-covered", "--show-missing")
    return status


def bench(python: Path, arguments: list[str]) -> int:
    """Print the table of ratios."""
    return run(python, "-m", "benchmarks", *arguments)


def run(python: Path, *arguments: str) -> int:
    """Run Python in the repository's root and return its exit status; Ctrl-C is the child's to handle."""
    print(f"$ python {' '.join(arguments)}", flush=True)
    with subprocess.Popen([str(python), *arguments], cwd=ROOT) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue


def fail(message: str) -> int:
    """Say what went wrong."""
    print(message, file=sys.stderr)
    return 1


def environment(extra: str, folder: Path) -> Path:
    """Make a virtual environment with an extra unless it is there and up to date, and return its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "installed"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"Setting up {folder.relative_to(ROOT)} (a minute or two) ...", flush=True)
    pip = make_venv(folder, python)
    subprocess.run([*pip, "install", "--quiet", "--editable", f"{ROOT}[{extra}]"], check=True)
    stamp.write_text(wanted)
    return python


def make_venv(folder: Path, python: Path) -> list[str]:
    """Make a virtual environment and return the command that is its pip."""
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True)
    if made.returncode:
        # Debian's python3 comes without ensurepip; pip itself can be run from its wheel.
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
        subprocess.run([str(python), f"{download_pip()}/pip", "install", "--quiet", "pip"], check=True)
    return [str(python), "-m", "pip", "--disable-pip-version-check"]


def download_pip() -> Path:
    """Download pip's newest wheel from the package index and return its path."""
    page = f"{index_url().rstrip('/')}/pip/"
    accept = "application/vnd.pypi.simple.v1+json"
    with urllib.request.urlopen(
        urllib.request.Request(page, headers={"Accept": accept}), timeout=60
    ) as answer:
        listing = json.load(answer)
    wheels = [file for file in listing["files"] if is_final_wheel(file)]
    newest = max(wheels, key=lambda file: version_of(file["filename"]))
    with urllib.request.urlopen(urllib.parse.urljoin(page, newest["url"]), timeout=60) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != newest["hashes"]["sha256"]:
        raise OSError(f"{newest['filename']} arrived damaged")
    path = Path(tempfile.mkdtemp()) / newest["filename"]
    path.write_bytes(content)
    return path


def is_final_wheel(file: dict[str, object]) -> bool:
    """True for a wheel of a final release that has not been withdrawn."""
    name = str(file["filename"])
    return name.endswith("-py3-none-any.whl") and not file.get("yanked") and bool(version_of(name))


def version_of(wheel: str) -> tuple[int, ...]:
    """A wheel's version, or nothing when it is not a final release."""
    parts = wheel.split("-")[1].split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def index_url() -> str:
    """The package index that pip would use."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url
    config = configparser.ConfigParser(interpolation=None)
    home = Path.home()
    config.read(
        [
            "/etc/pip.conf",
            *(home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"),
            os.environ.get("PIP_CONFIG_FILE", os.devnull),
        ]
    )
    return config.get("global", "index-url", fallback="https://pypi.org/simple")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
