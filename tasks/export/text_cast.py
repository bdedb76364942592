"""The server's text of values, as another Arrow type: Arrow's own cast, without what it changes unasked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa

_WIDEST_EXPONENT = 100


def is_possible(arrow: Any) -> bool:
    """Whether there is a cast from text to that type at all."""
    try:
        cast(pa.array([], pa.string()), arrow)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return False
    return True


def cast(texts: Any, arrow: Any) -> Any | None:
    """The texts as that type; None if one does not fit.

    What is asked for as a float becomes the float next to it, but nothing finite becomes infinite.  All else is kept
    to the digit or does not fit.
    """
    try:
        if pa.types.is_decimal(arrow):
            plain = _plain_decimals(texts, arrow)
            return None if plain is None else plain.cast(arrow)
        values = texts.cast(arrow)
    except pa.ArrowInvalid:
        return None
    if pa.types.is_floating(arrow) and not _is_within(values, texts):
        return None
    return values


def _plain_decimals(texts: Any, arrow: Any) -> Any | None:
    """The numbers without exponents, and with no digits but those that the type has places for; None if one has more.

    Arrow itself keeps the lowest bits of a number that is too large, without a word.
    """
    import pyarrow.compute as pc  # a tenth of the program's start, and hardly any export needs it

    if pc.any(pc.match_substring(texts, "e", ignore_case=True)).as_py():
        texts = pa.array([_without_exponent(text) for text in texts.to_pylist()], pa.string())
    before, after = arrow.precision - arrow.scale, arrow.scale
    fits = pc.match_substring_regex(texts, rf"^[+-]?0*[0-9]{{0,{before}}}(\.[0-9]{{0,{after}}}0*)?$")
    if not pc.all(fits, min_count=0).as_py():  # of no text at all, all fit
        return None
    return pc.replace_substring_regex(texts, rf"(\.[0-9]{{0,{after}}})0*$", r"\1")


def _without_exponent(text: str | None) -> str | None:
    if text is None or "e" not in text.lower():
        return text
    try:
        number = Decimal(text)
    except ArithmeticError:
        return text
    return f"{number:f}" if abs(number.adjusted()) <= _WIDEST_EXPONENT else text


def _is_within(values: Any, texts: Any) -> bool:
    """Whether each infinite float is infinite in its text too."""
    import pyarrow.compute as pc

    infinite = pc.is_inf(values.cast(pa.float64()))
    named = pc.match_substring(texts, "inf", ignore_case=True)
    return not pc.any(pc.and_not(infinite, named)).as_py()
