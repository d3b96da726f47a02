"""A look at what smolagents' safe format holds, before anything in it is opened on this machine.

It is JSON that names types. Two of them let the sandbox decide how much memory they take here: images, which are
compressed, and arrays, whose type may be any.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

PREFIX = "safe:"
MAX_PIXELS = 64_000_000
MAX_ARRAY_BYTES = 512 * 1024 * 1024
# What smolagents itself makes an image to, and what an image that is a result may be.
_FORMATS = ("PNG", "JPEG")


class UnsafeAnswerError(ValueError):
    """An answer that is not opened; the message says why."""


def check_answer(encoded: str) -> None:
    """Look through an answer in the safe format.

    Raises:
        UnsafeAnswerError: it is damaged, or would take too much memory.
    """
    try:
        _check(json.loads(encoded.removeprefix(PREFIX)))
    except UnsafeAnswerError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnsafeAnswerError(f"it is damaged ({type(error).__name__})") from error


def opened_image(data: bytes) -> Any:
    """The image in a PNG or JPEG file, not decoded yet.

    Raises:
        UnsafeAnswerError: it is none, or it has too many pixels.
    """
    import PIL.Image

    try:
        image = PIL.Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:  # Pillow raises whatever a damaged file leads to
        raise UnsafeAnswerError(f"an image in it is damaged ({type(error).__name__})") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnsafeAnswerError(
            f"an image in it has {width} x {height} pixels; at most {MAX_PIXELS:,} are opened"
        )
    return image


def _check(value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, dict):
        kind = value.get("__type__")
        if kind == "PIL.Image":
            opened_image(base64.b64decode(value["data"]))
        elif kind == "ndarray":
            _check_array(value)
        else:
            for item in value.values():
                _check(item)


def _check_array(value: dict[str, Any]) -> None:
    try:
        import numpy
    except ImportError:
        return  # it stays the list that it is
    kind = numpy.dtype(value["dtype"])
    if kind.hasobject or kind.fields or kind.subdtype:
        raise UnsafeAnswerError("an array in it has a type that is no plain number or text")
    if _leaves(value["data"]) * max(kind.itemsize, 1) > MAX_ARRAY_BYTES:
        raise UnsafeAnswerError("an array in it is too large")


def _leaves(data: Any) -> int:
    return sum(_leaves(item) for item in data) if isinstance(data, list) else 1
