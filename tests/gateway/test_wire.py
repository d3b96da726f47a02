"""Durations, file modes, times and text are written as Go writes them."""

from __future__ import annotations

import stat

import pytest

from agentcube_kernel.gateway.wire import decode_output, go_mode, parse_duration, rfc3339


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("30s", 30.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("500ms", 0.5),
        ("1h2m3s", 3723.0),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("7ns", 7e-9),
        ("-2m", -120.0),
        ("+2m", 120.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Go's duration syntax is read."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "+", "s", ".s", "10", "1 s", "5x", "1s5", "abc", "1e3s", "9999999999999h"]
)
def test_what_is_no_duration(text: str) -> None:
    """Everything else is refused in Go's words."""
    with pytest.raises(ValueError, match=r"^time: (invalid|missing unit in|unknown unit .* in) duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (stat.S_IFREG | 0o644, "-rw-r--r--"),
        (stat.S_IFDIR | 0o755, "drwxr-xr-x"),
        (stat.S_IFDIR | stat.S_ISVTX | 0o777, "dtrwxrwxrwx"),
        (stat.S_IFREG | stat.S_ISUID | 0o755, "urwxr-xr-x"),
        (stat.S_IFDIR | stat.S_ISGID | 0o750, "dgrwxr-x---"),
        (stat.S_IFLNK | 0o777, "Lrwxrwxrwx"),
        (stat.S_IFIFO | 0o600, "prw-------"),
        (stat.S_IFSOCK | 0o600, "Srw-------"),
        (stat.S_IFCHR | 0o666, "Dcrw-rw-rw-"),
        (stat.S_IFBLK | 0o660, "Drw-rw----"),
    ],
)
def test_modes(mode: int, text: str) -> None:
    """Modes read as from Go's FileMode."""
    assert go_mode(mode) == text


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times carry nine decimals without trailing zeros, and the local offset or Z."""
    import time

    for zone, text in (("UTC", "2026-01-02T03:04:05.12Z"), ("XYZ-5:30", "2026-01-02T08:34:05.12+05:30")):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert rfc3339(1767323045_120000000) == text
    assert rfc3339(1767323045_000000000).endswith("05+05:30")
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain \xc3\xa4", "plain ä"),
        (b"\xff", "\ufffd"),
        (b"\xe2\x82", "\ufffd\ufffd"),
        (b"\xf0\x9f\x98\x80\xf0\x9f\x98", "😀\ufffd\ufffd\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\xc0\x80", "\ufffd\ufffd"),
        ("\ufffd".encode(), "\ufffd"),
    ],
)
def test_output(data: bytes, text: str) -> None:
    """Each byte that is not UTF-8 becomes one U+FFFD."""
    assert decode_output(data) == text
