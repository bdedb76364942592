"""What is told of catalogues, measurements and changes as products: tables, and a row for each source."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]
_DIGITS = 9
"""Of numbers in rows: a flux density is not known to more, and a row is half as long."""
_OF_MEASUREMENT = {
    "source_id": "name", "observed": "observed_at", "image": "image", "frequency_hz": "frequency_hz",
    "flux_jy": "flux_jy", "error_jy": "error_jy", "integrated_jy": "integrated_jy", "rms_jy": "rms_jy",
    "background_jy": "background_jy", "snr": "snr", "detected": "detected", "upper_limit_jy": "upper_limit_jy",
    "chi_squared": "chi_squared", "group": "blend", "flags": "flags",
}  # fmt: skip
_OF_CHANGE = (
    "kind", "epochs", "detections", "mean_jy", "weighted_mean_jy", "eta", "v", "vs", "m", "sigma_deviation",
    "false_alarm", "pair_false_alarm", "ese_score", "ese_confidence", "reference",
)  # fmt: skip


def table_record(path: str, of: str, inputs: Sequence[tuple[str, str]], **facts: Any) -> Row:
    """The row of a Parquet file; `of` is what it holds, `inputs` are paths with their roles."""
    told = {os.path.abspath(each): role for each, role in inputs}
    return {
        "path": path,
        "inputs": [{"path": each, "role": role} for each, role in told.items()],
        "facts": {"of": of} | facts,
    }


def span_of(times: Sequence[Any]) -> Row:
    """When the first and the last of some images were observed, of those that tell."""
    known = sorted(each for each in times if each is not None)
    return {"observed_from": known[0], "observed_until": known[-1]} if known else {}


def source_rows(table: Any, radius_arcsec: float) -> Iterator[Row]:
    """A row for each source of a table with source_id, ra and dec: within the radius it is one that is known."""
    seen: set[str] = set()
    for name, ra, dec in zip(*(table.column(each).to_pylist() for each in ("source_id", "ra", "dec")), strict=True):
        if name not in seen:
            seen.add(name)
            yield {"name": name, "ra": ra % 360, "declination": dec, "radius_arcsec": radius_arcsec}


def measurement_rows(table: Any) -> Iterator[Row]:
    """A row for each measurement of `rows.photometry_table`, also where nothing was detected."""
    for row in table.to_pylist():
        yield {name: _short(row[column]) for column, name in _OF_MEASUREMENT.items()}


def change_rows(sources: Any) -> Iterator[Row]:
    """A row for each source of `changes.find_changes`."""
    for row in sources.to_pylist():
        yield {"name": row["source_id"]} | {name: _short(row[name]) for name in _OF_CHANGE}


def _short(value: Any) -> Any:
    """The same to nine digits; None for what is no finite number."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
