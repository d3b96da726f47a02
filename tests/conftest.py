"""What every test stands on: a clean environment, an AgentCube, and a look for what was left behind.

Which AgentCube the tests use is decided by the environment that pytest is started in:

- nothing set: the embedded gateway, one process for the whole run;
- ROUTER_URL and WORKLOAD_MANAGER_URL (and AGENTCUBE_TOKEN): that AgentCube;
- AGENTCUBE_PICOD_URL (and AGENTCUBE_TOKEN): one bare PicoD; what needs sessions is skipped and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.cache import CACHE
from tests.endpoints import TAKEOVER_SECONDS, Endpoint, endpoint_from, start_embedded

# A name that the reaper hands on, whose environment is a clean one.
RUN_MARK = "JUPYTER_AGENTCUBE_TEST_RUN"
INHERITED = {
    name: os.environ[name]
    for name in (
        "ROUTER_URL",
        "WORKLOAD_MANAGER_URL",
        "AGENTCUBE_PICOD_URL",
        "AGENTCUBE_TOKEN",
        "AGENTCUBE_TOKEN_FILE",
    )
    if os.environ.get(name)
}
# How long something that was told to end may take before it counts as left behind.
GRACE = 5.0
REAPER_GRACE = 15.0


def pytest_configure(config: pytest.Config) -> None:
    """Point everything that keeps state in a home folder at a temporary one, before anything is imported."""
    home = Path(tempfile.mkdtemp(prefix="agentcube-test-"))
    config.stash[_HOME] = home
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    dropped = ("AGENTCUBE_", "JUPYTER", "IPYTHON", "XDG_", "KERNEL_")
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in list(os.environ):
        if name == "AGENTCUBE_HTTP_LIBRARY":
            continue  # which HTTP library the client is to be tested with
        if (
            name.startswith(dropped)
            or name in ("ROUTER_URL", "WORKLOAD_MANAGER_URL")
            or name.lower() in proxies
        ):
            del os.environ[name]
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ.update(
        {
            "HOME": str(home),
            "JUPYTER_PLATFORM_DIRS": "1",
            "JUPYTER_RUNTIME_DIR": str(runtime / "jupyter"),
            "XDG_RUNTIME_DIR": str(runtime),
            "MPLCONFIGDIR": str(CACHE / "matplotlib"),
            "AGENTCUBE_TAKEOVER": str(TAKEOVER_SECONDS),
            RUN_MARK: uuid.uuid4().hex,
        }
    )


_HOME = pytest.StashKey[Path]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have every coroutine test checked for tasks that it left running."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            # First in, so last out: the fixtures of the test have ended their own tasks by then. Those of a wider
            # scope come before it, since theirs go on.
            known = item._fixtureinfo.name2fixturedefs
            wider = [n for n in item.fixturenames if n in known and known[n][-1].scope != "function"]
            own = [n for n in item.fixturenames if n not in wider]
            item.fixturenames[:] = [*wider, "no_task_left_behind", *own]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The one event loop that this package runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def home(request: pytest.FixtureRequest) -> Path:
    """The temporary home folder of this run."""
    return request.config.stash[_HOME]


@pytest.fixture(autouse=True)
def restored_environment() -> Iterator[None]:
    """Give every test the environment that the run started with."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def endpoint(home: Path) -> Iterator[Endpoint]:
    """The AgentCube of this run; see the top of this file for which one it is."""
    given = endpoint_from(INHERITED)
    if given is not None:
        yield given
        return
    with start_embedded(home / "gateway") as embedded:
        yield embedded
        gateway = psutil.Process(embedded.pid)
        # Reapers of kernels that were killed get the time they need; then every sandbox must be gone.
        left = _wait_until_empty(lambda: _running(gateway.children(recursive=True)), REAPER_GRACE)
        assert not left, f"sandboxes left running: {[str(process) for process in left]}"


@pytest.fixture(scope="session")
def endpoint_env(endpoint: Endpoint) -> dict[str, str]:
    """The environment variables that point a kernel or a client at this run's AgentCube."""
    return dict(endpoint.env)


@pytest.fixture
def configured(endpoint_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Put `endpoint_env` into this process's environment for one test."""
    for name, value in endpoint_env.items():
        monkeypatch.setenv(name, value)
    return endpoint_env


@pytest.fixture
def needs_sessions(endpoint: Endpoint) -> None:
    """Skip where there is one bare PicoD, and so nothing that creates or deletes sessions."""
    if endpoint.kind == "picod":
        pytest.skip("a bare PicoD has no sessions to create or delete")


@pytest.fixture
def needs_embedded(endpoint: Endpoint) -> None:
    """Skip unless this run has its own embedded gateway."""
    if endpoint.kind != "embedded":
        pytest.skip("this test needs the embedded gateway")


@pytest.fixture
async def no_task_left_behind(anyio_backend: str) -> AsyncIterator[None]:
    """Fail a coroutine test that leaves a task of its own running."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if not _is_runners(task)}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE)
    assert not left, f"tasks left running: {left}"


def _is_runners(task: asyncio.Task[object]) -> bool:
    """True for the tasks in which anyio runs tests and fixtures."""
    coro = task.get_coro()
    return task is asyncio.current_task() or getattr(coro, "__qualname__", "").startswith("TestRunner.")


@pytest.fixture(autouse=True)
def no_process_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process; those of fixtures with a wider scope were there before it."""
    before = set(psutil.Process().children())
    yield
    _, left = psutil.wait_procs(_running(set(psutil.Process().children()) - before), timeout=GRACE)
    assert not left, f"processes left running: {[_describe(process) for process in left]}"


def _running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if not _is_helper(process)]


def _is_helper(process: psutil.Process) -> bool:
    """True for what is over, and for multiprocessing's own helper, which lives as long as the run."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE or "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return True


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    return str(process.pid)


def _of_this_run(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(RUN_MARK) == mark:
                found.append(process)
    return _running(found)


def _wait_until_empty(look: Callable[[], Sequence[object]], timeout: float) -> Sequence[object]:
    deadline = time.monotonic() + timeout
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _inet_sockets() -> list[str]:
    used = (psutil.CONN_LISTEN, psutil.CONN_ESTABLISHED)
    return [
        f"{connection.status} {connection.laddr} {connection.raddr}"
        for connection in psutil.Process().net_connections("inet")
        if connection.status in used
    ]


@pytest.fixture(scope="session", autouse=True)
def nothing_survives_the_run(home: Path) -> Iterator[None]:
    """Fail the run if a process that it started, detached ones too, or a socket is there at its end."""
    yield
    processes = _wait_until_empty(lambda: _of_this_run(os.environ[RUN_MARK]), REAPER_GRACE)
    described = [_describe(process) for process in processes if isinstance(process, psutil.Process)]
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()  # type: ignore[attr-defined]
    assert not described, f"processes left running at the end: {described}"
    sockets = _wait_until_empty(_inet_sockets, GRACE)
    assert not sockets, f"sockets left open at the end: {sockets}"
