"""Names of things as parts of the names of files."""

from __future__ import annotations

from collections.abc import Sequence


def plain(name: str) -> str:
    """A name as a part of a file's."""
    return "".join(sign if sign.isalnum() or sign in "-+." else "-" for sign in name).lstrip(".") or "-"


def plain_bands(bands: Sequence[str | None]) -> list[str]:
    """Each band as a part of a file's name, no two the same: g' and g* are g- and, with its number, g--1."""
    made: list[str] = []
    for number, band in enumerate(bands):
        own = plain(band or str(number))
        while own in made:
            own = f"{own}-{number}"
        made.append(own)
    return made
