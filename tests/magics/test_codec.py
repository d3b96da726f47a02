"""Variables as files: what comes back is what was sent, and nothing that is read runs."""

from __future__ import annotations

import array
import datetime
import decimal
import fractions
import io
import json
import pickle
import random
import threading
import time
import tracemalloc
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest

from agentcube_kernel.magics import codec


def round_trip(value: Any, tmp_path: Path, **terms: bool) -> Any:
    """Send one value through a file."""
    path = tmp_path / "file"
    codec.dump({"value": value}, str(path), **terms)
    try:
        with path.open("rb") as file:
            return codec.Decoder(file, pickle=terms.get("pickle", False)).read()["value"]
    finally:
        path.unlink()


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
PLAIN = [
    None,
    True,
    -(10**50),
    1.5,
    float("inf"),
    "ä",
    "\ud800",
    [1, [2, []]],
    (1, (2,)),
    {"a": {"b": None}},
    {1: "x", (2, 3): "y"},
    {"$": "not a tag"},
    {1, 2},
    frozenset({3}),
    b"\x00\xff" * 10,
    bytearray(b"q"),
    3 - 4j,
    range(3, 9, 2),
    slice(1, None, 2),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
    datetime.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.date(2026, 1, 2),
    datetime.time(1, 2, 3),
    datetime.timedelta(days=-1, microseconds=5),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    Path("/a/b"),
    np.float64(2.5),
    np.int8(-3),
    np.datetime64("2026-01-02"),
    pd.Timestamp("2026-01-02"),
    pd.Timestamp("2026-01-02", tz="Europe/Berlin"),
    pd.Timedelta("1h"),
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_keep_value_and_type(value: Any, tmp_path: Path) -> None:
    """Plain data come back equal and of the same type, tuples, sets and odd keys too."""
    back = round_trip(value, tmp_path)
    assert type(back) is type(value)
    assert back == value
    if isinstance(value, datetime.datetime):
        assert back.fold == value.fold


def test_no_number_comes_back_as_no_number(tmp_path: Path) -> None:
    """NaN and pandas' marks for what is missing survive."""
    assert np.isnan(round_trip(float("nan"), tmp_path))
    assert round_trip(pd.NA, tmp_path) is pd.NA
    assert round_trip(pd.NaT, tmp_path) is pd.NaT


@pytest.mark.parametrize(
    "value",
    [
        np.arange(12).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(100).reshape(10, 10)[::2, ::3],
        np.array(3.0),
        np.zeros((0, 3)),
        np.array(["a", "bcd"]),
        np.zeros(3, dtype=[("a", "i4"), ("b", "f8", (2,))]),
        np.array([1, 2], dtype=">i4"),
    ],
    ids=lambda a: f"{a.dtype}-{a.shape}",
)
def test_arrays_keep_shape_and_type(value: Any, tmp_path: Path) -> None:
    """Arrays come back with shape, type and values."""
    back = round_trip([value], tmp_path)[0]
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    assert np.array_equal(back, value)


def frames() -> dict[str, pd.DataFrame]:
    mixed = pd.DataFrame(
        {
            "int": [1, 2, 3],
            "text": ["x", None, "z"],
            "category": pd.Categorical(["u", "v", "u"], ordered=True),
            "zoned": pd.date_range("2026", periods=3, tz="Europe/Berlin"),
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "string": pd.array(["a", "b", None], dtype="string"),
            "bool": pd.array([True, None, False], dtype="boolean"),
            "delta": pd.to_timedelta([1, 2, 3], unit="D"),
        },
        index=pd.Index(["p", "q", "r"], name="key"),
    )
    return {
        "mixed": mixed,
        "levels": mixed.set_index(["int", "text"], append=True),
        "twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
        "numbers-as-names": pd.DataFrame({1: [1], "b": [2]}),
        "crossed": pd.crosstab(pd.Series([1, 2, 1], name="r"), pd.Series(["a", "b", "b"], name="c")),
        "empty": pd.DataFrame(),
    }


@pytest.mark.parametrize("name", list(frames()))
def test_frames_keep_everything(name: str, tmp_path: Path) -> None:
    """Frames come back with types, index, levels and names, without pickle and without pyarrow."""
    frame = frames()[name]
    pd.testing.assert_frame_equal(round_trip(frame, tmp_path), frame)
    pd.testing.assert_index_equal(round_trip(frame.index, tmp_path), frame.index)
    for column in range(frame.shape[1]):
        series = frame.iloc[:, column]
        pd.testing.assert_series_equal(round_trip(series, tmp_path), series)


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (lambda: None, "a function cannot be sent without pickle"),
        ({"in": [object()]}, "a object cannot be sent"),
        (np.array([object()]), "an array of Python objects"),
        (endless(), "refers to itself"),
        (np.ma.masked_array([1], mask=[True]), "cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_named(value: Any, why: str, tmp_path: Path) -> None:
    """The variable and the reason are in the error, and no file is left."""
    with pytest.raises(codec.CodecError, match=f"^value: .*{why}"):
        round_trip(value, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pickle_is_written_and_read_only_when_asked(tmp_path: Path) -> None:
    """A pickled value is refused by a reader that did not ask for pickle."""
    odd = array.array("i", [1])
    assert round_trip(odd, tmp_path, pickle=True) == odd
    path = tmp_path / "file"
    assert codec.dump({"value": odd, "plain": 1}, str(path), pickle=True)["pickled"] == ["value"]
    with path.open("rb") as file, pytest.raises(codec.CodecError, match="was not asked for"):
        codec.Decoder(file).read()


class Trap:
    """Unpickling this sets a mark."""

    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Trap, "sprung", True)


def written(tree: object, part: bytes = b"") -> io.BytesIO:
    """A file with one binary part, as a hostile writer would make it."""
    text = json.dumps(tree).encode()
    return io.BytesIO(codec.MAGIC + part + text + len(text).to_bytes(8, "little"))


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def arrow(table: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with pyarrow.ipc.new_stream(
        buffer, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)
    ) as writer:
        writer.write_table(table)
    return buffer.getvalue()


MANY = 400_000_000


def run_end() -> bytes:
    ends, values = pyarrow.array([MANY], pyarrow.int32()), pyarrow.array([1])
    return arrow(pyarrow.table({"a": pyarrow.RunEndEncodedArray.from_arrays(ends, values)}))


def nulls(inside: str = "") -> bytes:
    column = pyarrow.nulls(MANY)
    if inside == "list":
        column = pyarrow.ListArray.from_arrays(pyarrow.array([0, MANY], pyarrow.int32()), column)
    elif inside == "struct":
        column = pyarrow.StructArray.from_arrays([column], ["x"])
    return arrow(pyarrow.table({"a": column}))


def views() -> bytes:
    text = "x" * 100_000
    return arrow(pyarrow.table({"a": pyarrow.array([text] * 100).cast(pyarrow.string_view())}))


START = len(codec.MAGIC)
BOMBS: dict[str, Any] = {
    "fraction": lambda: written({"v": {"$": "fraction", "v": "1e99999999"}}),
    "fraction of large numbers": lambda: written(
        {"v": {"$": "fraction", "v": [{"$": "int", "v": "0x" + "f" * 100_000}, 3]}}
    ),
    "decimal": lambda: written({"v": {"$": "decimal", "v": "1e99999999"}}),
    "decimal with many digits": lambda: written({"v": {"$": "decimal", "v": "1" * 50_000}}),
    "integer": lambda: written({"v": {"$": "int", "v": "0x" + "f" * 2_000_000}}),
    "range of texts": lambda: written({"v": {"$": "range", "v": ["9" * 4000, 1, 1]}}),
    "array of items without bytes": lambda: written(
        {"v": {"$": "array", "at": START, "n": 128}},
        npy(np.zeros(1, "V1")).replace(b"V1", b"V0").replace(b"(1,),   ", b"(99999999,), ")[:128],
    ),
    "one part many times": lambda: written(
        {"v": [{"$": "bytes", "at": START, "n": 100_000}] * 3000}, bytes(100_000)
    ),
    "index of ranges": lambda: written(
        {
            "v": {
                "$": "Index",
                "v": {"t": "multi", "n": [None], "v": [{"t": "range", "v": [0, MANY, 1], "n": None}]},
            }
        }
    ),
    "time zone that is a file": lambda: written(
        {"v": {"$": "Series", "c": {"t": "list", "d": "datetime64[ns, dateutil//dev/zero]", "v": []}}}
    ),
    "run-end encoded": lambda: run_end(),
    "nulls": lambda: nulls(),
    "nulls in a list": lambda: nulls("list"),
    "nulls in a struct": lambda: nulls("struct"),
    "views": views,
    "zstd": lambda: arrow(pyarrow.table({"a": np.zeros(30_000_000)}), compression="zstd"),
    "lz4": lambda: arrow(pyarrow.table({"a": np.zeros(3_000_000)}), compression="lz4"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    """What would take far more memory or time than its file's size is refused, and at once."""
    made = BOMBS[name]()
    if isinstance(made, bytes):
        made = written({"v": {"$": "arrow", "at": START, "n": len(made)}}, made)
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(codec.CodecError):
            codec.Decoder(made).read()
        assert time.perf_counter() - started < 2.0
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def test_frames_through_arrow(tmp_path: Path) -> None:
    """What Arrow carries comes back as it was, empty columns, nested values and categories too."""
    frame = pd.DataFrame(
        {
            "int": [1, 2, 3],
            "text": ["x", "y", "z"],
            "none": [None, None, None],
            "category": pd.Categorical(["u", "v", "u"]),
            "list": [[1], [2, 3], []],
            "dict": [{"q": 1}, {"q": 2}, {"q": 3}],
            "zoned": pd.date_range("2026", periods=3, tz="Europe/Berlin"),
        }
    )
    back = round_trip(frame, tmp_path, arrow=True)
    assert list(back.columns) == list(frame.columns)
    assert [list(value) for value in back["list"]] == list(frame["list"])
    simple = frame.drop(columns=["list", "none", "text"])
    pd.testing.assert_frame_equal(back[simple.columns], simple)
    large = pd.DataFrame({"flag": np.arange(2_000_000) % 3 == 0, "text": ["a"] * 2_000_000})
    assert round_trip(large, tmp_path, arrow=True)["flag"].sum() == large["flag"].sum()


def test_only_the_names_that_were_asked_for() -> None:
    """What else a file holds is not read, and what it lacks is an error."""
    file = written({"x": 1, "print": 2, "__builtins__": {"$": "nonsense"}})
    assert codec.Decoder(file).read(["x"]) == {"x": 1}
    with pytest.raises(codec.CodecError, match="does not hold y"):
        codec.Decoder(file).read(["x", "y"])


def test_reading_can_be_stopped() -> None:
    """A reader that nobody waits for any more ends at the next value."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(codec.StoppedError):
        codec.Decoder(written({"x": [1, 2]}), stop=stop).read()


def test_large_numbers(tmp_path: Path) -> None:
    """Numbers of thousands of digits travel; of millions they are refused by name."""
    for value in (
        fractions.Fraction(10**4500, 7),
        2**100_000,
        decimal.Decimal("1E+9000"),
        decimal.Decimal("NaN"),
    ):
        assert repr(round_trip(value, tmp_path).__class__) == repr(type(value))
        assert str(round_trip(value, tmp_path)) == str(value) if isinstance(value, decimal.Decimal) else True
        assert value != value or round_trip(value, tmp_path) == value
    for value in (decimal.Decimal("1E+99999"), 1 << 5_000_000, fractions.Fraction(1, 1 << 100_000)):
        with pytest.raises(codec.CodecError, match=r"value: .* of more than"):
            round_trip(value, tmp_path)


def test_a_hostile_file_does_nothing() -> None:
    """Pickles in arrays, huge shapes, unknown kinds and thousands of damaged files raise, and run nothing."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    huge = buffer.getvalue().replace(b"(1,)", b"(99999999999,)").replace(b"'|O'", b"'<f8'")
    for part in (buffer.getvalue(), huge, pickle.dumps(Trap())):
        for kind in ("array", "pickle", "arrow", "scalar", "read", "__class__", "bytes"):
            tree = f'{{"v":{{"$":"{kind}","at":{len(codec.MAGIC)},"n":5,"v":[]}}}}'.encode()
            file = io.BytesIO(codec.MAGIC + part + tree + len(tree).to_bytes(8, "little"))
            try:
                codec.Decoder(file).read()
            except codec.CodecError:
                pass
            else:
                assert kind == "bytes"
    assert not Trap.sprung

    good = io.BytesIO()
    codec.Encoder(good).finish({"v": [frames()["mixed"], np.arange(5), {"a": (1, 2)}]})
    chance = random.Random(1)
    for _ in range(1500):
        damaged = bytearray(good.getvalue())
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            codec.Decoder(io.BytesIO(bytes(damaged))).read()
        except codec.CodecError:
            continue
    for length in range(0, len(good.getvalue()), 97):
        with pytest.raises(codec.CodecError):
            codec.Decoder(io.BytesIO(good.getvalue()[:length])).read()
