"""Folders from a hostile sandbox: whatever the archive holds, nothing outside of the destination is touched."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentcube_kernel import AsyncCodeInterpreterClient, TransferError
from agentcube_kernel.client.folder_tree import CheckedFolder, Folder, open_folder
from agentcube_kernel.client.unpacking import Unpacked, unpack
from agentcube_kernel.limits import DEFAULT_LIMITS
from tests.client.stub import Request, from_sandbox, ran, stub

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"evil", mode: int = 0o644, **fields: object) -> Member:
    return entry(name, tarfile.REGTYPE, data, mode=mode, size=len(data), **fields)


def folder(name: str, mode: int = 0o755) -> Member:
    return entry(name, tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> Member:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> Member:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def entry(name: str, kind: bytes, data: bytes = b"", **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def pack(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    for info, data in members:
        buffer.write(info.tobuf(format, "utf-8", "surrogateescape"))
        buffer.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
    return buffer.getvalue() + bytes(2 * tarfile.BLOCKSIZE)


def long_way_out(out: Path | None = None) -> bytes:
    """The shape of CVE-2025-4517: links in a tree so deep that resolving it stops early."""
    step, members, path = "d" * 247, [], ""
    for letter in "abcdefghijklmnop":
        members += [folder(path + step), link(path + letter, step)]
        path += step + "/"
    chain = "/".join("abcdefghijklmnop")
    members += [
        link(f"{chain}/{'l' * 254}", "../" * 16),
        link("escape", f"{chain}/{'l' * 254}/../../../out"),
        hard("flag", "escape/victim"),
        file("escape/victim"),
        file("flag"),
    ]
    return pack(*members)


def with_negative_size(out: Path) -> bytes:
    """The shape of CVE-2025-8194: a member that ends before it begins."""
    block = bytearray(pack(file("ok"), file("back"))[: 3 * 512])
    block[1024 + 124 : 1024 + 136] = b"\xff" * 4 + struct.pack(">q", -2048)
    block[1024 + 148 : 1024 + 156] = b" " * 8
    block[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(block[1024:1536])
    return bytes(block) + bytes(1024)


def with_attributes(size: int, text: bytes) -> bytes:
    head = tarfile.TarInfo("attributes")
    head.type, head.size = tarfile.XHDTYPE, size
    return head.tobuf() + text + bytes(-len(text) % 512) + pack(file("ok"))


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "absolute name": lambda out: pack(file(f"{out}/victim"), file(f"{out}/new")),
    "dots in a name": lambda out: pack(
        file("../out/victim"), file("a/../../out/victim"), folder("../out/made")
    ),
    "link out, file through it": lambda out: pack(link("l", f"{out}"), file("l/victim"), file("l/new")),
    "relative link out": lambda out: pack(link("l", "../out"), file("l/victim"), file("l/new")),
    "link in a folder": lambda out: pack(folder("a"), link("a/l", "../../out"), file("a/l/new")),
    "link to a file outside": lambda out: pack(link("l", f"{out}/victim"), file("l")),
    "link to the root, then through": lambda out: pack(link("l", "."), link("l/m", "../out"), file("m/new")),
    "two links in a row": lambda out: pack(
        folder("d"), link("d/up", ".."), link("e", "d/up/../out"), file("e/new")
    ),
    "link through a link to a folder": lambda out: pack(
        folder("a/b/c"), link("x", "a/b/c"), link("y", "x/../../../out"), file("y/new")
    ),
    "link that comes to lead out": lambda out: pack(
        folder("a"), link("a/l", "../b"), link("b", "../out"), file("a/l/new")
    ),
    "hard link out": lambda out: pack(hard("h", f"{out}/victim"), file("h")),
    "hard link with dots": lambda out: pack(hard("h", "../out/victim"), file("h")),
    "hard link through a link": lambda out: pack(link("l", "../out"), hard("h", "l/victim"), file("h")),
    "hard link to a link": lambda out: pack(link("l", "../out/victim"), hard("h", "l"), file("h")),
    "link in place of a folder": lambda out: pack(folder("a"), link("a", "../out"), file("a/victim")),
    "folder in place of a link": lambda out: pack(link("a", "../out"), folder("a"), file("a/victim")),
    "CVE-2025-4517": long_way_out,
    "CVE-2025-4330": lambda out: pack(
        folder("a"), link("a/b", "../a"), link("c", "a/b/../../out"), hard("d", "c/victim"), file("c/new")
    ),
    "CVE-2025-4138": lambda out: pack(link("x/" * 40 + "l", "../" * 41 + "out"), file("x/" * 40 + "l/new")),
    "CVE-2025-8194": with_negative_size,
    "CVE-2007-4559": lambda out: pack(file("../../out/victim"), file("..//../out/new")),
    "devices and pipes": lambda out: pack(
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("disk", tarfile.BLKTYPE, devmajor=8),
        entry("pipe", tarfile.FIFOTYPE),
    ),
    "setuid": lambda out: pack(file("tool", mode=0o6777), folder("shared", mode=0o7777)),
    "impossible times": lambda out: pack(file("f", mtime=2**60), file("g", mtime=-5)),
    "odd names": lambda out: pack(file("a\nb"), file("\x1b[2J"), file("-rf"), file("~"), file("c\udcffd")),
    "a name of 300 bytes": lambda out: pack(file("n" * 300), file("ok")),
    "200 folders deep": lambda out: pack(file("d/" * 200 + "f"), file("ok")),
    "the same name often": lambda out: pack(*[file("f", bytes([n])) for n in range(50)]),
    "sparse": lambda out: pack(entry("s", tarfile.GNUTYPE_SPARSE), format=tarfile.GNU_FORMAT),
    "attributes of 3 GB": lambda out: with_attributes(3 << 30, b""),
    "attributes that take long to parse": lambda out: with_attributes(15 * 1024, b"1" * 15 * 1024),
    "cut in the middle": lambda out: pack(file("big", bytes(100_000)))[:5000],
    "noise": lambda out: bytes(range(256)) * 40,
    "damaged in the middle": lambda out: pack(file("a"))[:1024] + b"x" * 512 + pack(file("b")),
}

DAMAGED = {
    "CVE-2025-8194",
    "attributes of 3 GB",
    "cut in the middle",
    "noise",
    "damaged in the middle",
}


def unpacked(content: bytes, tmp_path: Path, **options: object) -> Unpacked:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    given: dict[str, object] = {"source": "f", "limits": DEFAULT_LIMITS, **options}
    try:
        return unpack(io.BytesIO(content), str(work / "new"), str(tmp_path / "in"), **given)  # type: ignore[arg-type]
    finally:
        os.path.isdir(work / "new") and os.rename(work / "new", work / f"old-{len(os.listdir(work))}")


def assert_nothing_escaped(tmp_path: Path) -> None:
    """The folder outside is as it was, and no link or mode inside is dangerous."""
    assert [(p.name, p.read_text()) for p in (tmp_path / "out").iterdir()] == [("victim", "untouched")]
    inside = tmp_path / "in"
    for path in inside.rglob("*"):
        real = os.path.realpath(path)
        assert real == str(inside) or real.startswith(f"{inside}/"), path
        status = path.lstat()
        assert path.is_symlink() or not status.st_mode & 0o7022, path
        assert path.is_symlink() or path.is_dir() or (path.is_file() and status.st_nlink == 1)


@pytest.mark.parametrize("opener", [open_folder, CheckedFolder.open], ids=["descriptors", "paths"])
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(tmp_path: Path, name: str, existing: bool, opener: Callable[[str], Folder]) -> None:
    """No archive writes, reads or links anything outside, into a new folder or one that is there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "victim").write_text("untouched")
    if existing:
        (tmp_path / "in").mkdir()
    content = HOSTILE[name](tmp_path / "out")
    if name in DAMAGED:
        with pytest.raises(TransferError, match="damaged"):
            unpacked(content, tmp_path, opener=opener)
        assert existing == (tmp_path / "in").exists()
        assert not existing or list((tmp_path / "in").iterdir()) == []
    else:
        unpacked(content, tmp_path, opener=opener)
        assert_nothing_escaped(tmp_path)


@pytest.mark.parametrize("name", ["link out, file through it", "CVE-2025-4517", "hard link out", "setuid"])
async def test_hostile_archives_through_the_client(tmp_path: Path, name: str) -> None:
    """The same through a client whose sandbox answers with the archive."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "victim").write_text("untouched")
    content = HOSTILE[name](tmp_path / "out")

    def handler(request: Request) -> bytes:
        if "/api/files/" in request.target:
            return from_sandbox(200, content)
        script = request.json["command"][2] if len(request.json["command"]) > 2 else ""
        return ran(hashlib.sha256(content).hexdigest() + "\n" if "tar" not in script else "")

    async with (
        stub(handler) as router,
        AsyncCodeInterpreterClient(router_url=router.url, session_id="s-1") as client,
    ):
        await client.download_folder("f", str(tmp_path / "in"))
    assert_nothing_escaped(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


SWAP = """
import os, sys
while True:
    for name in os.listdir("."):
        if name.startswith(".agentcube-") and name.endswith(".tar"):
            os.link("evil", "copy"); os.replace("copy", name); sys.exit()
"""


@pytest.mark.usefixtures("needs_embedded")
async def test_archive_swapped_between_its_making_and_its_download(
    client: AsyncCodeInterpreterClient, tmp_path: Path
) -> None:
    """A process in the sandbox that puts another archive in the place of the one being made gains nothing."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "victim").write_text("untouched")
    await client.write_file(long_way_out(), "evil")
    await client.write_file(SWAP, "swap.py")
    await client.execute_command(["sh", "-c", "mkdir f; head -c 50000000 /dev/zero > f/large"])
    for attempt in range(20):
        await client.execute_command(["sh", "-c", "setsid python3 swap.py </dev/null >/dev/null 2>&1 &"])
        (tmp_path / f"{attempt}").mkdir()
        try:
            done = await client.download_folder("f", str(tmp_path / f"{attempt}" / "in"))
        except TransferError:
            continue
        if done.skipped:
            break
    else:
        pytest.fail("the archive was never swapped in time")
    (tmp_path / "in").symlink_to(tmp_path / f"{attempt}" / "in")
    assert [(p.name, p.read_text()) for p in (tmp_path / "out").iterdir()] == [("victim", "untouched")]
    assert (tmp_path / "in" / "escape").is_dir()
    assert not (tmp_path / "in" / "escape").is_symlink()
    await client.execute_command(["sh", "-c", "pkill -f swap.p[y] || true"])


def test_what_is_skipped_is_named(tmp_path: Path) -> None:
    """Names that were left out are told, bounded in number and length."""
    result = unpacked(pack(link("abs", "/etc"), file("ok"), file("x" * 300)), tmp_path)
    assert (result.files, result.skipped) == (1, ("x" * 200, "abs"))
    many = unpacked(pack(*[link(f"l{n}", "/") for n in range(1100)]), tmp_path)
    assert len(many.skipped) == 1001
    assert many.skipped[-1] == "and 100 more"


def test_harmless_links_are_kept(tmp_path: Path) -> None:
    """Links within the folder work as in the sandbox; hard links become copies."""
    members = [
        folder("a/b"),
        file("a/b/f", b"content"),
        link("one", "a/b/f"),
        link("a/up", "../a/b"),
        link("a/b/two", "./f"),
        link("none", "not-there"),
        hard("copy", "a/b/f"),
    ]
    result = unpacked(pack(*members), tmp_path)
    assert result == Unpacked(files=2, skipped=())
    assert (tmp_path / "in" / "one").read_bytes() == (tmp_path / "in/a/up/two").read_bytes() == b"content"
    assert (tmp_path / "in" / "copy").read_bytes() == b"content"
    assert (tmp_path / "in" / "copy").stat().st_nlink == 1
    assert os.readlink(tmp_path / "in" / "none") == "not-there"


def test_links_that_are_there_already(tmp_path: Path) -> None:
    """A link in the destination is replaced by a file of its name, and stands in the way of a folder."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "victim").write_text("untouched")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").symlink_to(tmp_path / "out" / "victim")
    unpacked(pack(file("f", b"new")), tmp_path)
    assert (tmp_path / "in" / "f").read_bytes() == b"new"
    (tmp_path / "in" / "d").symlink_to(tmp_path / "out")
    with pytest.raises(OSError, match=r"[Nn]ot a directory|symbolic links"):
        unpacked(pack(folder("d"), file("d/victim")), tmp_path)
    (tmp_path / "in" / "d").unlink()
    assert_nothing_escaped(tmp_path)


def test_modes_and_times(tmp_path: Path) -> None:
    """Executable files stay executable and times are kept."""
    unpacked(pack(file("run", mode=0o755, mtime=1_700_000_000), file("text", mode=0o400)), tmp_path)
    run = (tmp_path / "in" / "run").stat()
    assert run.st_mode & 0o100
    assert run.st_mtime == 1_700_000_000
    assert (tmp_path / "in" / "text").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"folder_members": 9}, "more than 9 files and folders.*max_members"),
        ({"folder_bytes": 999}, "more than 999 bytes.*max_bytes"),
    ],
)
def test_ceilings(tmp_path: Path, limits: dict[str, int], message: str) -> None:
    """Above a ceiling nothing appears, and the error names the argument that raises it."""
    content = pack(*[file(f"f{n}", bytes(100)) for n in range(10)])
    with pytest.raises(TransferError, match=message):
        unpacked(content, tmp_path, limits=replace(DEFAULT_LIMITS, **limits))
    assert not (tmp_path / "in").exists()


def test_a_copy_counts(tmp_path: Path) -> None:
    """Hard links to one large file cannot fill the disk."""
    content = pack(file("f", bytes(1000)), *[hard(f"h{n}", "f") for n in range(1000)])
    with pytest.raises(TransferError, match="max_bytes"):
        unpacked(content, tmp_path, limits=replace(DEFAULT_LIMITS, folder_bytes=10_000))


def test_stopping(tmp_path: Path) -> None:
    """A stopped extraction ends with an error and leaves the destination alone."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(TransferError, match="cancelled"):
        unpacked(pack(file("f")), tmp_path, stop=stop)
    assert not (tmp_path / "in").exists()


async def test_ceilings_through_the_client(client: AsyncCodeInterpreterClient, tmp_path: Path) -> None:
    """`max_members` and `max_bytes` bound a folder, and `max_bytes` a file; nothing is left behind."""
    await client.execute_command(
        ["sh", "-c", "mkdir f; cd f; for n in 1 2 3 4 5; do echo 123456789 >$n; done"]
    )
    for options, name in (({"max_members": 3}, "max_members"), ({"max_bytes": 30}, "max_bytes")):
        with pytest.raises(TransferError, match=name):
            await client.download_folder("f", str(tmp_path / "in"), **options)
    with pytest.raises(TransferError, match=r"more than the 5 bytes.*max_bytes"):
        await client.download_file("f/1", str(tmp_path / "file"), max_bytes=5)
    assert list(tmp_path.iterdir()) == []
    done = await client.download_folder("f", str(tmp_path / "in"), max_members=6, max_bytes=50)
    assert done.files == 5


async def test_a_file_without_an_announced_size(tmp_path: Path) -> None:
    """A body that never ends stops at the ceiling."""
    sent = 0

    def handler(request: Request) -> bytes:
        nonlocal sent
        sent += 1
        piece = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
        return (
            b"HTTP/1.1 200 OK\r\nx-agentcube-session-id: s-1\r\ntransfer-encoding: chunked\r\n\r\n"
            + 8 * piece
        )

    async with (
        stub(handler) as router,
        AsyncCodeInterpreterClient(router_url=router.url, session_id="s-1") as client,
    ):
        with pytest.raises(TransferError, match="more than the 1000000 bytes"):
            await client.download_file("f", str(tmp_path / "f"), max_bytes=1_000_000)
    assert list(tmp_path.iterdir()) == []
    assert sent == 1
