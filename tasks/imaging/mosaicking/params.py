"""What the executor of mosaics is given."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Path = Annotated[str, Field(min_length=1)]
RightAscension = Annotated[float, Field(ge=0, le=360)]
Declination = Annotated[float, Field(ge=-90, le=90)]


class TileParams(BaseModel):
    """An image, and what is known of it beside its header."""

    model_config = ConfigDict(extra="forbid")

    image: Path = Field(description="FITS image in Jy/beam.")
    beam: Path | None = Field(
        default=None, description="FITS image of the primary beam's power on the same pixels, instead of a model."
    )
    noise: float | Path | None = Field(
        default=None,
        description="Noise of what the beam attenuates, Jy/beam, or a FITS image of it on the same pixels; without it "
        "that is measured.",
    )
    ra: RightAscension | None = Field(
        default=None, description="Right ascension at which the dishes point, degrees; without it OBSRA, else CRVAL1."
    )
    dec: Declination | None = Field(
        default=None, description="Declination at which the dishes point, degrees; without it OBSDEC, else CRVAL2."
    )
    corrected: bool = Field(default=False, description="Whether the image is divided by the primary beam.")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.ra is None) != (self.dec is None):
            raise ValueError("ra and dec go together")
        return self


class MosaicParams(BaseModel):
    """Which images, how the dishes saw the sky, and on which pixels the mosaic lies."""

    model_config = ConfigDict(extra="forbid")

    tiles: list[TileParams | Path] = Field(
        default=[],
        description="Images to combine, or paths of them; without it those that the tasks it comes after have made.",
    )
    plane: int | None = Field(
        default=None,
        ge=0,
        description="Of tiles that are cubes the plane that is combined, counted from 0 as they lie in the file, with "
        "that of their beams and noise maps; without it cubes are refused.",
    )
    least_tiles: int = Field(
        default=1, ge=1, description="With fewer images there is no mosaic: the task fails, and is not tried again."
    )
    out: Path = Field(description="The mosaic, as FITS; OUT's name with -noise before .fits is its noise map.")
    beam_model: Literal["airy", "gaussian"] = Field(
        default="airy", description="Primary beam of tiles that have no image of it."
    )
    dish_diameter_m: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Of the dishes, m; without it that of `telescope`."
    )
    telescope: str = Field(default="dsa110", min_length=1, description="Whose dishes they are: a name, or a TOML file.")
    weighting: Literal["optimal", "pbweight"] = Field(
        default="optimal",
        description="Of pixels: beam^2 / noise^2, or beam^2, as if all tiles had the noise that they have in the mean.",
    )
    pblimit: float = Field(
        default=0.1, gt=0, lt=1, description="Tiles count where their primary beam has at least this power."
    )
    ra: RightAscension | None = Field(
        default=None, description="Right ascension of the centre, degrees; without it the mean of the tiles'."
    )
    dec: Declination | None = Field(
        default=None, description="Declination of the centre, degrees; without it the mean of the tiles'."
    )
    cell_arcsec: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Side of a pixel, arcseconds; without it the finest tile's.",
    )
    nx: int | None = Field(
        default=None,
        ge=16,
        le=1_000_000,
        description="Pixels along right ascension; without it as many as tiles reach.",
    )
    ny: int | None = Field(
        default=None, ge=16, le=1_000_000, description="Pixels along declination; without it as many as tiles reach."
    )

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        for one, other in (("ra", "dec"), ("nx", "ny")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other} go together")
        return self
