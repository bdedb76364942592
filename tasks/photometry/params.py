"""What the executors of photometry are given."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Path = Annotated[str, Field(min_length=1)]
Same = Annotated[
    float,
    Field(
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Radius within which a source is the one that the database has there, arcseconds.",
    ),
]
FluxRange = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]]


class ImageParams(BaseModel):
    """An image, and maps on the same pixels."""

    model_config = ConfigDict(extra="forbid")

    image: Path = Field(description="FITS image in Jy/beam.")
    noise: Path | None = Field(
        default=None, description="FITS image of the local rms; without it that is measured around each position."
    )
    background: Path | None = Field(
        default=None, description="FITS image of the background; without it that is measured around each position."
    )


class ForcedParams(BaseModel):
    """Where flux densities are measured, in which images, and where the rows go."""

    model_config = ConfigDict(extra="forbid")

    images: list[ImageParams | Path] = Field(min_length=1, description="Images to measure in, or paths of them.")
    positions: Path = Field(
        description="Catalogue of the sources (.parquet, .csv, .ecsv, .fits, .vot, .xml); degrees, ICRS."
    )
    id_column: str = Field(
        default="source_id", min_length=1, description="Column with their names; without it they are named by position."
    )
    ra_column: str = Field(default="ra", min_length=1, description="Column with right ascensions, degrees.")
    dec_column: str = Field(default="dec", min_length=1, description="Column with declinations, degrees.")
    shape_columns: list[str] | None = Field(
        default=None,
        min_length=3,
        max_length=3,
        description="Columns with widths at half maximum as the image shows them (long, short; arcseconds), angle "
        "of the long one from north through east (degrees); without it sources are points.",
    )
    out: Path = Field(description="The rows, as Parquet: one for each source and image.")
    detection_sigma: float = Field(
        default=5.0, gt=0, allow_inf_nan=False, description="Least flux density of a detection, in its errors."
    )
    aperture_arcsec: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Radius within which pixels are summed as well (aperture_jy), arcseconds; without it none are.",
    )
    ring_arcsec: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="Radii between which pixels tell background and noise, arcseconds; without it 2 and 5 beams.",
    )
    limit_sigma: float = Field(
        default=3.0,
        gt=0,
        allow_inf_nan=False,
        description="Upper limit of what is not detected, in errors above its flux density or 0.",
    )
    same_arcsec: Same = 3.0

    @model_validator(mode="after")
    def _suffix(self) -> Self:
        if not self.out.endswith((".parquet", ".pq")):
            raise ValueError("out is a Parquet file: its name ends in .parquet or .pq")
        if self.ring_arcsec is not None and self.ring_arcsec[0] >= self.ring_arcsec[1]:
            raise ValueError("ring_arcsec is [less, more]")
        return self


class VariabilityParams(BaseModel):
    """Which measurements, how their scale is made one, and what counts as a change."""

    model_config = ConfigDict(extra="forbid")

    photometry: list[Path] = Field(
        min_length=1, description="Parquet files of photometry.forced, or folders of them, an image in one only."
    )
    out: Path = Field(description="Parquet file with a row for each source: its statistics, and what it is.")
    light_curves: Path | None = Field(
        default=None, description="Parquet file with a row for each source and epoch, on one scale; without it none."
    )
    normalise: bool = Field(default=True, description="Whether flux densities of all epochs are brought to one scale.")
    references: list[str] = Field(
        default=[], description="Names of reference sources; without it the brightest that were never blended."
    )
    reference_snr: float = Field(
        default=50.0, gt=0, allow_inf_nan=False, description="Least median signal to noise of references."
    )
    most_references: int = Field(default=20, ge=3, le=10_000, description="The brightest so many are references.")
    reference_flux_range_jy: FluxRange | None = Field(
        default=None, description="References have a median flux density from the one to the other, Jy/beam."
    )
    reference_separation_arcsec: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="From references to any other source, at least, arcseconds."
    )
    target_flux_range_jy: FluxRange | None = Field(
        default=None, description="Sources are judged whose mean flux density is from the one to the other, Jy/beam."
    )
    baseline_epochs: int = Field(
        default=10, ge=1, le=100_000, description="First epochs whose median is a reference's baseline."
    )
    min_epochs: int = Field(default=3, ge=2, le=100_000, description="Sources with fewer measurements are not judged.")
    false_alarm: float = Field(
        default=1e-3, gt=0, lt=1, description="Share of steady sources that may be taken for variable."
    )
    min_v: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Least standard deviation over mean of a variable source."
    )
    transient_sigma: float = Field(
        default=7.0, gt=0, allow_inf_nan=False, description="Least signal to noise of a transient in one epoch."
    )
    ese_preset: Literal["conservative", "moderate", "sensitive"] = Field(
        default="moderate", description="Thresholds of the score for extreme scattering events."
    )
    same_arcsec: Same = 3.0

    @model_validator(mode="after")
    def _suffix(self) -> Self:
        for name in (self.out, self.light_curves):
            if name is not None and not name.endswith((".parquet", ".pq")):
                raise ValueError("out and light_curves are Parquet files: their names end in .parquet or .pq")
        return self


class DetectParams(BaseModel):
    """In which image sources are looked for, how faint they may be, and where their catalogue goes."""

    model_config = ConfigDict(extra="forbid")

    image: Path = Field(description="FITS image in Jy/beam.")
    out: Path = Field(description="The catalogue, as Parquet: what photometry.forced takes as positions.")
    detection_sigma: float = Field(
        default=5.0, gt=0, allow_inf_nan=False, description="Least height of a source, in the local noise."
    )
    island_sigma: float = Field(
        default=3.0, gt=0, allow_inf_nan=False, description="Pixels of an island around it, in the local noise."
    )
    fwhm_pixels: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Width at half maximum of the Gaussian that is looked for, pixels; without it the beam.",
    )
    noise: Path | None = Field(
        default=None, description="FITS image of the local rms on the same pixels; without it that is measured."
    )
    engine: Literal["embedded", "pybdsf"] = Field(
        default="embedded", description="The finder: of this package, or PyBDSF in a Python that has it."
    )
    python: str | None = Field(
        default=None, min_length=1, description="The Python that has PyBDSF (bdsf); without it the worker's."
    )
    same_arcsec: Same = 3.0

    @model_validator(mode="after")
    def _limits(self) -> Self:
        if self.island_sigma > self.detection_sigma:
            raise ValueError("island_sigma is at most detection_sigma: an island holds its peak")
        if not self.out.endswith((".parquet", ".pq")):
            raise ValueError("out is a Parquet file: its name ends in .parquet or .pq")
        return self


class NightParams(BaseModel):
    """Which night is written, and where to."""

    model_config = ConfigDict(extra="forbid")

    folder: Path = Field(description="Folder of the files, photometry-YYYY-MM-DD.parquet.")
    night: date | None = Field(
        default=None, description="The day on which the night begins; without it the last one that has ended."
    )
    begins: float = Field(
        default=20.0,
        ge=0,
        lt=24,
        description="When a night begins, hours of UTC; it ends as the next one begins.  20 is noon at Owens Valley.",
    )
