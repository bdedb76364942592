"""What an error mostly comes from and what to do about it, by its code: ``remedies.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Remedy:
    """Cause and cure of the errors of one code."""

    cause: str
    cure: str


@cache
def remedies() -> dict[str, Remedy]:
    """All of them by code, in the order of the file."""
    import tomllib

    text = files("absurd.cli").joinpath("remedies.toml").read_text(encoding="utf-8")
    return {code: Remedy(**told) for code, told in tomllib.loads(text).items()}
