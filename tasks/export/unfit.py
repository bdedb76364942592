"""Values that do not fit the type of their column: what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.errors import UnfitValueError

OnUnfit = Literal["error", "null", "text"]
ON_UNFIT: tuple[OnUnfit, ...] = ("error", "null", "text")

WHAT = (
    "",
    "infinity",
    "-infinity",
    "a time past the year 294246",
    "the time 24:00:00",
    "NaN",
    "an array of several dimensions",
    "an array whose first index is not 1",
    "a number of more digits",
)
"""Why a value does not fit, by the number that the compiled decoder gives it: see columns.h."""
INFINITE, MINUS_INFINITE, TOO_LATE, MIDNIGHT, NOT_A_NUMBER, DIMENSIONS, LOWER_BOUND, DIGITS = WHAT[1:]


@dataclass(frozen=True, slots=True)
class Unfit:
    """The values of one column that did not fit."""

    count: int
    row: int
    """Row of the first one, from 1 where its range of the result begins."""
    what: str
    """What the first one is."""


class UnfitAtError(Exception):
    """A decoder met a value that does not fit; the row is counted from where its range begins."""

    def __init__(self, column: Column, row: int, what: str) -> None:
        super().__init__(what)
        self.column, self.row, self.what = column, row, what

    def told(self, rows_before: int) -> UnfitValueError:
        """The error for the caller, once it is known how many rows come before the range."""
        name, row = self.column.name, rows_before + self.row
        return UnfitValueError(
            f"row {row} of column {name!r} holds {self.what}, which {self.column.arrow} cannot keep: "
            f'cast it in the query, as "{name}"::text, export with on_unfit "text" or "null", or leave such rows out',
            column=name,
            row=row,
            value=self.what,
        )
