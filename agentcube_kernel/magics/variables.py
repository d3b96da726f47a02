"""Variables of a namespace, here or in a sandbox, as files in the codec's format."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import tempfile
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ResponseError, SandboxError
from ..limits import DEFAULT_LIMITS
from ..text import did_you_mean
from ..text import size as text_size
from . import codec
from .codec.shipping import expression
from .settable import check_settable
from .usage import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence

    from ..registry.entry import Entry
    from ..sandbox import AsyncSandbox

    Progress = Callable[[int, int | None], object]

_HIDDEN_FOLDER = ".agentcube-kernel"


class TransferRefusedError(SandboxError):
    """A variable cannot be sent, or what came cannot be read; the message names it. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dumped:
    """A file of variables. `pickled` names those that only pickle could carry."""

    size: int
    pickled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How to send: whether both sides have pyarrow, and whether the user allows pickle."""

    arrow: bool = False
    pickle: bool = False


class Variables(Protocol):
    """A namespace from which variables can be sent, and into which they can come."""

    title: str
    """What to call it in a message."""

    async def has_arrow(self) -> bool:
        """Whether pyarrow and pandas are installed there."""

    async def dump(self, names: Mapping[str, str], path: str, terms: Terms, progress: Progress) -> Dumped:
        """Write variables to a new local file; `names` maps each variable to the name it is to have there.

        Raises:
            UsageError: there is no such variable.
            TransferRefusedError: one of them cannot be sent.
        """

    async def load(
        self, path: str, names: Sequence[str], terms: Terms, progress: Progress, *, key: str | None = None
    ) -> None:
        """Set these variables, and no others, from a local file.

        With `key` each becomes that item of a dictionary of its name.

        Raises:
            UsageError: a name must not be set.
            TransferRefusedError: the file lacks one of them, or cannot be read; nothing was set.
        """

    async def start_collecting(self, name: str) -> None:
        """Set a variable to an empty dictionary, for items to come."""


class LocalVariables:
    """The user's namespace in this process."""

    title = "this notebook"

    def __init__(self, namespace: MutableMapping[str, Any]) -> None:
        self._namespace = namespace

    async def has_arrow(self) -> bool:
        return _local_arrow()

    async def dump(self, names: Mapping[str, str], path: str, terms: Terms, progress: Progress) -> Dumped:
        missing = [name for name in names if name not in self._namespace]
        if missing:
            raise _missing(missing, "in this notebook", list(self._namespace))
        values = {new: self._namespace[name] for name, new in names.items()}

        def dump() -> dict[str, Any]:
            os.unlink(path)
            return codec.dump(values, path, arrow=terms.arrow, pickle=terms.pickle)

        try:
            done = await asyncio.to_thread(dump)
        except codec.CodecError as error:
            raise TransferRefusedError(f"Nothing was sent. {error}.") from None
        return Dumped(size=done["size"], pickled=tuple(done["pickled"]))

    async def load(
        self, path: str, names: Sequence[str], terms: Terms, progress: Progress, *, key: str | None = None
    ) -> None:
        check_settable(names)
        stop = threading.Event()

        def load() -> dict[str, Any]:
            with open(path, "rb") as file:
                return codec.Decoder(file, pickle=terms.pickle, stop=stop).read(names)

        try:
            codec.store(self._namespace, await asyncio.to_thread(load), key)
        except codec.CodecError as error:
            raise TransferRefusedError(f"What the sandbox sent cannot be read: {error}.") from None
        finally:
            stop.set()

    async def start_collecting(self, name: str) -> None:
        check_settable([name])
        self._namespace[name] = {}


class SandboxVariables:
    """The namespace of a sandbox's interpreter."""

    def __init__(self, entry: Entry, on_step: Callable[[str], None] = lambda step: None) -> None:
        self.title = f"sandbox {entry.name}"
        self._entry = entry
        self._on_step = on_step

    @property
    def entry(self) -> Entry:
        """The sandbox."""
        return self._entry

    async def has_arrow(self) -> bool:
        facts = await self._ask({"do": "facts"})
        return bool(facts.get("pyarrow")) and bool(facts.get("pandas"))

    async def dump(self, names: Mapping[str, str], path: str, terms: Terms, progress: Progress) -> Dumped:
        return await self._dump({"names": list(names), "as": dict(names)}, path, terms, progress)

    async def check(self, names: Iterable[str]) -> None:
        """Raises UsageError when there is no such variable."""
        reply = await self._ask({"do": "check", "names": list(names)})
        self._raise_missing(reply)

    def _raise_missing(self, reply: Mapping[str, Any]) -> None:
        if isinstance(reply.get("missing"), list) and reply["missing"]:
            raise _missing(_texts(reply["missing"]), f"in {self.title}", _texts(reply.get("near")))

    async def dump_output(
        self, number: int | None, name: str, path: str, terms: Terms, progress: Progress
    ) -> Dumped:
        """As `dump`, for the value of the cell with that execution count; None is None."""
        return await self._dump({"out": number, "name": name}, path, terms, progress)

    async def _dump(self, what: Mapping[str, Any], path: str, terms: Terms, progress: Progress) -> Dumped:
        async with self._remote_file() as (relative, absolute):
            order = {"do": "dump", "path": absolute, "arrow": terms.arrow, "pickle": terms.pickle}
            reply = await self._ask(order | dict(what))
            self._raise_missing(reply)
            if "error" in reply:
                raise TransferRefusedError(
                    f"Nothing was sent. In {self.title}: {str(reply['error'])[:2000]}.",
                    session_id=self._entry.session_id,
                )
            size = _announced(reply)
            if size > DEFAULT_LIMITS.pull_bytes:
                raise TransferRefusedError(
                    f"The variables take {text_size(size)}, more than the {text_size(DEFAULT_LIMITS.pull_bytes)} that "
                    "are pulled. Pull fewer at a time, or write them to a file and `%sandbox get` it.",
                    session_id=self._entry.session_id,
                )
            sandbox = await self._entry.open(self._on_step)
            done = await sandbox.client.download_file(
                relative, path, progress=progress, max_bytes=max(size, 1)
            )
        return Dumped(size=done.size, pickled=tuple(_texts(reply.get("pickled"))))

    async def load(
        self, path: str, names: Sequence[str], terms: Terms, progress: Progress, *, key: str | None = None
    ) -> None:
        async with self._remote_file() as (relative, absolute):
            sandbox = await self._entry.open(self._on_step)
            await sandbox.client.upload_file(path, relative, mode="0600", progress=progress)
            order = {"do": "load", "path": absolute, "names": list(names)}
            reply = await self._ask({**order, "pickle": terms.pickle, "key": key})
            if "error" in reply:
                raise TransferRefusedError(
                    f"The variables could not be set in {self.title}: {str(reply['error'])[:2000]}.",
                    session_id=self._entry.session_id,
                )

    async def start_collecting(self, name: str) -> None:
        await (await self._entry.open(self._on_step)).run_cell(
            f"{name} = {{}}", silent=True, store_history=False
        )

    @contextlib.asynccontextmanager
    async def _remote_file(self) -> AsyncIterator[tuple[str, str]]:
        sandbox = await self._entry.open(self._on_step)
        relative = f"{_HIDDEN_FOLDER}/vars-{uuid.uuid4().hex}"
        where = await sandbox.client.data_plane.execute(["pwd"], timeout=30.0)
        try:
            yield relative, f"{where.stdout.strip()}/{relative}"
        finally:
            await sandbox.client.data_plane.remove_soon(relative)

    async def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        sandbox = await self._entry.open(self._on_step)
        return await ask_codec(sandbox, request)


async def ask_codec(sandbox: AsyncSandbox, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the codec in the sandbox. It waits for the cell that runs there, and leaves no name behind."""
    result = await sandbox.run_cell(
        "pass", silent=True, store_history=False, user_expressions={"r": expression(request)}
    )
    value = result.user_expressions.get("r")
    try:
        assert isinstance(value, dict)
        if value.get("status") != "ok":
            return {"error": f"{value.get('ename')}: {value.get('evalue')}"}
        reply = json.loads(ast.literal_eval(value["data"]["text/plain"]))
        assert isinstance(reply, dict)
    except (AssertionError, ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        raise ResponseError(
            "The sandbox did not answer a transfer of variables as expected. Run `%sandbox restart` if what ran "
            "there changed its interpreter.",
            session_id=sandbox.session_id,
        ) from None
    return reply


@contextlib.contextmanager
def _scratch_file() -> Iterator[str]:
    fd, path = tempfile.mkstemp(prefix="agentcube-vars-")
    os.close(fd)
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


async def send(
    source: Variables,
    targets: Sequence[Variables],
    names: Mapping[str, str],
    *,
    pickle: bool,
    progress: Progress,
) -> Dumped:
    """Send variables from one namespace to others, all of them or none of them.

    Values go through a file, so memory holds no second copy; it is removed whatever happens.

    Raises:
        UsageError: there is no such variable.
        TransferRefusedError: one cannot be sent without pickle, or not be read at the other end.
        AgentCubeError: a sandbox cannot be reached.
    """
    arrow = await source.has_arrow()
    for target in targets:
        arrow = arrow and await target.has_arrow()
    terms = Terms(arrow=arrow, pickle=pickle)
    with _scratch_file() as path:
        dumped = await source.dump(names, path, terms, progress)
        for target in targets:
            await target.load(path, list(names.values()), terms, progress)
    return dumped


async def bring_back(
    outputs: Sequence[tuple[SandboxVariables, int | None]],
    target: Variables,
    name: str,
    *,
    several: bool,
    pickle: bool,
    progress: Progress,
) -> None:
    """Set a variable to the value of a cell (by execution count), or to a dictionary of them by sandbox.

    Raises as `send`.
    """
    if several:
        await target.start_collecting(name)
    for source, number in outputs:
        arrow = number is not None and await target.has_arrow() and await source.has_arrow()
        terms = Terms(arrow=arrow, pickle=pickle)
        with _scratch_file() as path:
            await source.dump_output(number, name, path, terms, progress)
            key = source.entry.name if several else None
            await target.load(path, [name], terms, progress, key=key)


def _local_arrow() -> bool:
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None and find_spec("pandas") is not None


def _missing(names: Sequence[str], where: str, known: Sequence[str]) -> UsageError:
    what = "is no variable" if len(names) == 1 else "are no variables"
    hint = did_you_mean(names[0], [name for name in known if not name.startswith("_")])
    return UsageError(f"There {what} {', '.join(map(repr, names))} {where}; nothing was sent.{hint}")


def _announced(reply: Mapping[str, Any]) -> int:
    """The size of the file that the sandbox says it has written; it may not turn out larger."""
    size = reply.get("size")
    return size if isinstance(size, int) and size >= 0 else 0


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
