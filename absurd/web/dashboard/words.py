"""Numbers and times as people read them, each with its unit (pure)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

NOTHING = "–"
"""Where there is no value."""


def moment(value: str | datetime) -> datetime:
    """A time of a document."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def tell_time(value: str | datetime | None) -> str:
    """To the second, in UTC."""
    return NOTHING if value is None else f"{moment(value).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def tell_seconds(value: float | None) -> str:
    """A span of time in the two largest units that it fills."""
    if value is None:
        return NOTHING
    value = abs(float(value))
    if value < 0.0995:
        return f"{1000 * value:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    for length, unit, part, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if value >= length:
            whole, rest = divmod(round(value / part), length // part)
            return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"
    return f"{value:.0f} s"


def tell_span(begin: str | datetime | None, end: str | datetime | None) -> str:
    """From `begin` to `end`."""
    return NOTHING if begin is None or end is None else tell_seconds((moment(end) - moment(begin)).total_seconds())


def tell_age(value: str | datetime | None, now: datetime) -> str:
    """How long ago something was, or in how long it will be."""
    if value is None:
        return NOTHING
    ahead = (moment(value) - now).total_seconds()
    if abs(ahead) < 1:
        return "now"
    told = tell_seconds(round(ahead) if abs(ahead) < 60 else ahead).replace(".0 s", " s")
    return f"in {told}" if ahead > 0 else f"{told} ago"


def tell_count(value: float | None) -> str:
    """A number of things."""
    return NOTHING if value is None else f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def tell_bytes(value: int | None) -> str:
    """A size, in powers of 1000."""
    if value is None:
        return NOTHING
    size = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def tell_flux(value: float | None, per: str = "") -> str:
    """A flux density, in Jy, mJy or µJy; `per` such as ``/beam``."""
    return NOTHING if value is None else scaled(value, f"Jy{per}", ".3")


def tell_amount(value: float | None, unit: str) -> str:
    """A value of what an alert measures, in its unit: ``s``, ``1`` for a share, ``Jy/beam``, or what is counted."""
    if value is None:
        return NOTHING
    if unit == "1":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return tell_seconds(value)
    if unit.startswith("Jy"):
        return tell_flux(value, unit.removeprefix("Jy"))
    return f"{tell_count(value)} {unit.removesuffix('s') if value == 1 else unit}"


def tell_frequency(value: float | None) -> str:
    """A frequency in Hz, kHz, MHz or GHz."""
    return NOTHING if value is None else scaled(value, "Hz", "4")


def scaled(value: float, unit: str, digits: str = "4") -> str:
    """A number with a prefix to its unit, such that it has one to three digits before the point.

    `digits` are its significant ones: at most, or with a point before, that many.
    """
    least = 1 - 0.5 * 10.0 ** -int(digits.removeprefix("."))  # what is rounded up to 1
    shape = f"#.{digits[1:]}g" if digits.startswith(".") else f".{digits}g"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ")):
        if abs(value) >= least * factor:
            return f"{value / factor:{shape}}".rstrip(".") + f" {prefix}{unit}"
    return f"{value:.3g} {unit}"


def cut(text: str, most: int) -> str:
    """A name in `most` characters at most: without what stands before a slash, and then both its ends."""
    if len(text) > most:
        text = base_name(text)
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[len(text) - (most - half - 1) :]}"


def tell_json(value: Any) -> str:
    """JSON with indents, its text as it is."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def short_id(value: object) -> str:
    """The end of an id: its beginning is the time, which neighbours share."""
    return f"…{str(value)[-8:]}"


def tell_options(options: Mapping[str, Any]) -> str:
    """Names and values in one line; a unit at the end of a name stands behind its value."""
    return ", ".join(f"{name.removesuffix('_gib')} {_amount(name, value)}" for name, value in options.items())


def _amount(name: str, value: object) -> str:
    told = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{told} GiB" if name.endswith("_gib") else told


def base_name(path: str) -> str:
    """Name of a file without its folders."""
    return path.rpartition("/")[2]


FILTERS: dict[str, Callable[..., str]] = {
    "age": tell_age,
    "amount": tell_amount,
    "basename": base_name,
    "bytes": tell_bytes,
    "count": tell_count,
    "cut": cut,
    "flux": tell_flux,
    "frequency": tell_frequency,
    "json": tell_json,
    "options": tell_options,
    "seconds": tell_seconds,
    "short": short_id,
    "span": tell_span,
    "time": tell_time,
}
"""What templates call them."""
