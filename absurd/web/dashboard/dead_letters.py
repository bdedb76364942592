"""Dead letters: what failed for good, by what the failures have in common; put back, forget."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from absurd import dead_letters, inspection
from absurd.errors import InvalidInputError
from absurd.redaction import discreet
from absurd.web.answers import LOOK, After, Text, split_page
from absurd.web.dashboard.form import Form, Posted
from absurd.web.dashboard.render import show
from absurd.web.desk import Operator, Reader

router = APIRouter(prefix="/dead-letters")

PAGE = 50
"""How many dead letters a page shows."""
GROUPS = 10
"""How many kinds of failure."""
AT_ONCE = 1000
"""How many are put back by one form, oldest first."""
FILTERS = ("queue", "name", "fingerprint", "code", "text")


@router.get("")
async def show_dead_letters(
    request: Request,
    desk: Reader,
    queue: Text = "",
    name: Text = "",
    fingerprint: Text = "",
    code: Text = "",
    text: Annotated[Text, Query(max_length=1000)] = "",
    after: After = None,
) -> Response:
    """Dead letters by kind, and one by one, newest first."""
    given = {"queue": queue, "name": name, "fingerprint": fingerprint, "code": code, "text": text}
    filters = {key: value for key, value in given.items() if value}
    call = dead_letters.list_dead_letters(after=after, limit=PAGE + 1, look=LOOK, **filters)
    letters, last = split_page(await desk.read(call), PAGE)
    groups, older = split_page(
        await desk.read(dead_letters.group_dead_letters(limit=GROUPS, look=LOOK, **filters)), LOOK
    )
    following = urlencode(filters | {"after": last}) if last else None
    return show(
        request, "dead_letters.html", letters=letters, given=given, filters=filters, following=following,
        paged=after is not None, at_once=AT_ONCE,
        groups=groups, count=await desk.read(dead_letters.count_dead_letters(look=LOOK, **filters)),
        looked=LOOK if older else None,
        queues=[each["name"] for each in await desk.read(inspection.list_queues())],
    )  # fmt: skip


@router.get("/{task_id}")
async def show_dead_letter(request: Request, task_id: UUID, desk: Reader) -> Response:
    """All about one."""
    return show(request, "dead_letter.html", letter=discreet(await desk.read(dead_letters.get_dead_letter(task_id))))


@router.post("/requeue")
async def requeue_dead_letters(desk: Operator, form: Posted) -> Response:
    """Put those back that the form's filters choose."""
    call = dead_letters.requeue_dead_letters(
        params=_patch(form), rate=form.number("rate"), limit=AT_ONCE, **_which(form)
    )
    told = await desk.change(call)
    back = sum(each["requeued"] for each in told)
    kept = [each["reason"] for each in told if not each["requeued"]]
    more = f"; {len(kept)} stay: {kept[0]}" if kept else ""
    return form.go("/dead-letters", f"Requeued: {back}{more}.")


@router.post("/purge")
async def purge_dead_letters(desk: Operator, form: Posted) -> Response:
    """Forget those that the form's filters choose; their tasks stay failed."""
    count = await desk.change(dead_letters.purge_dead_letters(**_which(form)))
    return form.go("/dead-letters", f"Purged: {count}.")


def _which(form: Form) -> dict[str, Any]:
    """Raises InvalidInputError where a form names neither filters nor all."""
    found: dict[str, Any] = {name: form[name] for name in FILTERS if name in form}
    if "id" in form:
        found["ids"] = [form["id"]]
    if bool(found) == ("all" in form):
        raise InvalidInputError("say which: an id or filters, or else all")
    return found


def _patch(form: Form) -> Any:
    if "params" not in form:
        return None
    try:
        found = json.loads(form["params"])
    except ValueError as error:
        raise InvalidInputError(f"the change of params is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInputError('the change of params must be a JSON object such as {"tile": 12}')
    return found
