"""What the TOML file of a telescope may say: keys, and the bounds of their values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

Latitude = Annotated[FiniteFloat, Field(ge=-90, le=90)]
Longitude = Annotated[FiniteFloat, Field(ge=-180, le=360)]
Height = Annotated[FiniteFloat, Field(ge=-500, le=9000)]
Several = Annotated[int, Field(ge=1, le=1_000_000)]
Correlation = Literal["XX", "XY", "YX", "YY", "RR", "RL", "LR", "LL", "I", "Q", "U", "V"]
Text = Annotated[str, Field(min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Site(_Table):
    """Where the array is."""

    latitude_deg: Latitude
    longitude_deg: Longitude
    height_m: Height


class Dish(_Table):
    """One of its antennas."""

    diameter_m: FiniteFloat = Field(gt=0, le=1000)
    system_temperature_k: FiniteFloat = Field(gt=0, le=100_000)
    aperture_efficiency: FiniteFloat = Field(gt=0, le=1)


class Recording(_Table):
    """How long integrations are, and how many make a recording."""

    integration_s: FiniteFloat = Field(gt=0, le=86_400)
    integrations: Several


class Band(_Table):
    """What is received, and how it is split."""

    lowest_hz: FiniteFloat = Field(gt=0, le=1e13)
    channel_width_hz: FiniteFloat = Field(gt=0, le=1e12)
    channels: Several
    subbands: int = Field(ge=1, le=4096)
    descending: bool


class Antennas(_Table):
    """Stations, and which are in use."""

    prefix: str
    reference: list[int]
    unused: list[int]
    stations: list[tuple[int, Latitude, Longitude, Height]]


class TelescopeFile(_Table):
    """All of a file."""

    name: Text
    casa_name: Text
    correlations: list[Correlation] = Field(min_length=1)
    site: Site
    dish: Dish
    recording: Recording
    band: Band
    antennas: Antennas


def checked(told: dict[str, Any]) -> TelescopeFile:
    """What a file says.  Raises ValueError with each fault, its value and what would do."""
    try:
        # JSON, since only there lists may be tuples and yet text no number.
        found = TelescopeFile.model_validate_json(json.dumps(told, default=str))
    except ValidationError as error:
        raise ValueError("; ".join(_said(each) for each in error.errors(include_url=False))) from None
    if faults := list(_contradictions(found)):
        raise ValueError("; ".join(faults))
    return found


def _contradictions(told: TelescopeFile) -> Iterator[str]:
    antennas = told.antennas
    numbers = [number for number, *_ in antennas.stations]
    for name, values in (
        ("correlations", told.correlations),
        ("antennas.stations", numbers),
        ("antennas.unused", antennas.unused),
        ("antennas.reference", antennas.reference),
    ):
        if twice := [each for each, count in Counter(values).items() if count > 1]:
            yield f"{name} has {twice[0]} twice: name it once"
    if len(set(numbers) - set(antennas.unused)) < 2:
        yield "antennas.stations are two or more of [number, latitude, longitude, height], beside those that are unused"
    places = sorted((place, number) for number, *place in antennas.stations)
    for (one, first), (other, second) in pairwise(places):
        if one == other and first != second:
            yield f"antennas.stations {first} and {second} stand at one place: correct one"
    for name, some in (("unused", antennas.unused), ("reference", antennas.reference)):
        if unknown := set(some) - set(numbers):
            yield f"antennas.{name} has {min(unknown)}, which is no station: take it out, or add the station"
    if idle := set(antennas.reference) & set(antennas.unused):
        yield f"antennas.reference has {min(idle)}, which is unused: take one that is in use"


def _said(error: Any) -> str:
    """A fault that pydantic has found, in our words."""
    *above, key = [str(each) for each in error["loc"]] or [""]
    table = ".".join(above)
    if error["type"] == "extra_forbidden":
        model: type[BaseModel] = TelescopeFile
        for each in above:
            model = model.model_fields[each].annotation  # type: ignore[assignment]
        return f"{table or 'the file'} has no key {key}; it has {', '.join(model.model_fields)}"
    if error["type"] == "missing" and key.isdecimal():
        return f"{table} is {error['input']!r}: it should be [number, latitude, longitude, height]"
    if error["type"] == "missing":
        return f"key {key!r} is missing" + (f" in {table}" if table else "")
    words = str(error["msg"]).replace("Input should be", "it should be")
    return f"{'.'.join(filter(None, (table, key)))} is {error['input']!r}: {words}"
