"""What a value from a sandbox must look like: checks that return a clean copy, or raise `WrongShapeError`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..text import harmless, terminal_text, well_formed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Content = dict[str, Any]

_DEPTH_LIMIT = 64
_LARGEST_COUNT = 2**31 - 1
_LONGEST_NAME = 256


class WrongShapeError(ValueError):
    """The value does not have the shape that its place demands; the message says what is wrong."""


def json_data(value: Any, text: Callable[[str], str] = well_formed, *, depth: int = 0) -> Any:
    """Copy JSON data without what would break a strict encoder: NaN, lone surrogates, bottomless nesting.

    Every string, keys included, passes `text`.

    Raises:
        WrongShapeError: not JSON, or nested too deeply.
    """
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth > _DEPTH_LIMIT:
        raise WrongShapeError("nested too deeply")
    if isinstance(value, list):
        return [json_data(item, text, depth=depth + 1) for item in value]
    if isinstance(value, dict):
        return {text(key): json_data(item, text, depth=depth + 1) for key, item in value.items()}
    raise WrongShapeError("not JSON")


def plain_text(content: Mapping[str, Any], key: str) -> str:
    """A text that no terminal sees as it is, such as code."""
    value = content.get(key)
    if not isinstance(value, str):
        raise WrongShapeError(f"{key} is not text")
    return well_formed(value)


def shown_text(content: Mapping[str, Any], key: str) -> str:
    """A text that a terminal may get."""
    return terminal_text(plain_text(content, key))


def shown_lines(content: Mapping[str, Any], key: str) -> list[str]:
    """A list of texts that a terminal may get; missing is empty."""
    value = content.get(key, [])
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise WrongShapeError(f"{key} is not a list of text")
    return [terminal_text(line) for line in value]


def count(content: Mapping[str, Any], key: str) -> int:
    """A whole number from 0 to 2**31 - 1; one beyond that is cut, so that it can be neither negative nor huge."""
    value = content.get(key)
    if type(value) is not int:
        raise WrongShapeError(f"{key} is not a number")
    return min(max(value, 0), _LARGEST_COUNT)


def json_object(content: Mapping[str, Any], key: str, text: Callable[[str], str] = well_formed) -> Content:
    """A JSON object; missing is empty."""
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise WrongShapeError(f"{key} is not an object")
    cleaned: Content = json_data(value, text)
    return cleaned


def identifier(value: str) -> str:
    """The id of a cell or comm as it may stand in messages and logs: without control characters, of bounded length."""
    return harmless(value[:_LONGEST_NAME])
