"""What a batch of cut-outs is asked for with: the params of its executors, also where there is no task."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from absurd.tasks.cutout.errors import RippleError
from absurd.tasks.cutout.request import IMAGE, CutoutRequest, Edge, Normalisation
from absurd.tasks.cutout.request import Limits as RequestLimits
from absurd.tasks.cutout.sources.places import places_of

Place = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
MOST_LISTED = 10_000
"""Positions in params; more are in a file."""


class Limits(BaseModel):
    """Up to which fraction of its pixels a cut-out is accepted."""

    model_config = ConfigDict(extra="forbid")

    not_finite: Fraction = Field(default=1.0, description="NaN or infinite, of those on the image.")
    masked: Fraction = Field(default=1.0, description="With a bit of the mask, where a mask is cut.")
    outside: Fraction = Field(default=1.0, description="Beyond the image.")
    mask_bits: int = Field(default=-1, description="Bits of the mask that count; -1: all.")


class BatchOptions(BaseModel):
    """How to cut, out of what, and what to keep of it; the same for all positions."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)  # an address may hold a password

    source: Place | dict[str, Any] | list[Place | dict[str, Any]] = Field(
        description="Where images are: a FITS file or its address, a folder of them, index:NAME of an index of images, "
        "a Butler repository or the address of a server, or fields of a ButlerConfig; or a list of these: what one "
        "does not have, or cannot read, is asked of the next.",
    )
    collections: list[Place] = Field(
        default=[], description="Collections of a repository, searched in this order; without it its own."
    )
    size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Side of the squares, in `unit`, of positions without a size of their own."
    )
    unit: Literal["arcsec", "pixel"] = Field(default="arcsec", description="What sizes are in: arcseconds or pixels.")
    bands: list[Place] = Field(default=[], description="Bands to cut, in this order; without it all there are.")
    planes: list[Place] = Field(
        default=[IMAGE], min_length=1, description="Planes to cut: image, mask, variance, or an extension by its name."
    )
    edge: Edge = Field(
        default="fill", description="What becomes of a box that reaches beyond its image: fill (NaN), or refuse."
    )
    limits: Limits = Field(
        default=Limits(), description="Fractions of not_finite, masked and outside pixels above which one is rejected."
    )
    reduced: bool = Field(default=False, description="Cut the bands that are there, where not all of `bands` are.")
    fits: bool = Field(default=True, description="Keep each band of each cut-out as a FITS file.")
    tensors: Normalisation | None = Field(
        default=None,
        description="Keep all accepted as tensors (n, bands, y, x), so normalised: none, asinh, min-max or z-score.",
    )
    preprocessing: Place | None = Field(
        default=None, description="Name of a function, as register_preprocessing has it, before the normalisation."
    )
    out: Place = Field(description="Folder for the products, the manifest and the contact sheet.")

    @field_validator("source")
    @classmethod
    def _is_place(cls, source: Any) -> Any:
        for each in source if isinstance(source, list) else [source]:
            if isinstance(each, dict) and "token" in each:  # params are stored, and shown
                raise ValueError("a token must not stand in params; name its file in token_file, or use token_env")
        try:
            places_of(source)
        except RippleError as error:
            raise ValueError(error.message) from None
        return source

    @model_validator(mode="after")
    def _has_image(self) -> Self:
        if (self.fits or self.tensors) and IMAGE not in self.planes:
            raise ValueError(f"planes are {', '.join(self.planes)}; FITS files and tensors need {IMAGE} too")
        return self

    def request(self, ra: float, dec: float, size: float, name: str | None) -> CutoutRequest:
        """What is asked for at a position.  Raises DataIdValidationError."""
        return CutoutRequest(
            ra,
            dec,
            size,
            self.unit,
            tuple(self.bands),
            tuple(self.planes),
            self.edge,
            RequestLimits(**self.limits.model_dump()),
            name,
        )

    def canonical(self) -> str:
        """All but `out` as text: what a cut-out depends on, beside its position and its images."""
        fields = self.model_dump(mode="json", include=set(BatchOptions.model_fields) - {"out"})
        return json.dumps(fields, sort_keys=True)


class Listed(BaseModel):
    """A position with its own name or size."""

    model_config = ConfigDict(extra="forbid")

    ra: float = Field(description="Right ascension of the centre, degrees, ICRS.")
    dec: float = Field(description="Declination of the centre, degrees, ICRS.")
    id: str | None = Field(default=None, description="What the manifest and the files call it.")
    size: float | None = Field(default=None, description="Side of its square.")


class BatchParams(BatchOptions):
    """Where to cut, and how."""

    positions: Place | Annotated[list[tuple[float, float] | Listed], Field(max_length=MOST_LISTED)] = Field(
        description="A table (.csv, .ecsv, .parquet, .fits) with columns ra and dec in degrees, ICRS, and perhaps id "
        "and size; or a list of [ra, dec] or {ra, dec, id, size}.",
    )
    keep_parts: bool = Field(
        default=True,
        description="Keep .parts in the folder, by which the same batch again knows what is still good; else it is "
        "removed in the end, unless a row may end better another time.",
    )


class PartParams(BatchOptions):
    """A part of a batch."""

    part: str = Field(pattern=r"^[0-9a-f]{32}$", description="Which one: the name of its requests beside the products.")
    thumbnails: int = Field(ge=0, description="How many of its cut-outs the contact sheet may show.")
    batch: UUID = Field(description="The task `cutout.batch` that has planned it.")
