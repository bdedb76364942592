"""Answers: JSON of what the core gives, and pages of lists with where the next one begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import Response

T = TypeVar("T")

MOST = 500
"""How many items a page holds at most."""
LOOK = 5000
"""How many rows are looked through for a page whose filters fit few: it may be short, and tells where to go on."""


class Page(BaseModel, Generic[T]):
    """Items of a list, and where it goes on."""

    items: list[T]
    next: str | None = Field(
        description="What to give as `after` for the next page, even if this one is short; null at the end."
    )


def _storable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half a character (a lone surrogate)") from None
    if "\0" in text:
        raise ValueError("it holds the character NUL")
    return text


Text = Annotated[str, AfterValidator(_storable)]
"""Text that the database can store."""
Reason = Annotated[Text, Field(max_length=1000)]
Name = Annotated[Text, Path(max_length=200)]
"""A name in the path."""
Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
"""A number in the path."""
Limit = Annotated[int, Query(ge=1, le=MOST, description="How many items at most.")]
After = Annotated[UUID | None, Query(description="`next` of the page before.")]
Place = Annotated[Text | None, Query(max_length=5000, description="`next` of the page before.")]
"""As `After`, where a page ends at no id."""


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`content` as JSON; times, ids and models become what JSON has."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return Response(text.encode("utf-8", "replace"), status, headers, media_type="application/json")


def answer_page(found: Sequence[Any], limit: int, place: Callable[[Any], object]) -> Response:
    """A page of `found`, which was asked for with one more than `limit`, to know whether there is a next page."""
    items = found[:limit]
    return answer({"items": items, "next": str(place(items[-1])) if len(found) > limit else None})


def split_page(found: list[dict[str, Any]], limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Items of a page and where the next begins, of what was asked for with `LOOK` and one more than `limit`."""
    if len(found) > limit:
        return found[:limit], found[limit - 1]["id"]
    if found and "next" in found[-1]:
        return found[:-1], found[-1]["next"]
    return found, None


def answer_found(found: list[dict[str, Any]], limit: int) -> Response:
    """A page of what was asked for as `split_page` says."""
    items, following = split_page(found, limit)
    return answer({"items": items, "next": following})


def answer_all(found: list[dict[str, Any]]) -> Response:
    """A list that is short by nature, as the only page."""
    return answer({"items": found, "next": None})


def _plain(value: Any) -> Any:
    if isinstance(value, date):  # and datetimes
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
