"""What tasks need, and what the workers of all hosts share of it: checks, and the calls that tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from absurd.call import Call, nothing, one_value
from absurd.encoding import decode
from absurd.errors import InvalidOptionError

FILE = "file:/"
"""How the name of a need begins that is no amount, but a file to be near, for so many seconds."""


def set_resource(name: str, total: float) -> Call[None]:
    """Say how much of something the workers of all hosts share.  Raises InvalidNameError, InvalidOptionError."""
    sql = "select {schema}.set_resource($1::text, $2::double precision)"
    return Call(sql, (name, _amount("total of resource", name, total)), nothing)


def remove_resource(name: str) -> Call[bool]:
    """Share it no more: each worker has its own again; false if there is none of that name."""
    sql = "select {schema}.remove_resource($1::text) as removed"
    return Call(sql, (name,), one_value("removed"), repeatable=False)


def list_resources() -> Call[list[dict[str, Any]]]:
    """What is shared: name, total, held, the tasks that hold it (100 at most), how many wait for it (1000 at most)."""
    return Call(
        "select to_jsonb(r)::text as document from {schema}.list_resources() r",
        (),
        lambda rows: [decode(row["document"]) for row in rows],
    )


def check_needs(needs: Mapping[str, float]) -> dict[str, float]:
    """`needs` as a dict; InvalidOptionError names the first that is not an amount."""
    if not isinstance(needs, Mapping):
        raise InvalidOptionError(f"needs are {needs!r}; they must be amounts by name", option="needs")
    for name in needs:
        if not isinstance(name, str) or not name:
            raise InvalidOptionError(f"needs hold the name {name!r}; it must be a text", option="needs")
    return {name: _amount("need", name, amount) for name, amount in needs.items()}


def _amount(kind: str, name: str, amount: Any) -> float:
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
        raise InvalidOptionError(f"{kind} {name!r} is {amount!r}; it must be a number of at least 0", option=name)
    return amount
