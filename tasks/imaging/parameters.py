"""What an image is to be like: the seed's keys, with units, for every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from absurd.tasks.radio.errors import PipelineError
from absurd.tasks.radio.quantity import angle_deg, flux_jy, uv_range

Path = Annotated[str, Field(min_length=1)]


def _quantity(read: Callable[[Any], object]) -> Any:
    """A number or text that `read` understands; kept as it is written."""

    def check(value: Any) -> Any:
        try:
            read(value)
        except PipelineError as error:
            raise ValueError(error.message) from None
        return value

    return AfterValidator(check)


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _even(size: int) -> int:
    if size % 2:
        raise ValueError(f"{size} pixels: the number of pixels must be even")
    return size


Pixels = Annotated[int, Field(ge=16, le=65_536), AfterValidator(_even)]
Size = Annotated[tuple[Pixels, Pixels], BeforeValidator(_pair)]
Angle = Annotated[float | str, _quantity(angle_deg)]
Flux = Annotated[float | str, _quantity(flux_jy)]
Baselines = Annotated[str, _quantity(uv_range)]
Engine = Literal["embedded", "wsclean", "tclean"]


class ImagingParameters(BaseModel):
    """How visibilities become an image."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    image_size: Size = Field(default=(4800, 4800), description="Pixels, [x, y], each even; one number for a square.")
    cell_size: Angle = Field(default="3arcsec", description="Side of a pixel; a bare number is degrees.")
    centre: tuple[Annotated[float, Field(ge=0, le=360)], Annotated[float, Field(ge=-90, le=90)]] | None = Field(
        default=None, description="Right ascension and declination, ICRS, degrees; without it the middle of the fields."
    )
    weighting: Literal["natural", "uniform", "briggs"] = Field(
        default="briggs", description="How visibilities that lie close together in the plane of baselines share weight."
    )
    robust: float = Field(default=0.5, ge=-2, le=2, description="Of Briggs's weights: -2 is uniform, 2 natural.")
    uvrange: Baselines = Field(default="", description="Baselines that are imaged, as >1klambda; without it all.")
    gridder: Literal["standard", "wproject", "widefield", "wgridder", "idg"] = Field(
        default="wproject",
        description="standard: the array is taken for flat; wproject, widefield: on the slant plane of the array where "
        "that is exact enough, else with all of w; wgridder: always with all of w; idg: of WSClean only.",
    )
    wprojplanes: int = Field(
        default=-1,
        ge=-1,
        le=4096,
        description="Planes of w of tclean; -1: as many as it takes.  With 1 every engine but WSClean takes the array "
        "for flat; the embedded one needs no other number.",
    )
    deconvolver: Literal["hogbom", "clark", "multiscale", "mtmfs"] = Field(
        default="hogbom", description="How the point spread function is taken off; mtmfs: of tclean only."
    )
    niter: int = Field(default=5000, ge=0, le=100_000_000, description="Components at most; 0: the dirty image.")
    threshold: Flux = Field(default="1mJy", description="Brightness (of a beam) down to which is cleaned, as in 1mJy.")
    gain: float = Field(default=0.1, gt=0, le=1, description="Share of a peak that one component takes.")
    mgain: float = Field(
        default=0.95, gt=0, le=1, description="Share of the highest peak that is cleaned before all is gridded anew."
    )
    scales: list[Annotated[float, Field(ge=0)]] = Field(
        default=[0, 5, 15, 45], min_length=1, description="Widths of components of multiscale, pixels; 0: a point."
    )
    auto_mask: float | None = Field(
        default=None,
        gt=0,
        description="Deviations of the residual down to which is cleaned anywhere, and below only around what was "
        "found; without it anywhere.",
    )
    auto_threshold: float | None = Field(
        default=None, gt=0, description="Deviations of the residual at which cleaning stops, if above `threshold`."
    )
    mask: Path | None = Field(
        default=None, description="FITS image that is not 0, or regions of DS9, where alone is cleaned."
    )
    point_snr: float = Field(
        default=20.0,
        gt=0,
        description="Sources so many deviations above the residual become points whose flux follows the drift, where "
        "that leaves less behind.",
    )
    primary_beam: Literal["airy", "gaussian", "none"] = Field(
        default="airy", description="How a dish receives sources away from its axis."
    )
    pblimit: float = Field(
        default=0.1, ge=0, lt=1, description="The image that the beam is divided out of ends where it is below this."
    )
    pbcor: bool = Field(default=True, description="Whether there is an image with the beam divided out, too.")
    planes: int = Field(default=1, ge=1, le=4096, description="Images by frequency: 1 is of the whole band.")
    engine: Engine = Field(default="embedded", description="What makes the image.")

    @property
    def is_flat(self) -> bool:
        """Whether w is left out."""
        return self.gridder == "standard" or self.wprojplanes in {0, 1}

    @property
    def cell_rad(self) -> float:
        """Side of a pixel, radians."""
        import math

        return math.radians(angle_deg(self.cell_size))

    @property
    def threshold_jy(self) -> float:
        """Of a beam."""
        return flux_jy(self.threshold)
