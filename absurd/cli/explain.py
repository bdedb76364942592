"""``absurd explain``: the cause and the cure of an error."""

from __future__ import annotations

import difflib

import click

from absurd.cli.output import emit, json_option
from absurd.cli.remedies import remedies
from absurd.errors import NotFoundError


@click.command(epilog="Example: absurd explain schema_missing")
@click.argument("code")
@json_option
def explain(code: str, as_json: bool) -> None:
    """Tell what an error comes from and what to do, by its code.

    The same stands in the reference of errors, with what each code means.
    """
    found = remedies().get(code)
    if found is None:
        near = difflib.get_close_matches(code, remedies(), n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; errors of your own have their message alone"
        raise NotFoundError(f"there is no error with the code {code!r}{hint}", code=code)
    told = (("Cause", found.cause), ("Cure", found.cure))
    lines = [click.wrap_text(f"{name}: {text}", 100, "", "  ") for name, text in told]
    emit({"code": code, "cause": found.cause, "cure": found.cure}, as_json=as_json, text="\n".join(lines))
