"""What executors may annotate their params with, and what becomes of what cannot be checked."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, Required, TypedDict

import pytest
from pydantic import Field

from absurd.errors import ConfigurationError, InvalidParamsError
from absurd.executor import Executor


class Star(TypedDict):
    """Within others."""

    magnitude: Annotated[float, Field(lt=30)]
    name: NotRequired[str]


class Chart(TypedDict, total=False):
    """Holds others in each of the usual ways."""

    stars: Required[list[Star]]
    brightest: Star | None
    named: Annotated[dict[str, Star], Field(max_length=2)]


@dataclass
class Plate:
    """Holds a TypedDict where its annotation cannot be exchanged."""

    star: Star


class Opaque:
    """Nothing that JSON could be checked against."""


class Tree(TypedDict):
    """Holds itself."""

    branches: list[Tree]


def taking(annotation: Any) -> Executor:
    """An executor of params so annotated."""
    return Executor("chart.draw", lambda ctx, params: params, params_type=annotation)


def test_a_typed_dict_may_hold_others() -> None:
    """On each Python those of `typing` are checked however deep they lie, with bounds and with what may be left out."""
    draw = taking(Chart)
    good = {"stars": [{"magnitude": 5.5}], "brightest": None, "named": {"vega": {"magnitude": 0.0, "name": "α Lyr"}}}

    assert draw.load_params(good) == good
    assert draw.dump_params({"stars": []}) == {"stars": []}
    assert draw.params_schema()["required"] == ["stars"]
    for changed, message in (
        ({"stars": [{"magnitude": 31}]}, r"stars\.0\.magnitude: .*less than 30"),
        ({"stars": [{"name": "x"}]}, r"stars\.0\.magnitude: Field required"),
        ({"brightest": 1}, "brightest"),
        ({"named": {key: {"magnitude": 1} for key in "abc"}}, "named: .*at most 2"),
    ):
        with pytest.raises(InvalidParamsError, match=message):
            draw.load_params(good | changed)


@pytest.mark.parametrize("annotation", [Opaque] if sys.version_info >= (3, 12) else [Opaque, Plate, Tree])
def test_what_cannot_be_checked_is_refused_with_the_way_out(annotation: Any) -> None:
    """A worker that registers it, and whoever spawns it, is told of the executor and what to write instead."""
    for use in (Executor.params_schema, lambda each: each.load_params({})):
        with pytest.raises(ConfigurationError, match=r"^params of chart\.draw .*TypedDict of typing_extensions"):
            use(taking(annotation))
