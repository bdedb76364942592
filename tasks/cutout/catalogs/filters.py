"""What rows are wanted by the values of their columns: comparisons, without a language of their own."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, Self, cast, get_args

from absurd.tasks.cutout.errors import DataIdValidationError

Comparison = Literal["=", "!=", "<", "<=", ">", ">=", "in", "is null", "is not null"]
_WRITTEN = re.compile(
    r"(?P<column>[^\s<>=!]+)(?:\s*(?P<sign><=|>=|!=|==|<>|=|<|>)|\s+(?P<word>in|is\s+not\s+null|is\s+null)(?!\S))"
    r"(?P<value>.*)",
    re.IGNORECASE | re.DOTALL,
)
_SPELT = {"==": "=", "<>": "!="}


@dataclass(frozen=True, slots=True)
class Where:
    """A column compared with a value, with several for "in", or with none.  Raises DataIdValidationError."""

    column: str
    comparison: Comparison
    value: Any = None

    def __post_init__(self) -> None:
        if self.comparison not in get_args(Comparison):
            raise DataIdValidationError(
                f"comparison of {self.column!r} is {self.comparison!r}; there are {', '.join(get_args(Comparison))}"
            )

    @classmethod
    def read(cls, text: str) -> Self:
        """A comparison as people write it: ``mag < 20``, ``band in g,r``, ``class = "RR"``, ``flux is not null``.

        A value that is JSON is read as such, any other is a text.  Raises DataIdValidationError.
        """
        found = _WRITTEN.fullmatch(text.strip())
        if found is None or (found["value"] or "").lstrip()[:1] in tuple("<>=!"):  # `>>`, `=<`: no value begins so
            raise DataIdValidationError(
                f"{text!r} is no comparison", advice="write 'mag < 20', 'band in g,r' or 'flux is not null'"
            )
        comparison = " ".join((found["sign"] or found["word"]).lower().split())
        value = (found["value"] or "").strip()
        if comparison.startswith("is"):
            if value:
                raise DataIdValidationError(f"{text!r} is no comparison: nothing may follow {comparison!r}")
            return cls(found["column"], cast("Comparison", comparison))
        if not value:
            raise DataIdValidationError(f"{text!r} compares {found['column']!r} with nothing", advice="add a value")
        if comparison == "in":
            return cls(found["column"], "in", [_value(each.strip()) for each in value.split(",")])
        return cls(found["column"], cast("Comparison", _SPELT.get(comparison, comparison)), _value(value))

    def of(self, kind: Any) -> Where:
        """The same with values of a column's type, a `pyarrow.DataType`, as the column is compared with nothing else.

        A decimal number is the one nearest to it that a floating-point column can hold.  A column of integers equals
        no other number, and is less or greater than those between two integers and those beyond its type.
        """
        import pyarrow as pa

        several = self.comparison == "in"
        values = list(self.value) if several else [self.value]
        if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in values):
            return self
        if pa.types.is_floating(kind):
            held = [_nearest(each, kind) for each in values]
            if not several:
                return replace(self, value=held[0])
            # Arrow's isin finds NaN, and tells 0 from -0, as no comparison does
            zeros = [0.0, -0.0] if 0 in held else []
            found = [each for each in held if (each and abs(each) <= _most(kind)) or math.isinf(each)]
            return replace(self, value=found + zeros)
        if not pa.types.is_integer(kind):
            return self
        span = _span(kind)
        if several:
            return replace(self, value=[int(each) for each in values if _is_integer(each, span)])
        return self._of_integers(values[0], span)

    def _of_integers(self, value: float, span: range) -> Where:
        """One value compared with integers of a span."""
        none, known = replace(self, comparison="in", value=[]), replace(self, comparison="is not null", value=None)
        if self.comparison in ("=", "!=") or math.isnan(value):
            if _is_integer(value, span):
                return replace(self, value=int(value))
            return known if self.comparison == "!=" else none
        upward = self.comparison in ("<", "<=")
        if value >= span.stop:
            return known if upward else none
        if value < span.start:
            return none if upward else known
        return replace(self, value=math.ceil(value) if self.comparison in ("<", ">=") else math.floor(value))

    def expression(self, kind: Any) -> Any:
        """As a `pyarrow.compute.Expression` of a column of a type; NULL is neither equal nor unequal to anything."""
        import pyarrow.compute as pc

        typed = self.of(kind)
        field, value = pc.field(self.column), _literal(typed.value, kind)
        match typed.comparison:
            case "=":
                return field == value
            case "!=":
                return field != value
            case "<":
                return field < value
            case "<=":
                return field <= value
            case ">":
                return field > value
            case ">=":
                return field >= value
            case "in":
                return field.isin(value)
            case "is null":
                return field.is_null()
            case _:
                return ~field.is_null()

    def may_hold(self, low: Any, high: Any) -> bool:
        """Whether a value from `low` to `high` can pass; those of this must be of the column's type, see `of`."""
        if isinstance(low, Decimal):  # Arrow compares it with a number as that is rounded, Python as it is
            return True
        try:
            match self.comparison:
                case "=":
                    return bool(low <= self.value <= high)
                case "<":
                    return bool(low < self.value)
                case "<=":
                    return bool(low <= self.value)
                case ">":
                    return bool(high > self.value)
                case ">=":
                    return bool(high >= self.value)
                case "in":
                    return any(low <= each <= high for each in self.value)
                case _:
                    return True
        except TypeError:  # not to be compared: the rows will say so
            return True


def all_of(where: Sequence[Where], schema: Any) -> Any:
    """All comparisons of columns of a `pyarrow.Schema` as one expression; None for none."""
    found = None
    for each in where:
        expression = each.expression(schema.field(each.column).type)
        found = expression if found is None else found & expression
    return found


def ranges_of(group: Any) -> Mapping[str, tuple[Any, Any]]:
    """Least and largest value of each column of a `pyarrow.parquet.RowGroupMetaData` that tells them.

    Not of floating-point columns with NaN at an end, which some writers put there: they tell nothing.
    """
    found = {}
    for number in range(group.num_columns):
        column = group.column(number)
        told = column.statistics
        if told is None or not told.has_min_max:
            continue
        if any(isinstance(end, float) and math.isnan(end) for end in (told.min, told.max)):
            continue
        found[column.path_in_schema] = (told.min, told.max)
    return found


def _literal(value: Any, kind: Any) -> Any:
    """A value, or a list of some, as Arrow takes it for a column of a type."""
    import pyarrow as pa

    try:
        if isinstance(value, list):
            return pa.array(value, kind) if pa.types.is_integer(kind) or pa.types.is_floating(kind) else value
        # an int would be an int64 to Arrow, to which it would take the column, uint64 as it may be
        return pa.scalar(value, kind) if pa.types.is_integer(kind) else value
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # not of this type: the comparison will say so
        return value


def _most(kind: Any) -> float:
    import numpy as np

    return float(np.finfo(kind.to_pandas_dtype()).max)


def _nearest(value: float, kind: Any) -> float:
    """What a floating-point type holds of a number; beyond its ends the number itself, which it equals nothing of."""
    import numpy as np

    try:
        number = float(value)
    except OverflowError:
        raise DataIdValidationError(
            f"a number of {len(str(abs(int(value))))} digits is beyond what a floating-point column can hold",
            advice="compare with one up to 1e308",
        ) from None
    with np.errstate(over="ignore"):
        held = float(kind.to_pandas_dtype()(number))
    return held if math.isfinite(held) or not math.isfinite(number) else number


def _span(kind: Any) -> range:
    import numpy as np

    ends = np.iinfo(kind.to_pandas_dtype())
    return range(int(ends.min), int(ends.max) + 1)


def _is_integer(value: float, span: range) -> bool:
    return math.isfinite(value) and int(value) == value and int(value) in span


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
