"""Runs of agents that were written to block, awaited: each in a thread, and ended when it is cancelled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import threading
from typing import Any

from ..errors import ClientStateError, ConfigurationError

# More than runs at once on one machine; a thread is made when it is first needed.
_THREADS = 256
_STEP = 0.2
"""Seconds between two interrupts of a run that does not end: one that comes too early is forgotten by the agent."""
_PATIENCE = 10.0
"""Seconds that a cancelled run gets to end; a call of the model cannot be interrupted."""

_lock = threading.Lock()
_running: dict[int, object] = {}


async def arun(agent: Any, task: str, **options: Any) -> Any:
    """`agent.run(task, **options)` without blocking the event loop; its answer.

    Any number of agents run at once, each with a model's and a sandbox's waiting times of its own. When the call is
    cancelled the agent and its code are interrupted; the call waits up to 10 s for the end of the step.

    Raises:
        ClientStateError: the agent is running already, or another agent runs in its sandbox.
        ConfigurationError: `stream=True`, which has no single answer.
        what `agent.run` raises.
    """
    if options.get("stream"):
        raise ConfigurationError("arun gives one answer: it cannot stream.", name="stream")
    used = _reserve(agent)
    run = functools.partial(contextvars.copy_context().run, agent.run, task, **options)
    try:
        work = _threads().submit(_run, run, used)
    except BaseException:
        _release(used)
        raise
    ended = asyncio.wrap_future(work)
    ended.add_done_callback(_note_error)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        await _end(agent, ended)
        raise


def _run(run: Any, used: list[object]) -> Any:
    try:
        return run()
    finally:
        _release(used)


def _note_error(ended: asyncio.Future[Any]) -> None:
    """Nobody may be left to hear of it."""
    if not ended.cancelled():
        ended.exception()


async def _end(agent: Any, ended: asyncio.Future[Any]) -> None:
    executor = getattr(agent, "python_executor", None)
    interrupt = getattr(executor, "interrupt", None)
    for _ in range(round(_PATIENCE / _STEP)):
        agent.interrupt()
        if interrupt is not None:
            interrupt()
        await asyncio.wait({ended}, timeout=_STEP)
        if ended.done():
            break


def _reserve(agent: Any) -> list[object]:
    """Note that an agent runs, and that nothing else may run in its sandbox."""
    sandbox = getattr(getattr(agent, "python_executor", None), "sandbox", None)
    used = [agent] if sandbox is None else [agent, sandbox]
    with _lock:
        if id(agent) in _running:
            raise ClientStateError(
                "This agent is running already. An agent has one memory: make one for each run."
            )
        if id(sandbox) in _running:
            raise ClientStateError(
                "Another agent is running in this agent's sandbox, and they would overwrite each other's variables. "
                "Give every agent an executor of its own."
            )
        _running.update({id(each): each for each in used})
    return used


def _release(used: list[object]) -> None:
    with _lock:
        for each in used:
            _running.pop(id(each), None)


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="agentcube-agent")
