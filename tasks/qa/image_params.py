"""What the executors of the gates of images and mosaics are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from absurd.tasks.calibration.params import Params, Path
from absurd.tasks.qa.gates import Gate, gates_with
from absurd.tasks.qa.image_gates import IMAGE_GATES, MOSAIC_GATES
from absurd.tasks.radio.errors import PipelineError


class SkyParams(Params):
    """Which catalogue a picture of the sky is held against, and what becomes of one that does not pass."""

    gates: ClassVar[Mapping[str, Gate]]
    image: Path = Field(description="FITS image in Jy/beam.")
    catalogue: Path | None = Field(
        default=None,
        description="Sources with their flux densities (.parquet, .csv, .ecsv, .fits, .vot, .xml; degrees, ICRS): "
        "flux scale, completeness and astrometry go by them, and are not measured without.",
    )
    ra_column: str = Field(default="ra", min_length=1, description="Its column with right ascensions, degrees.")
    dec_column: str = Field(default="dec", min_length=1, description="Its column with declinations, degrees.")
    flux_column: str = Field(default="flux_jy", min_length=1, description="Its column with flux densities.")
    flux_unit: Literal["Jy", "mJy"] = Field(default="Jy", description="What that column is in.")
    catalogue_hz: float | None = Field(
        default=None, gt=0, description="Frequency of its flux densities, Hz; without it the image's."
    )
    spectral_index: float = Field(
        default=-0.7, ge=-5, le=5, description="By which they are brought to the image's frequency: S ~ frequency^it."
    )
    match_arcsec: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="How far a source may be from its position in the catalogue, arcseconds; without it 1.5 widths of "
        "the beam.",
    )
    limits: dict[str, dict[str, float | None]] = Field(
        default={},
        description="Other limits of gates, as {astrometry: {fail_above: 0.5}}: warn_below, fail_below, warn_above, "
        "fail_above; null is none.",
    )
    quarantine: bool = Field(
        default=True,
        description="Move the files of one that does not pass into a folder quarantine beside them; the task fails "
        "either way.",
    )
    reports: Path | None = Field(
        default=None, description="Folder for the report, NAME.quality.json; without it that of the image."
    )

    @field_validator("limits")
    @classmethod
    def _known(cls, limits: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
        try:
            gates_with(limits, cls.gates)
        except PipelineError as error:
            raise ValueError(error.message) from None
        return limits


class ImageParams(SkyParams):
    """An image as cleaning has left it, what it left, and how the dishes saw the sky."""

    gates = IMAGE_GATES
    residual: Path | None = Field(
        default=None,
        description="FITS image of what cleaning has left: the noise is its scatter.  Without it the one that "
        "imaging.image has put beside the image, or else the image.",
    )
    primary_beam: Path | None = Field(
        default=None,
        description="FITS image of the primary beam's power on the same pixels.  Without it the one that imaging.image "
        "has put beside the image; without that too, the image counts as corrected.",
    )
    least_gain: float = Field(
        default=0.3, gt=0, le=1, description="Sources count where the primary beam has at least this power."
    )
    thermal_mjy: float | None = Field(
        default=None,
        gt=0,
        description="Noise that is promised, mJy/beam; without it THERMAL of the image's header, which is in Jy/beam.",
    )


class MosaicParams(SkyParams):
    """A mosaic and its noise map."""

    gates = MOSAIC_GATES
    noise: Path | None = Field(
        default=None, description="FITS image of its noise; without it the one that imaging.mosaic has put beside it."
    )
