"""Errors as answers: one shape, ``{"error", "message", "details"}``, with the codes of `absurd.errors`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from absurd import errors
from absurd.errors import AbsurdError

STATUSES: dict[type[AbsurdError], int] = {
    errors.InvalidInputError: 422,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.PayloadTooLargeError: 413,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.RateLimitedError: 429,
    errors.DatabaseUnavailableError: 503,
    errors.SchemaError: 503,
    AbsurdError: 500,
}
"""The status of each error: that of the nearest class above it."""
RETRY_SECONDS = 5
"""After how many seconds a caller may try again what the database was away for."""
INTERNAL = "internal"
"""The code of what should not have happened, as on the command line."""

MEANINGS = {
    401: "No token, or one that is not let in.",
    403: "The token does not allow it, a page of another site called, or the address may not.",
    404: "There is no such thing.",
    409: "The present state does not allow it.",
    413: "The body, or a part of it, is larger than is taken.",
    422: "The call is wrong; repeated as it is it fails again.",
    429: "Too many requests; `Retry-After` says for how many seconds to wait.",
    500: "A mistake of the server's own; its log tells it.",
    503: "The database is away; `Retry-After` says for how many seconds to wait.",
}


class Problem(BaseModel):
    """What went wrong."""

    error: str = Field(description="A code that does not change between versions, see the reference of errors.")
    message: str = Field(description="One sentence for people.")
    details: dict[str, Any] = Field(description="What the message names, for programs.")


def may_fail(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors a route answers with, for the OpenAPI: those every route has, and `statuses`."""
    retry = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
    return {
        status: {"model": Problem, "description": MEANINGS[status]}
        | ({"headers": retry} if status in (429, 503) else {})
        for status in sorted({401, 403, 413, 422, 429, 500, 503, *statuses})
    }


def status_of(error: AbsurdError) -> int:
    """The status that tells what a caller can do about `error`."""
    if str(error.details.get("sqlstate", "")).startswith("22"):  # a value that PostgreSQL cannot take
        return 422
    return next(STATUSES[each] for each in type(error).__mro__ if each in STATUSES)


def answer_error(error: AbsurdError) -> Response:
    """`error` as an answer.

    Of a database that is away, and of mistakes of our own, nothing is told but that: who asks may be anybody.
    """
    status = status_of(error)
    match status:
        case 401:
            return _problem(status, error.code, error.message, error.details, {"WWW-Authenticate": "Bearer"})
        case 429:
            wait = max(1, math.ceil(error.details.get("retry_after", 1)))
            return _problem(status, error.code, error.message, {"retry_after": wait}, {"Retry-After": str(wait)})
        case 500:
            return answer_internal()
        case 503:
            told = f"the database cannot be used now; try again in {RETRY_SECONDS} s"
            return _problem(status, error.code, told, {}, {"Retry-After": str(RETRY_SECONDS)})
    code = errors.InvalidInputError.code if status == 422 and error.code == AbsurdError.code else error.code
    return _problem(status, code, error.message, error.details)


def answer_internal() -> Response:
    """What should not have happened."""
    return _problem(500, INTERNAL, "the server made a mistake, which stands in its log", {})


async def answer_invalid(_: Request, error: Exception) -> Response:
    """A request that does not fit its route's description.  Values are not repeated: they may be secret."""
    assert isinstance(error, RequestValidationError)
    found = [{"where": list(map(str, each["loc"])), "message": each["msg"]} for each in error.errors()]
    told = "; ".join(f"{'.'.join(each['where'])}: {each['message']}" for each in found)
    return _problem(422, errors.InvalidInputError.code, told, {"errors": found})


async def answer_http(_: Request, error: Exception) -> Response:
    """What the framework refuses: unknown paths and methods, bodies that are no JSON."""
    assert isinstance(error, HTTPException)
    status = 422 if error.status_code == 400 else error.status_code
    code = errors.NotFoundError.code if status == 404 else errors.InvalidInputError.code
    return _problem(status, code, error.detail, {}, error.headers)


def _problem(
    status: int, code: str, message: str, details: dict[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    content = json.dumps({"error": code, "message": message, "details": details}, ensure_ascii=True, default=str)
    return Response(content, status, headers, media_type="application/json")
