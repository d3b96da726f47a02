"""What writer and reader have to agree on."""

from __future__ import annotations

MAGIC = b"AGENTCUBE-VARS-2\n"
DEPTH_LIMIT = 200
TREE_LIMIT = 256 << 20
"""Bytes of plain data in one file. Parsing JSON cannot be interrupted; arrays and bytes are not part of it."""
HEX_DIGIT_LIMIT = 1_000_000
"""Hexadecimal digits of an integer."""
FRACTION_BIT_LIMIT = 1 << 16
"""Bits of a fraction's numerator and denominator, whose common divisor takes quadratic time."""
DECIMAL_LIMIT = 20_000
"""Digits of a decimal number, and the size of its exponent."""


class CodecError(ValueError):
    """A value cannot be sent, or a file is not of this format."""


class StoppedError(CodecError):
    """Reading was stopped from another thread."""


def damaged() -> CodecError:
    """The error for a file that is not what this codec writes."""
    return CodecError("the transferred file is damaged")


def decimal_fits(value: object) -> bool:
    """Whether a `Decimal` has a size at which every operation on it ends soon."""
    _, digits, exponent = value.as_tuple()  # type: ignore[attr-defined]
    return len(digits) <= DECIMAL_LIMIT and (isinstance(exponent, str) or abs(exponent) <= DECIMAL_LIMIT)
