"""Dead letters: look at them, put them back, forget them."""

from __future__ import annotations

from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from absurd import dead_letters
from absurd.redaction import discreet
from absurd.web import models
from absurd.web.answers import LOOK, After, Limit, Page, Text, answer, answer_found
from absurd.web.desk import Operator, Reader
from absurd.web.problems import may_fail

router = APIRouter(prefix="/dead-letters", tags=["dead letters"])


class Filter(BaseModel):
    """Which dead letters."""

    model_config = ConfigDict(extra="forbid")

    queue: Text | None = None
    name: Text | None = Field(None, description="Name of the executor.")
    fingerprint: Text | None = Field(None, description="Those whose failures look alike.")
    code: Text | None = Field(None, description="Of the error, such as poison or worker_lost.")
    since: AwareDatetime | None = Field(None, description="Those that died then or later.")
    until: AwareDatetime | None = Field(None, description="Those that died before.")
    text: Text | None = Field(None, max_length=1000, description="In the error's message or the params.")

    def filters(self) -> dict[str, Any]:
        """As `absurd.dead_letters` takes it."""
        given = {name: getattr(self, name) for name in (*Filter.model_fields, "ids") if hasattr(self, name)}
        return {name: value for name, value in given.items() if value is not None}


class ListFilter(Filter):
    """Which dead letters, and which page of them."""

    after: After = None
    limit: Limit = 50


class Choice(Filter):
    """Which dead letters to change: ids, filters, or `all`."""

    ids: list[UUID] | None = Field(None, min_length=1, max_length=1000)
    all: bool = Field(False, description="Every dead letter.")
    dry_run: bool = Field(False, description="Only tell what would be done.")

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.all == bool(self.filters()):
            raise ValueError("say which: ids or filters, or else all")
        return self


class RequeueChoice(Choice):
    """Which dead letters to put back, and how."""

    params: dict[str, Any] | None = Field(None, description="A merge patch for the params; null removes.")
    set: dict[Text, Any] | None = Field(None, description="Values of params at paths such as a.b.")
    rate: float | None = Field(None, gt=0, le=1_000_000, description="So many a second, not all at once.")
    limit: int = Field(1000, ge=1, le=1000, description="How many at most.")


@router.get("", response_model=Page[models.LetterRow], responses=may_fail(404))
async def list_dead_letters(desk: Reader, given: Annotated[ListFilter, Query()]) -> Response:
    """Dead letters, newest task first."""
    limit = given.limit
    call = dead_letters.list_dead_letters(after=given.after, limit=limit + 1, look=LOOK, **given.filters())
    return answer_found(await desk.read(call), limit)


@router.get("/groups", response_model=Page[models.LetterGroup], responses=may_fail(404))
async def group_dead_letters(desk: Reader, given: Annotated[ListFilter, Query()]) -> Response:
    """The newest 5,000 dead letters by what their failures share, most frequent first; `next` leads to older ones."""
    call = dead_letters.group_dead_letters(limit=given.limit, after=given.after, look=LOOK, **given.filters())
    return answer_found(await desk.read(call), given.limit + 1)


@router.get("/{task_id}", response_model=models.Letter, responses=may_fail(404))
async def get_dead_letter(task_id: UUID, desk: Reader) -> Response:
    """All about a dead letter: params, error with traceback, where it ran, and its runs."""
    return answer(discreet(await desk.read(dead_letters.get_dead_letter(task_id))))


@router.post("/requeue", response_model=models.Requeued, responses=may_fail(404, 409))
async def requeue_dead_letters(choice: RequeueChoice, desk: Operator) -> Response:
    """Put dead letters back, with another round of attempts; what cannot come back is told and stays."""
    call = dead_letters.requeue_dead_letters(
        params=choice.params,
        set=choice.set,
        rate=choice.rate,
        limit=choice.limit,
        dry_run=choice.dry_run,
        **choice.filters(),
    )
    told = await (desk.read(call) if choice.dry_run else desk.change(call))
    return answer({"requeued": sum(each["requeued"] for each in told), "dry_run": choice.dry_run, "tasks": told})


@router.post("/purge", response_model=models.Purged, responses=may_fail(404))
async def purge_dead_letters(choice: Choice, desk: Operator) -> Response:
    """Forget dead letters, at most 10,000 a call; their tasks stay failed for as long as they are kept."""
    call = dead_letters.purge_dead_letters(dry_run=choice.dry_run, **choice.filters())
    count = await (desk.read(call) if choice.dry_run else desk.change(call))
    return answer({"purged": count, "dry_run": choice.dry_run})
