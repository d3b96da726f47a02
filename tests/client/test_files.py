"""Files and folders: names, limits, and what is left behind when something goes wrong."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from agentcube_kernel import (
    AsyncCodeInterpreterClient,
    ConfigurationError,
    LocalFileError,
    LocalFileNotFoundError,
    OutsideWorkspaceError,
    RemoteFileError,
    RemoteFileNotFoundError,
    RemoteIsADirectoryError,
    RemoteNotADirectoryError,
    RemoteStorageError,
    ResponseError,
    TransferError,
)
from tests.client.stub import Request, from_sandbox, ran, stub

pytestmark = pytest.mark.anyio

NAMES = [
    "plain.txt",
    "with space.txt",
    "a#b?c%d.txt",
    "100%25.txt",
    "grüße-日本.txt",
    "index.html",
    "-n",
    "quote'\"$(x)`.txt",
    "back\\slash",
    "new\nline",
    "a+b&c=d;e.txt",
]


async def hidden(client: AsyncCodeInterpreterClient, folder: str = ".") -> list[str]:
    """Our own files that were left in a folder of the sandbox."""
    return [entry.name for entry in await client.list_files(folder) if entry.name.startswith(".agentcube-")]


@pytest.mark.parametrize("name", NAMES)
async def test_every_name_goes_there_and_back(
    client: AsyncCodeInterpreterClient, tmp_path: Path, name: str
) -> None:
    """Whatever a name is made of, it is that file which is written, listed, read and downloaded."""
    path = f"deep/er/{name}"
    await client.write_file("content of " + name, path)
    assert [(entry.name, entry.is_dir) for entry in await client.list_files("deep/er")] == [(name, False)]
    assert (await client.read_file(path)).decode() == "content of " + name
    await client.download_file(path, str(tmp_path / "here"))
    assert (tmp_path / "here").read_text() == "content of " + name


async def test_listing_is_typed_and_reads_like_the_stock_dictionaries(
    client: AsyncCodeInterpreterClient,
) -> None:
    """Entries have attributes and the stock SDK's keys."""
    await client.write_file("12345", "a.txt")
    (entry,) = [entry for entry in await client.list_files() if entry.name == "a.txt"]
    assert (entry.size, entry["size"], entry["is_dir"], entry.mode) == (5, 5, False, "-rw-r--r--")
    assert entry.modified.startswith("20")


async def test_empty_files(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """Empty files go both ways."""
    (tmp_path / "empty").touch()
    done = await client.upload_file(str(tmp_path / "empty"), "empty")
    assert done.size == 0
    await client.write_file("", "empty too")
    assert await client.read_file("empty") == await client.read_file("empty too") == b""
    await client.download_file("empty", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b""


async def test_absolute_paths_count_from_the_workspace(client: AsyncCodeInterpreterClient) -> None:
    """As in PicoD, the workspace is the root."""
    await client.write_file("x", "/sub/x")
    assert await client.read_file("sub/x") == b"x"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/../../etc/passwd"])
async def test_paths_that_leave_the_workspace(
    client: AsyncCodeInterpreterClient, tmp_path: Path, path: str
) -> None:
    """Every operation refuses a path that leads out."""
    (tmp_path / "f").touch()
    for call in (
        client.write_file("x", path),
        client.read_file(path),
        client.list_files(path),
        client.upload_file(str(tmp_path / "f"), path),
        client.download_file(path, str(tmp_path / "out")),
        client.upload_folder(str(tmp_path), path),
        client.download_folder(path, str(tmp_path / "out")),
    ):
        with pytest.raises(OutsideWorkspaceError, match="leads out of the sandbox's workspace"):
            await call
    assert not (tmp_path / "out").exists()


async def test_link_that_leaves_the_workspace(client: AsyncCodeInterpreterClient) -> None:
    """A link to the outside is refused by the sandbox, with a clear error."""
    await client.execute_command(["ln", "-s", "/etc/hostname", "link"])
    with pytest.raises(OutsideWorkspaceError):
        await client.read_file("link")


async def test_what_is_not_there(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """Missing files and folders are named, and are `FileNotFoundError` too."""
    for call in (
        client.read_file("none"),
        client.list_files("none"),
        client.download_file("none", str(tmp_path / "out")),
        client.download_folder("none", str(tmp_path / "out")),
    ):
        with pytest.raises(RemoteFileNotFoundError, match="'none'") as caught:
            await call
        assert caught.value.path == "none"
        assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(LocalFileNotFoundError, match="on this machine"):
        await client.upload_file(str(tmp_path / "none"), "x")
    with pytest.raises(LocalFileNotFoundError, match="on this machine"):
        await client.upload_folder(str(tmp_path / "none"), "x")
    assert list(tmp_path.iterdir()) == []


async def test_folders_where_files_are_expected(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """And the other way round: each its own error, and nothing is changed."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    await client.write_file("x", "folder/inner")
    with pytest.raises(RemoteIsADirectoryError):
        await client.read_file("folder")
    with pytest.raises(RemoteIsADirectoryError):
        await client.download_file("folder", str(tmp_path / "out"))
    with pytest.raises(RemoteIsADirectoryError):
        await client.write_file("x", "folder")
    with pytest.raises(RemoteIsADirectoryError):
        await client.upload_file(str(tmp_path / "file"), "folder")
    with pytest.raises(RemoteNotADirectoryError):
        await client.list_files("folder/inner")
    with pytest.raises(RemoteFileError):
        await client.write_file("x", "folder/inner/below")
    with pytest.raises(RemoteNotADirectoryError):
        await client.download_folder("folder/inner", str(tmp_path / "out"))
    with pytest.raises(RemoteNotADirectoryError):
        await client.upload_folder(str(tmp_path / "folder"), "folder/inner")
    with pytest.raises(LocalFileError, match="is a folder"):
        await client.upload_file(str(tmp_path / "folder"), "x")
    with pytest.raises(LocalFileError, match="is a folder"):
        await client.download_file("folder/inner", str(tmp_path / "folder"))
    with pytest.raises(LocalFileError, match="folder"):
        await client.upload_folder(str(tmp_path / "file"), "x")
    with pytest.raises(LocalFileError, match="not a folder"):
        await client.download_folder("folder", str(tmp_path / "file"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert await hidden(client) == await hidden(client, "folder") == []


@pytest.mark.parametrize("path", ["", "a\0b", 5, None, "folder/"])
async def test_bad_paths(client: AsyncCodeInterpreterClient, path: object) -> None:
    """What can be no path of a file is refused with the parameter's name."""
    with pytest.raises(ConfigurationError, match="path"):
        await client.write_file("x", path)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="path"):
        await client.read_file(path)  # type: ignore[arg-type]


async def test_bad_content(client: AsyncCodeInterpreterClient) -> None:
    """Content that is neither text nor bytes, or no valid text, is refused."""
    with pytest.raises(ConfigurationError, match="content"):
        await client.write_file(5, "x")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="content"):
        await client.write_file("\ud800", "x")


async def test_large_file_both_ways(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """More than one request may carry goes over in pieces, with progress, and comes back the same."""
    data = os.urandom(45 * 1024 * 1024 + 17)
    (tmp_path / "big").write_bytes(data)
    seen: list[tuple[int, int | None]] = []
    up = await client.upload_file(
        str(tmp_path / "big"), "sub/big", progress=lambda done, total: seen.append((done, total))
    )
    digest = hashlib.sha256(data).hexdigest()
    assert (up.size, up.sha256) == (len(data), digest)
    assert seen[-1] == (len(data), len(data))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    seen.clear()
    down = await client.download_file(
        "sub/big", str(tmp_path / "new" / "back"), progress=lambda done, total: seen.append((done, total))
    )
    assert down.sha256 == digest
    assert hashlib.sha256((tmp_path / "new" / "back").read_bytes()).hexdigest() == digest
    assert seen[-1] == (len(data), len(data))
    assert await hidden(client, "sub") == []
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["back"]


async def test_replacing_keeps_the_executable_bit(client: AsyncCodeInterpreterClient) -> None:
    """A script that is written again can still be run."""
    await client.write_file("#!/bin/sh\necho 1\n", "tool")
    await client.execute_command("chmod +x tool")
    await client.write_file("#!/bin/sh\necho 2\n", "tool")
    assert await client.execute_command(["./tool"]) == "2\n"


async def test_mode_of_an_upload(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """`mode` is the new file's."""
    (tmp_path / "tool").write_text("#!/bin/sh\necho ran\n")
    await client.upload_file(str(tmp_path / "tool"), "tool", mode="0755")
    assert await client.execute_command(["./tool"]) == "ran\n"


async def test_cancelled_upload_leaves_nothing(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """Cancelled half-way, the file that was there is as it was and no piece is left."""
    await client.write_file("old", "big")
    (tmp_path / "big").write_bytes(bytes(40 * 1024 * 1024))
    begun = asyncio.Event()
    task = asyncio.create_task(
        client.upload_file(str(tmp_path / "big"), "big", progress=lambda done, total: begun.set())
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.read_file("big") == b"old"
    assert await hidden(client) == []


async def test_cancelled_download_leaves_nothing(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """Cancelled half-way, the local file that was there is as it was and no part is left."""
    await client.execute_command(["sh", "-c", "head -c 80000000 /dev/zero >big"])
    (tmp_path / "big").write_text("old")
    begun = asyncio.Event()
    task = asyncio.create_task(
        client.download_file("big", str(tmp_path / "big"), progress=lambda done, total: begun.set())
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "big").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


async def test_ten_thousand_small_files(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """A folder of ten thousand files goes both ways in a few requests."""
    source = tmp_path / "source"
    for number in range(100):
        (source / f"d{number}").mkdir(parents=True)
        for inner in range(100):
            (source / f"d{number}" / f"f{inner} ü").write_text(f"{number}/{inner}")
    (source / "empty").mkdir()
    (source / "link").symlink_to("d1/f1 ü")
    up = await client.upload_folder(str(source), "target")
    assert up.files == 10_000
    count = await client.execute_command(["sh", "-c", "find target -type f | wc -l"])
    assert int(count) == 10_000
    down = await client.download_folder("target", str(tmp_path / "back"))
    assert (down.files, down.skipped) == (10_000, ())
    assert _contents(tmp_path / "back") == _contents(source)
    assert (tmp_path / "back" / "link").readlink() == Path("d1/f1 ü")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "source"]
    assert await hidden(client) == []


async def test_folders_are_added_to(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """A folder that exists keeps its other files, both ways."""
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "new").write_text("new")
    (tmp_path / "a" / "both").write_text("theirs")
    await client.write_file("kept", "target/old")
    await client.write_file("replaced", "target/both")
    await client.upload_folder(str(tmp_path / "a"), "target")
    listing = {entry.name: entry.is_dir for entry in await client.list_files("target")}
    assert listing == {"old": False, "both": False, "sub": True}
    assert await client.read_file("target/both") == b"theirs"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("mine")
    await client.download_folder("target", str(tmp_path / "b"))
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["both", "mine", "old", "sub"]


async def test_whole_workspace(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """The workspace itself can be downloaded, without the archive that is being made in it."""
    await client.write_file("x", "a/b")
    await client.download_folder(".", str(tmp_path / "all"))
    assert (tmp_path / "all" / "a" / "b").read_text() == "x"
    assert [path.name for path in (tmp_path / "all").iterdir() if path.name.startswith(".agentcube-")] == []


async def test_links_out_of_a_downloaded_folder(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """Links that lead out of the folder are left out and reported; nothing is written through them."""
    await client.execute_command(
        ["sh", "-c", "mkdir f; ln -s /etc/passwd f/abs; ln -s ../../up f/rel; echo x >f/ok"]
    )
    done = await client.download_folder("f", str(tmp_path / "f"))
    assert sorted(name.removeprefix("./") for name in done.skipped) == ["abs", "rel"]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["ok"]


async def test_listing_without_end() -> None:
    """A listing above its ceiling is an error, not a list."""
    entry = {"name": "f", "size": 1, "modified": "", "mode": "-rw-r--r--", "is_dir": False}
    body = b'{"files":[' + b",".join([json.dumps(entry).encode()] * 200_001) + b"]}"

    async with (
        stub(lambda request: from_sandbox(200, body)) as router,
        AsyncCodeInterpreterClient(router_url=router.url, session_id="s-1") as client,
    ):
        with pytest.raises(ResponseError, match="at most 200000 files"):
            await client.list_files()


async def test_encoding_that_was_not_asked_for(tmp_path: Path) -> None:
    """A compressed answer is refused before anything is unpacked, whole or as a stream."""
    bomb = gzip.compress(bytes(10_000_000))

    async with (
        stub(lambda request: from_sandbox(200, bomb, headers={"content-encoding": "gzip"})) as router,
        AsyncCodeInterpreterClient(router_url=router.url, session_id="s-1") as client,
    ):
        with pytest.raises(ResponseError, match="'gzip', which was not asked for"):
            await client.read_file("f")
        with pytest.raises(ResponseError, match="'gzip', which was not asked for"):
            await client.download_file("f", str(tmp_path / "f"))
    assert list(tmp_path.iterdir()) == []


async def test_full_disk_in_the_sandbox() -> None:
    """A sandbox without space is named as the cause, and the hidden pieces are removed."""
    removed = []

    def handler(request: Request) -> bytes:
        if request.target.endswith("api/files"):
            return from_sandbox(
                500, {"error": "Failed to write file: write x: no space left on device", "code": 500}
            )
        removed.append(request.json["command"][:2])
        return ran()

    async with stub(handler) as router:
        client = AsyncCodeInterpreterClient(router_url=router.url, session_id="s-1")
        async with client:
            with pytest.raises(RemoteStorageError, match="no space left on device"):
                await client.write_file("x", "file")
    assert removed == [["rm", "-rf"]]


async def test_full_disk_here(client: AsyncCodeInterpreterClient) -> None:
    """A local disk that is full is a local error that says so."""
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    from agentcube_kernel.client.downloads import Download, file_ceiling

    await client.write_file("x" * 100_000, "file")
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: ASYNC230, SIM115 - a device
    with full, pytest.raises(LocalFileError, match="No space left"):
        await Download(client.data_plane.wire, "file", full, "/dev/full", None, file_ceiling(None)).run()


async def test_local_folder_without_permission(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """A place where nothing can be written is a local error."""
    await client.write_file("x", "file")
    with pytest.raises(LocalFileError, match="on this machine"):
        await client.download_file("file", "/proc/nowhere/file")


async def test_damaged_on_the_way(tmp_path: Path) -> None:
    """A download whose checksum is wrong is no file here."""

    def handler(request: Request) -> bytes:
        if "/api/files/" in request.target:
            return from_sandbox(200, b"damaged", headers={"last-modified": "Sat, 21 Nov 2026 03:00:00 GMT"})
        return ran("0" * 64 + "\n")

    async with stub(handler) as router:
        client = AsyncCodeInterpreterClient(router_url=router.url, session_id="s-1")
        async with client:
            with pytest.raises(TransferError, match="checksum"):
                await client.download_file("f", str(tmp_path / "f"))
    assert list(tmp_path.iterdir()) == []


async def test_file_that_changes_while_it_is_resumed(tmp_path: Path) -> None:
    """When the rest is asked for and the whole of another file comes, it starts again and ends with that one."""
    calls = []

    def handler(request: Request) -> bytes:
        if "/api/files/" not in request.target:
            return ran(hashlib.sha256(b"second").hexdigest() + "\n")
        calls.append(request.headers.get("range"))
        if len(calls) == 1:
            return from_sandbox(200, b"first version", headers={"last-modified": "one"}, cut=5)
        assert request.headers["if-range"] == "one"
        return from_sandbox(200, b"second", headers={"last-modified": "two"})

    async with stub(handler) as router:
        client = AsyncCodeInterpreterClient(router_url=router.url, session_id="s-1")
        async with client:
            await client.download_file("f", str(tmp_path / "f"))
    assert calls == [None, "bytes=8-"]
    assert (tmp_path / "f").read_bytes() == b"second"


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
