"""The steps from the configuration to a cell's answer, tried one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from ..client.code_interpreter import AsyncCodeInterpreterClient
from ..config import Settings
from ..errors import AgentCubeError, LedgerError, SessionNotFoundError
from ..results import Ownership
from ..sandbox import AsyncSandbox
from ..sessions.ledger import Ledger, SessionRecord
from ..wire.auth import Authorizer, resolve_router_auth, resolve_workload_manager_auth
from ..wire.control_plane import AsyncControlPlaneClient
from ..wire.http import Connections, HttpAnswer
from ..wire.server_connection import ServerConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..results import SessionInfo

REACH_TIMEOUT = 10.0
LOOK_FOR_PYTHON = (
    "command -v python3 >/dev/null || exit 127; "
    "python3 -c 'import sys; print(\"%d.%d.%d\" % sys.version_info[:3])' || exit 126; "
    "python3 -c 'import IPython; print(IPython.__version__)' 2>/dev/null || echo none"
)
CELL = "print('hello'); 6 * 7"


class Status(Enum):
    """How a step ended."""

    OK = "ok"
    NOTE = "note"
    """Nothing is broken, but there is something to know."""
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: what was tried, how it ended, and what was found or what to do."""

    name: str
    status: Status
    detail: str
    seconds: float


class _Note(Exception):
    """Ends a step as `Status.NOTE`."""


class _Failed(Exception):
    """Ends a step as `Status.FAILED`, with what to do."""


@dataclass(slots=True, kw_only=True)
class Checkup:
    """Tries every step with the settings of an environment.

    `timeout` is in seconds and holds for each step. `on_start` gets the name of a step that begins, `on_step` the step
    when it has ended, and `on_notice` what a step that takes long has to say. A session that was created is deleted
    again however the checkup ends, cancellation included; one that was attached to is left as it was.
    """

    environ: Mapping[str, str] | None = field(default=None, repr=False)
    timeout: float = 150.0
    on_start: Callable[[str], None] = lambda name: None
    on_step: Callable[[Step], None] = lambda step: None
    on_notice: Callable[[str], None] = lambda text: None
    steps: list[Step] = field(default_factory=list)
    _settings: Settings = field(default_factory=Settings)
    _client: AsyncCodeInterpreterClient | None = None
    _sandbox: AsyncSandbox | None = None

    @property
    def ok(self) -> bool:
        """True when no step failed."""
        return all(step.status is not Status.FAILED for step in self.steps)

    async def run(self) -> list[Step]:
        """Try every step and return them all; a failed step has those that need it skipped."""
        tries = [
            ("settings", self._read_settings),
            ("kernelspec", self._find_kernelspec),
            ("reachability", self._reach),
            ("credential", self._get_token),
            ("session", self._open_session),
            ("python3", self._look_for_python),
            ("interpreter", self._start_interpreter),
            ("cell", self._run_cells),
        ]
        try:
            for name, attempt in tries:
                if self.ok:
                    await self._try(name, attempt)
                else:
                    self._end(Step(name=name, status=Status.SKIPPED, detail="", seconds=0.0))
        finally:
            if self._client is not None:
                await self._try("cleanup", self._clean_up)
        return self.steps

    async def _try(self, name: str, attempt: Callable[[], Awaitable[str]]) -> None:
        self.on_start(name)
        begun = time.monotonic()
        status = Status.FAILED
        try:
            async with asyncio.timeout(self.timeout):
                detail = await attempt()
            status = Status.OK
        except _Note as note:
            status, detail = Status.NOTE, str(note)
        except (_Failed, AgentCubeError) as error:
            detail = "\n".join([str(error), *getattr(error, "__notes__", ())])
        except TimeoutError:
            detail = f"Not done after {self.timeout:g} s. Give it more time with --timeout."
        self._end(Step(name=name, status=status, detail=detail, seconds=time.monotonic() - begun))

    def _end(self, step: Step) -> None:
        self.steps.append(step)
        self.on_step(step)

    async def _read_settings(self) -> str:
        self._settings = settings = Settings.load(self.environ)
        lines = [
            f"{row.name} {value}  ({origin})"
            for row, value, origin in settings.in_force()
            if origin != "default" or row.name in ("namespace", "interpreter")
        ]
        if settings.uses_embedded_gateway:
            lines.insert(
                0, "neither ROUTER_URL nor WORKLOAD_MANAGER_URL is set: the embedded gateway is used"
            )
        return "\n".join(lines)

    async def _find_kernelspec(self) -> str:
        found = await asyncio.to_thread(_our_kernelspecs)
        if not found:
            raise _Note(
                "Jupyter knows no kernel of ours. In the environment of your Jupyter run: agentcube-kernel install"
            )
        return "\n".join(f"{name}  {folder}" for name, folder in found)

    async def _reach(self) -> str:
        settings = self._settings
        if settings.uses_embedded_gateway:
            settings.check_embedded_allowed()
            from ..gateway.launcher import GatewayStartError, ensure_gateway

            try:
                gateway = await asyncio.to_thread(ensure_gateway)
            except GatewayStartError as error:
                raise _Failed(
                    f"The embedded gateway could not be started: {error} "
                    "Set ROUTER_URL and WORKLOAD_MANAGER_URL to use a cluster."
                ) from error
            return f"the embedded gateway is at {gateway.router_url} (process {gateway.pid})"
        if settings.picod_url is not None:
            return await _answers(f"{settings.picod_url}/health", "PicoD")
        told = []
        if settings.router_url is not None:
            told.append(await _answers(f"{settings.router_url}/health/ready", "the Router"))
        if settings.workload_manager_url is not None:
            async with AsyncControlPlaneClient(
                settings.workload_manager_url, credentials=settings.credentials
            ) as control_plane:
                await control_plane.health()
            told.append("the WorkloadManager is healthy")
        return "\n".join(told)

    async def _get_token(self) -> str:
        settings = self._settings
        if settings.uses_embedded_gateway:
            return "the embedded gateway's own"
        router, manager = (
            resolve(settings.credentials) for resolve in (resolve_router_auth, resolve_workload_manager_auth)
        )
        told = []
        for server, url, provider in (
            ("PicoD", settings.picod_url, router),
            ("the Router", settings.router_url, router),
            ("the WorkloadManager", settings.workload_manager_url, manager),
        ):
            if url is not None and provider is not None:
                await Authorizer(provider).token()
                told.append(f"for {server}: {provider!r}")
        if not told:
            raise _Note(
                "None is configured. If AgentCube asks for one, set AGENTCUBE_TOKEN_FILE, or set "
                "AGENTCUBE_OAUTH_TOKEN_URL, AGENTCUBE_OAUTH_CLIENT_ID and AGENTCUBE_OAUTH_CLIENT_SECRET."
            )
        return "\n".join(told)

    async def _open_session(self) -> str:
        self._client = client = AsyncCodeInterpreterClient(settings=self._settings, on_session=self._remember)
        await client.open()
        if client.ownership is Ownership.ATTACHED:
            health = await client.health()
            return f"attached to {client.session_id} ({health.service} {health.version})"
        return f"created {client.session_id}" if client.session_id else "none: a bare PicoD has no sessions"

    def _remember(self, session: SessionInfo) -> None:
        """Write the session down, so that it is found if this process dies."""
        record = SessionRecord.new(
            session.session_id,
            workload_manager_url=session.workload_manager_url,
            router_url=session.router_url,
            embedded=self._settings.uses_embedded_gateway,
            namespace=session.namespace,
            interpreter=session.name,
        )
        with contextlib.suppress(LedgerError):
            Ledger().record(record)

    async def _look_for_python(self) -> str:
        assert self._client is not None
        done = await self._client.data_plane.execute(["sh", "-c", LOOK_FOR_PYTHON], timeout=30)
        if done.exit_code:
            raise _Failed(
                "There is no python3 in the sandbox, or it does not start. Cells need one: choose an interpreter whose "
                f"image has it, with AGENTCUBE_INTERPRETER. {done.stderr.strip()[-500:]}"
            )
        python, ipython = (*done.stdout.split(), "none")[:2]
        told = "no IPython, so that of this machine is sent" if ipython == "none" else f"IPython {ipython}"
        return f"Python {python}, {told}"

    async def _start_interpreter(self) -> str:
        self._sandbox = AsyncSandbox(self._client, on_notice=self.on_notice)
        await self._sandbox.open()
        return "an interpreter runs in the sandbox"

    async def _run_cells(self) -> str:
        assert self._sandbox is not None
        result = await self._sandbox.run_cell(CELL)
        if (result.stdout, result.text) != ("hello\n", "42"):
            told = result.evalue or f"{result.stdout!r} and {result.text!r}"
            raise _Failed(f"A cell that prints 'hello' and returns 42 gave {told}.")
        times = []
        for _ in range(5):
            begun = time.monotonic()
            await self._sandbox.run_cell("None")
            times.append(time.monotonic() - begun)
        return f"a cell answers in {1000 * statistics.median(times):.0f} ms"

    async def _clean_up(self) -> str:
        client = self._client
        assert client is not None
        owned = client.ownership is Ownership.OWNED and client.session_id is not None
        session_id = client.session_id
        if not owned:
            # Others may use this interpreter: it is not ours to end.
            await (self._sandbox or client).close()
            return "nothing to delete" if session_id is None else f"{session_id} was left as it was"
        with contextlib.suppress(SessionNotFoundError):
            await (self._sandbox or client).stop()
        with contextlib.suppress(LedgerError):
            Ledger().forget(str(session_id))
        return f"deleted {session_id}"


async def _answers(url: str, server: str) -> str:
    """Say that a server answers, whatever it answers, unless it says that it is not ready."""

    def read(answer: HttpAnswer) -> int:
        return answer.status

    connection = ServerConnection(Connections(url, limit=1, connect_timeout=REACH_TIMEOUT), None)
    try:
        status = await connection.send("GET", url, read=read, timeout=REACH_TIMEOUT)
    finally:
        await connection.aclose()
    if status >= 500:
        raise _Failed(
            f"{server} answers {status} at {url}: it is not ready, or something before it is broken."
        )
    return f"{server} answers at {url}" + ("" if status == 200 else f" (with {status})")


def _our_kernelspecs() -> list[tuple[str, str]]:
    """Name and folder of every kernelspec that starts this kernel."""
    from jupyter_client.kernelspec import KernelSpecManager

    specs = KernelSpecManager().get_all_specs()
    return sorted(
        (name, entry["resource_dir"])
        for name, entry in specs.items()
        if "agentcube_kernel" in entry["spec"].get("argv", ())
    )
