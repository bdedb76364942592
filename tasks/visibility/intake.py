"""An intake as it is before files are recorded: its policy, and where the products of its groups go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

PRODUCTS = "measurement_sets"
"""Folder beside an incoming one that holds one for each intake, for the products of those who name none."""


class Client(Protocol):
    """What is asked of a `SyncAbsurdClient`."""

    def set_intake(self, intake: str, **policy: Any) -> str: ...
    def list_intakes(self) -> list[dict[str, Any]]: ...


def prepare(
    client: Client, intake: str, folder: str, where: Mapping[str, str | None], policy: Mapping[str, Any]
) -> str:
    """Make an intake or change its policy (None: as it is), and see that it has a folder for products.

    `where` are params of its conversions, ``out`` and ``telescope``; where neither that nor the intake names a folder,
    it is one of the intake's name beside `folder`.  Gives created, changed or unchanged.  Raises InvalidNameError,
    InvalidOptionError.
    """
    known = next((each for each in client.list_intakes() if each["name"] == intake), None)
    params = dict(known["params"]) if known else {}
    params |= {name: value for name, value in where.items() if value is not None}
    params["out"] = os.path.abspath(params.get("out") or os.path.join(folder, os.pardir, PRODUCTS, intake))
    return client.set_intake(intake, **policy, params=params)
