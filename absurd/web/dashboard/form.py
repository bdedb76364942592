"""Forms: read, known to be ours, and answered by a page that tells what was done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request
from starlette.responses import RedirectResponse

from absurd.errors import ForbiddenError, InvalidInputError
from absurd.web.cookie import Signer
from absurd.web.dashboard.render import TOLD

FIELD = "form_token"
"""Name of the hidden field that tells a form of ours."""


class Form(dict[str, str]):
    """The fields of a form that were filled in, and the way back from it."""

    def __init__(self, request: Request, fields: Mapping[str, str]) -> None:
        super().__init__(fields)
        self._request = request

    def go(self, place: str, told: str) -> RedirectResponse:
        """To the page that the form came from, if it says so, or else to `place`; that page tells what was done."""
        answer = RedirectResponse(local_path(self.get("back"), place), 303)
        signer: Signer = self._request.app.state.signer
        keep(self._request, answer, TOLD, signer.seal("told", told[:500]), 60)
        return answer

    def number(self, name: str) -> float | None:
        """A field as a number.  Raises InvalidInputError."""
        if name not in self:
            return None
        try:
            return float(self[name])
        except ValueError:
            raise InvalidInputError(f"{name} is {self[name][:100]!r}; it must be a number") from None

    def count(self, name: str) -> int | None:
        """A field as a whole number.  Raises InvalidInputError."""
        found = self.number(name)
        if found is not None and not found.is_integer():
            raise InvalidInputError(f"{name} is {self[name][:100]}; it must be a whole number")
        return None if found is None else int(found)


async def _read(request: Request) -> Form:
    """Raises ForbiddenError for a form that was not shown in this login, InvalidInputError for no form."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind != "application/x-www-form-urlencoded":
        raise InvalidInputError("this takes a form (application/x-www-form-urlencoded)")
    try:
        pairs = parse_qsl((await request.body()).decode(), max_num_fields=1000, errors="strict")
    except ValueError:
        raise InvalidInputError("the form holds what is no text in UTF-8, or too many fields") from None
    fields = {name: value.strip() for name, value in pairs if value.strip()}
    if any("\0" in value for value in fields.values()):
        raise InvalidInputError("the form holds the character NUL, which nothing is called by")
    signer: Signer = request.app.state.signer
    if not signer.is_form_token(request.state.login, fields.pop(FIELD, "")):
        raise ForbiddenError("this form is of another login, or of another site: load its page again")
    return Form(request, fields)


Posted = Annotated[Form, Depends(_read)]


def keep(request: Request, answer: RedirectResponse, name: str, value: str, seconds: float) -> None:
    """Give the browser a cookie that no script reads and no other site's form sends."""
    answer.set_cookie(
        name, value, max_age=int(seconds), path="/", httponly=True, samesite="lax", secure=request.state.secure
    )


def local_path(given: str | None, otherwise: str) -> str:
    """`given` if it is a path of this site."""
    if given is None or not given.startswith("/") or given.startswith(("//", "/\\")) or urlsplit(given).netloc:
        return otherwise
    return given if given.isprintable() else otherwise
