"""A call of one SQL function, apart from who makes it: both clients and the worker run the same calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Row(Protocol):
    """A row of a result, by column name."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """SQL text with ``$1`` placeholders, its arguments, and what makes the value out of the rows.

    ``{schema}`` in the text stands for the schema of the queue.  Every argument is cast in the text
    and JSON travels as text, so that both drivers, with whatever codecs, agree on the types.
    """

    sql: str
    args: tuple[Any, ...]
    decode: Callable[[Sequence[Row]], T]
    repeatable: bool = True
    """Whether the call may be made again when its answer was lost: twice has the effect of once."""


class Calls(Generic[T]):
    """Calls that are made ready when their turn comes, and kept: after a lost answer all are made once more."""

    def __init__(self, source: Iterable[Call[T]]) -> None:
        self._source = iter(source)
        self._ready: list[Call[T]] = []
        self._failed: Exception | None = None

    def __iter__(self) -> Iterator[Call[T]]:
        yield from list(self._ready)
        while True:
            if self._failed is not None:  # a source that has raised looks as if it were at its end
                raise self._failed
            try:
                call = next(self._source)
            except StopIteration:
                return
            except Exception as error:
                self._failed = error
                raise
            self._ready.append(call)
            yield call

    def at_most_one(self) -> bool:
        """Whether a transaction around them would be idle."""
        return len(list(islice(self, 2))) < 2

    def repeatable(self) -> bool:
        """Whether those that were ready may be made again."""
        return all(call.repeatable for call in self._ready)


def in_schema(sql: str, schema: str) -> str:
    """`sql` with ``{schema}`` replaced by `schema`, an SQL identifier."""
    return sql.replace("{schema}", schema)


# Decoders ----------------------------------------------------------------------------------------


def nothing(rows: Sequence[Row]) -> None:
    """For functions that return void."""


def one_value(name: str) -> Callable[[Sequence[Row]], Any]:
    """The column `name` of the only row."""
    return lambda rows: rows[0][name]
