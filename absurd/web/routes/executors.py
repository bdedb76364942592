"""Executors: what can be run, and with which params."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from absurd import inspection
from absurd.errors import NotFoundError
from absurd.web import models
from absurd.web.answers import Name, Page, answer, answer_all
from absurd.web.desk import Reader
from absurd.web.problems import may_fail

router = APIRouter(prefix="/executors", tags=["executors"])


@router.get("", response_model=Page[models.Executor], responses=may_fail())
async def list_executors(desk: Reader) -> Response:
    """Executors that workers have registered, by name, with the JSON schema of their params."""
    return answer_all(await desk.read(inspection.list_executors()))


@router.get("/{name}", response_model=models.Executor, responses=may_fail(404))
async def get_executor(name: Name, desk: Reader) -> Response:
    """One executor."""
    for each in await desk.read(inspection.list_executors()):
        if each["name"] == name:
            return answer(each)
    raise NotFoundError(f"no worker has registered the executor {name}", name=name)
