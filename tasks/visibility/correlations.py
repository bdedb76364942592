"""Names of correlations, and the numbers that they have in files."""

from __future__ import annotations

from collections.abc import Iterable

from absurd.tasks.radio.errors import DataError

CASA = {
    5: "RR",
    6: "RL",
    7: "LR",
    8: "LL",
    9: "XX",
    10: "XY",
    11: "YX",
    12: "YY",
    1: "I",
    2: "Q",
    3: "U",
    4: "V",
}
"""Numbers of Measurement Sets, which list correlations of one kind in this order (CASA refuses others)."""
AIPS = {
    1: "I",
    2: "Q",
    3: "U",
    4: "V",
    -1: "RR",
    -2: "LL",
    -3: "RL",
    -4: "LR",
    -5: "XX",
    -6: "YY",
    -7: "XY",
    -8: "YX",
}
"""Numbers of UVFITS and UVH5 (AIPS memo 117)."""
NUMBERS = {name: number for number, name in CASA.items()}


def named(numbers: Iterable[int], names: dict[int, str], path: object) -> tuple[str, ...]:
    """The names of correlations by their numbers in a file.  Raises DataError for one that is not known."""
    told = [int(each) for each in numbers]
    if unknown := [each for each in told if each not in names]:
        raise DataError(f"{path}: correlation {unknown[0]} is none of {', '.join(names.values())}", path=str(path))
    return tuple(names[each] for each in told)


def in_order(correlations: tuple[str, ...]) -> list[int]:
    """Where each stands, in the order that Measurement Sets have."""
    return sorted(range(len(correlations)), key=lambda place: NUMBERS[correlations[place]])
