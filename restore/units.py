"""Times, frame rates and counts as people write them."""

from __future__ import annotations

from fractions import Fraction

_NTSC = (24, 30, 48, 60, 120)
"""Rates that are slowed down by 1000/1001 where they are written as 23.976, 29.97 and so on."""


def parse_time(value: object) -> Fraction:
    """Read a time: seconds as any number, or text as ``[[HH:]MM:]SS[.mmm]``.

    Raises:
        ValueError: It is neither.
    """
    total = Fraction(0)
    for part in str(value).split(":"):
        total = total * 60 + Fraction(part)
    return total


def parse_rate(value: object) -> Fraction:
    """Read frames per second: a number, a fraction as text, or a rounded NTSC rate such as 23.976.

    Raises:
        ValueError: It is none of these.
    """
    try:
        rate = Fraction(str(value))
    except ZeroDivisionError as error:
        raise ValueError(str(error)) from error
    near = (Fraction(whole * 1000, 1001) for whole in _NTSC)
    return next((exact for exact in near if abs(exact - rate) < Fraction(1, 200)), rate)


def counted(number: int, noun: str) -> str:
    """Return a number of things, as in ``1 frame`` and ``2 frames``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
