"""Read single values: numbers, dates, names. Each has a size at which nothing can be made slow with it."""

from __future__ import annotations

import base64
import datetime
import decimal
import fractions
import os
import pathlib
import re
import uuid
from typing import Any

from .format import DECIMAL_LIMIT, FRACTION_BIT_LIMIT, HEX_DIGIT_LIMIT, CodecError, damaged, decimal_fits

_DECIMAL = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:E[+-]?[0-9]{1,9})?|Infinity|s?NaN[0-9]*)", re.IGNORECASE
)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_OFFSET = re.compile(r"UTC([+-])([0-9]{2}):([0-9]{2})")


def _text(value: Any, longest: Any) -> Any:
    if not isinstance(value, str) or len(value) > longest:
        raise damaged()
    return value


def _whole(value: Any) -> Any:
    if type(value) is not int:
        raise damaged()
    return value


def _int(value: Any) -> Any:
    return int(_text(value, HEX_DIGIT_LIMIT + 4), 16)


def _str(value: Any) -> Any:
    return base64.b64decode(value).decode("utf-16-le", "surrogatepass")


def _float(value: Any) -> Any:
    return float(_text(value, 40))


def _complex(value: Any) -> Any:
    real, imaginary = value
    return complex(_float(real), _float(imaginary))


def _range(value: Any) -> Any:
    return range(*map(_whole, value))


def _timedelta(value: Any) -> Any:
    days, seconds, microseconds = map(_whole, value)
    return datetime.timedelta(days=days, seconds=seconds, microseconds=microseconds)


def _date(value: Any) -> Any:
    return datetime.date.fromisoformat(_text(value, 40))


def _decimal(value: Any) -> Any:
    if not _DECIMAL.fullmatch(_text(value, DECIMAL_LIMIT + 40)):
        raise damaged()
    number = decimal.Decimal(value)
    if not decimal_fits(number):
        raise CodecError("a decimal number that is too large")
    return number


def fraction(numerator: Any, denominator: Any) -> Any:
    """A fraction of two bounded integers."""
    if max(_whole(numerator).bit_length(), _whole(denominator).bit_length()) > FRACTION_BIT_LIMIT:
        raise CodecError("a fraction that is too large")
    return fractions.Fraction(numerator, denominator)


def _path(value: Any) -> Any:
    return pathlib.PurePosixPath(value) if os.name != "posix" else pathlib.Path(value)


def moment(kind: Any, value: Any) -> Any:
    """A date with time, or a time, in the zone that it names."""
    parse = datetime.datetime.fromisoformat if kind == "datetime" else datetime.time.fromisoformat
    plain: Any = parse(_text(value["v"], 80))
    where = value.get("tz")
    if where is None:
        return plain
    if isinstance(where, str):
        import zoneinfo

        return plain.replace(tzinfo=zoneinfo.ZoneInfo(zone_name(where)), fold=int(value["fold"]))
    return plain.replace(tzinfo=datetime.timezone(datetime.timedelta(seconds=where)))


def zone_name(name: Any) -> Any:
    """The name of a time zone of the IANA database; libraries take others for paths of files that they open."""
    if not _ZONE.fullmatch(_text(name, 100)):
        raise damaged()
    return name


def zone(name: Any) -> Any:
    """What pandas takes for a zone: a checked name, or a fixed offset."""
    found = _OFFSET.fullmatch(_text(name, 100))
    if found:
        offset = datetime.timedelta(hours=int(found[2]), minutes=int(found[3]))
        return datetime.timezone(offset if found[1] == "+" else -offset)
    if zone_name(name).split("/")[0] in ("dateutil", "tzlocal"):
        raise damaged()
    return name


SCALARS = {
    "int": _int,
    "str": _str,
    "float": _float,
    "complex": _complex,
    "range": _range,
    "timedelta": _timedelta,
    "date": _date,
    "decimal": _decimal,
    "uuid": lambda value: uuid.UUID(_text(value, 50)),
    "path": _path,
}
