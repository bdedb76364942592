"""What can be configured: sections, keys, their units, bounds and usual values, and which stage reads each.

The usual values are those of production.  `environments` puts layers over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from absurd.tasks.qa.gates import GATES, gates_with
from absurd.tasks.qa.image_gates import IMAGE_GATES, MOSAIC_GATES
from absurd.tasks.radio.errors import PipelineError
from absurd.tasks.radio.quantity import angle_deg, duration_s, flux_jy, uv_range


class Section(BaseModel):
    """Keys that belong together: ``config.imaging.niter``, or ``config["imaging"]["niter"]``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)

    def __getitem__(self, name: str) -> Any:
        if name not in type(self).model_fields:
            raise KeyError(name)
        return getattr(self, name)

    def keys(self) -> Iterator[str]:
        """Names of the keys and sections in it: ``dict(config)`` works."""
        return iter(type(self).model_fields)


def _key(default: Any, meaning: str, *read_by: str, **bounds: Any) -> Any:
    """A key: its usual value, its meaning with the unit, and the stages that read it."""
    extra: Any = {"read_by": list(read_by)}
    if isinstance(default, list | dict):
        return Field(
            default_factory=lambda: type(default)(default), description=meaning, json_schema_extra=extra, **bounds
        )
    return Field(default=default, description=meaning, json_schema_extra=extra, **bounds)


def _quantity(read: Callable[[str], object]) -> Any:
    """A text that `read` understands; kept as it is written."""

    def check(text: str) -> str:
        try:
            read(text)
        except PipelineError as error:
            raise ValueError(error.message) from None
        return text

    return AfterValidator(check)


def _bare(value: Any) -> Any:
    """A number as a text: a bare number is seconds, janskys, degrees."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _listed(value: Any) -> Any:
    """A text with commas as a list."""
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def _antennas(text: str) -> str:
    names = [each.strip() for each in text.split(",")]
    if text and (not all(names) or len(set(names)) < len(names)):
        raise ValueError("write names of antennas, each once, the best first, such as pad104,pad105")
    return text


Duration = Annotated[str, BeforeValidator(_bare), _quantity(duration_s)]
Flux = Annotated[str, BeforeValidator(_bare), _quantity(flux_jy)]
Angle = Annotated[str, BeforeValidator(_bare), _quantity(angle_deg)]
UvText = Annotated[str, _quantity(uv_range)]
AntennaNames = Annotated[str, AfterValidator(_antennas)]
Folder = Annotated[str, Field(min_length=1)]
Boundaries = Annotated[list[Literal["scan", "field"]], BeforeValidator(_listed)]
Size = Annotated[list[Annotated[int, Field(ge=16, le=65_536)]], Field(min_length=2, max_length=2)]
Mode = Literal["p", "a", "ap"]
OtherLimits = dict[str, dict[str, float | None]]
SOLVE, APPLY, FLAG, QA = "calibration.solve", "calibration.apply", "visibility.flag", "qa.calibration"
INGEST, SIMULATE = "visibility.ingest", "pipeline simulate"
WATCH, PLAN, PLOT = "pipeline watch", "pipeline plan", "pipeline plot"
IMAGE, MOSAIC, BLOCKS = "imaging.image", "imaging.mosaic", "pipeline run"
ARRIVE, COMMANDS = (INGEST, WATCH, PLAN), (SIMULATE, WATCH, PLAN, PLOT, BLOCKS)
DETECT, FORCED, VARIABILITY = "photometry.detect", "photometry.forced", "photometry.variability"
QA_IMAGE, QA_MOSAIC = "qa.image", "qa.mosaic"


class Paths(Section):
    """Folders.  A relative one starts in `base_dir`."""

    base_dir: Folder = _key(
        ".",
        "Where the others start; a relative one itself in the working folder.",
        INGEST,
        SOLVE,
        APPLY,
        *(QA, IMAGE, QA_IMAGE, MOSAIC, QA_MOSAIC),
        *(DETECT, FORCED, VARIABILITY),
        *COMMANDS,
    )
    hdf5_dir: Folder = _key("data/hdf5", "Where sub-bands arrive.", *ARRIVE, SIMULATE)
    ms_stage1_dir: Folder = _key("data/ms_stage1", "Measurement Sets.", INGEST, WATCH, BLOCKS)
    cal_tables_dir: Folder = _key("data/cal_tables", "Gain tables.", SOLVE, APPLY)
    skymodels_dir: Folder | None = _key(
        None,
        "Lists of calibrators, as the VLA's manual gives them (*.txt); none: those sources that are known without.",
        SOLVE,
        QA,
    )
    log_dir: Folder = _key(
        "logs",
        "Reports of the gates, and what commands say; what tasks print is kept with the tasks.",
        *(QA, QA_IMAGE, QA_MOSAIC, *COMMANDS),
    )
    images_dir: Folder = _key("data/images", "Images.", IMAGE)
    mosaics_dir: Folder = _key("data/mosaics", "Mosaics.", MOSAIC)
    photometry_dir: Folder = _key(
        "data/photometry", "Catalogues, flux densities and light curves.", DETECT, FORCED, VARIABILITY
    )

    def folder(self, name: str) -> str | None:
        """One of them, with `base_dir` before it where it is relative; None if it is none."""
        return self.placed(self[name])

    def placed(self, relative: str | None) -> str | None:
        """A file or folder of the configuration, from `base_dir` on."""
        return None if relative is None else str(Path(self.base_dir) / relative)


class Services(Section):
    """How recordings become groups, and groups blocks."""

    group_tolerance_s: float = _key(
        60.0, "Sub-bands whose times differ by at most so much are of one group, seconds.", *ARRIVE, ge=0, le=600
    )
    expected_subbands: int | None = _key(
        None, "Sub-bands of a whole group; none: the telescope's.", *ARRIVE, ge=1, le=1024
    )
    min_subbands: int | None = _key(
        None, "With fewer a group that was waited for is not converted; none: three quarters.", *ARRIVE, ge=1, le=1024
    )
    group_declination_tolerance_deg: float = _key(
        0.1, "Sub-bands of one group may differ so much in declination, degrees.", *ARRIVE, gt=0, le=10
    )
    partial_after_min: float = _key(
        5.0, "A group that lacks sub-bands is waited for so long, minutes.", *ARRIVE, gt=0, le=10_080
    )
    mosaic_duration_min: float = _key(60.0, "What a block covers, minutes.", BLOCKS, gt=0, le=1440)
    mosaic_overlap_min: float = _key(10.0, "What a block has in common with the next, minutes.", BLOCKS, ge=0)
    ms_chunk_duration_min: float = _key(5.0, "What a Measurement Set covers, minutes.", BLOCKS, gt=0, le=1440)
    max_concurrent_blocks: int = _key(4, "Blocks that are worked on at once.", BLOCKS, ge=1, le=1000)

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if self.mosaic_overlap_min >= self.mosaic_duration_min:
            raise ValueError("mosaic_overlap_min must be less than mosaic_duration_min")
        if self.ms_chunk_duration_min > self.mosaic_duration_min:
            raise ValueError("ms_chunk_duration_min must be at most mosaic_duration_min")
        return self


class Flagging(Section):
    """How visibilities are flagged.  Cut-offs have 4 as their usual value, as those of CASA's tfcrop."""

    strategy: Literal["default", "quick", "structure", "aoflagger"] = _key(
        "default", "Which search; the cut-offs are for the default one.", FLAG
    )
    tfcrop_timecutoff: float = _key(
        4.0, "Of the search over times and channels of a baseline; times 1.5 it is deviations.", FLAG, ge=2, le=100
    )
    tfcrop_freqcutoff: float = _key(
        4.0, "Of the search in the mean of all baselines, by channels; times 1.5 it is deviations.", FLAG, ge=2, le=100
    )


class Calibration(Section):
    """How gains are solved, and how long they hold.  `gcal_*`: gains; `bcal_*`: bandpass; `prebp_*`: phases before."""

    fixed_declination_deg: float = _key(
        37.0, "Where the dishes look, degrees, as long as nothing tells: recordings do, and are believed.",
        SIMULATE, ge=-90, le=90,
    )  # fmt: skip
    engine: Literal["embedded", "casatasks"] = _key("embedded", "What solves.", SOLVE)
    gcal_refant: AntennaNames = _key(
        "pad001", "Reference antennas, the best first, as in pad104,pad105; then the telescope's.", SOLVE
    )
    gcal_mode: Mode = _key("ap", "Solve for phases (p), amplitudes (a) or both (ap).", SOLVE)
    gcal_solint: Duration = _key(
        "30min", "Length of a solution; inf: all of the recording, int: each integration.", SOLVE
    )
    gcal_minsnr: float = _key(3.0, "Solutions with less signal to noise are flagged.", SOLVE, ge=0, le=1000)
    gcal_uvrange: UvText = _key("", "Baselines to solve by, as in >1klambda; without it all.", SOLVE)
    bcal_refant: AntennaNames = _key("", "As gcal_refant; without it that.", SOLVE)
    bcal_solint: Duration = _key("inf", "As gcal_solint, within what bcal_combine parts.", SOLVE)
    bcal_minsnr: float = _key(5.0, "As gcal_minsnr.", SOLVE, ge=0, le=1000)
    bcal_uvrange: UvText = _key(">1klambda", "As gcal_uvrange.", SOLVE)
    bcal_combine: Boundaries = _key(
        ["scan", "field"], "Boundaries that a solution reaches over; a text such as scan,field is such a list.", SOLVE
    )
    bcal_fillgaps: int = _key(3, "Flagged channels in a row, filled from their neighbours.", SOLVE, ge=0, le=1000)
    bcal_minblperant: int = _key(4, "Antennas with fewer baselines are not solved for.", SOLVE, ge=1, le=1000)
    prebp_solint: Duration = _key("60s", "As gcal_solint.", SOLVE)
    prebp_minsnr: float = _key(3.0, "As gcal_minsnr.", SOLVE, ge=0, le=1000)
    prebp_uvrange: UvText = _key(">1klambda", "As gcal_uvrange.", SOLVE)
    calibrator_radius_deg: float | None = _key(
        None, "From a recording's middle to its calibrator; without it skymodel.field.radius_deg.", BLOCKS, gt=0, le=90
    )
    validity_hours: float = _key(12.0, "Gains hold for so long before and after.", SOLVE, gt=0, le=720)
    declination_tolerance_deg: float = _key(
        1.0, "Gains hold for fields whose declination differs by at most so much, degrees.", SOLVE, gt=0, le=180
    )
    flagging: Flagging = Field(default_factory=Flagging)


class Quality(Section):
    """What calibrations, images and mosaics have to be like to be used."""

    quarantine: bool = _key(
        True, "Whether what does not pass is moved away; it fails its task either way.", QA, QA_IMAGE, QA_MOSAIC
    )
    limits: OtherLimits = _key({}, "Other limits of calibrations' gates, as in {antennas = {fail_below = 6}}.", QA)
    image_limits: OtherLimits = _key({}, "Of images'.", QA_IMAGE)
    mosaic_limits: OtherLimits = _key({}, "Of mosaics'.", QA_MOSAIC)
    catalogue: Folder | None = _key(
        None, "Table (ra, dec, flux_jy) that images and mosaics are held against; from base_dir.", QA_IMAGE, QA_MOSAIC
    )

    @model_validator(mode="after")
    def _gates(self) -> Self:
        try:
            for limits, gates in (
                (self.limits, GATES), (self.image_limits, IMAGE_GATES), (self.mosaic_limits, MOSAIC_GATES),
            ):  # fmt: skip
                gates_with(limits, gates)
        except PipelineError as error:
            raise ValueError(error.message) from None
        return self


class Imaging(Section):
    """How images are made."""

    deconvolver: Literal["hogbom", "clark", "multiscale", "mtmfs"] = _key("hogbom", "How the beam is taken off.", IMAGE)
    engine: Literal["embedded", "wsclean", "tclean"] = _key("embedded", "What makes images.", IMAGE)
    gridder: Literal["standard", "wproject", "widefield", "wgridder", "idg"] = _key(
        "wproject", "How visibilities are gridded.", IMAGE
    )
    wprojplanes: int = _key(
        -1, "Planes of w; -1: as many as it takes, 1: the array is taken for flat.", IMAGE, ge=-1, le=4096
    )
    niter: int = _key(5000, "Components at most.", IMAGE, ge=0, le=100_000_000)
    threshold: Flux = _key("1mJy", "Brightness down to which is cleaned, as in 1mJy (a beam).", IMAGE)
    interactive: Literal[False] = _key(False, "Tasks ask nobody.", IMAGE)
    image_size: Size = _key([4800, 4800], "Pixels, [x, y].", IMAGE)
    cell_size: Angle = _key("3arcsec", "Side of a pixel.", IMAGE)
    weighting: Literal["natural", "uniform", "briggs"] = _key("briggs", "Weights of visibilities.", IMAGE)
    robust: float = _key(0.5, "Of Briggs's weights: -2 is uniform, 2 natural.", IMAGE, ge=-2, le=2)
    pblimit: float = _key(
        0.1, "The image that the beam is divided out of ends where that is weaker than this.", IMAGE, ge=0, lt=1
    )
    pbcor: bool = _key(True, "Whether there is an image that the beam is divided out of, and it is measured.", IMAGE)
    savemodel: Literal["none"] = _key("none", "The model is kept as FITS, and no column of it.", IMAGE)
    planes: int = _key(1, "Images by frequency; more than 1 are for workflows that only image.", IMAGE, ge=1, le=4096)
    mask: Folder | None = _key(
        None, "FITS image that is not 0, or regions of DS9, where alone is cleaned; from base_dir.", IMAGE
    )
    use_clean_mask: bool = _key(False, "Whether is cleaned only around what stands out by five deviations.", IMAGE)
    save_fits: bool = _key(
        True, "Whether model, residual and point spread function are kept, which no later stage reads.", IMAGE
    )


class Mosaicking(Section):
    """How images become mosaics."""

    mosaic_type: Literal["optimal", "pbweight"] = _key(
        "optimal", "Weights of pixels: beam^2 / noise^2 (optimal), or beam^2.", MOSAIC
    )
    mosaic_nx: int = _key(28_800, "Pixels along right ascension.", MOSAIC, ge=16, le=1_000_000)
    mosaic_ny: int = _key(4800, "Pixels along declination.", MOSAIC, ge=16, le=1_000_000)
    mosaic_cell: Angle = _key("3arcsec", "Side of a pixel.", MOSAIC)
    save_fits: bool = _key(True, "Whether mosaics are made; else sources are found in each image.", BLOCKS)


FluxRange = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)]


class Detection(Section):
    """How sources are found."""

    fwhm_pixels: float | None = _key(
        None, "Width of what is looked for, pixels; none: the beam's.", DETECT, gt=0, le=1000
    )
    threshold_sigma: float = _key(5.0, "Least significance, deviations.", DETECT, FORCED, gt=0, le=1000)


class Classification(Section):
    """Which sources are judged, and by which."""

    target_flux_range: FluxRange = _key([0.001, 0.1], "Of those that are judged, Jy.", VARIABILITY)
    reference_flux_range: FluxRange = _key([0.01, 1.0], "Of those they are compared with, Jy.", VARIABILITY)
    min_separation_arcsec: float = _key(
        30.0, "From these to any other source, arcseconds.", VARIABILITY, ge=0, le=36_000
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for low, high in (self.target_flux_range, self.reference_flux_range):
            if low >= high:
                raise ValueError("a range of fluxes is [less, more]")
        return self


class Aperture(Section):
    """Where a source's pixels are summed, and what is taken for sky: wider than the beam of 10 to 15 arcseconds."""

    radius_arcsec: float = _key(15.0, "Of the aperture, arcseconds.", FORCED, gt=0, le=3600)
    inner_annulus_arcsec: float = _key(22.5, "Where the sky begins, arcseconds.", FORCED, gt=0, le=3600)
    outer_annulus_arcsec: float = _key(37.5, "Where it ends, arcseconds.", FORCED, gt=0, le=3600)

    @model_validator(mode="after")
    def _rings(self) -> Self:
        if not self.radius_arcsec <= self.inner_annulus_arcsec < self.outer_annulus_arcsec:
            raise ValueError(
                "radius_arcsec must be at most inner_annulus_arcsec, and that less than outer_annulus_arcsec"
            )
        return self


class Photometry(Section):
    """How fluxes are measured."""

    detection: Detection = Field(default_factory=Detection)
    classification: Classification = Field(default_factory=Classification)
    aperture: Aperture = Field(default_factory=Aperture)


class SkyField(Section):
    """Which part of the sky counts."""

    radius_deg: float = _key(
        2.0, "Sources within so much of the field's centre, degrees.", SOLVE, SIMULATE, BLOCKS, gt=0, le=90
    )
    n_sources: int = _key(50, "The brightest so many, as the beam shows them.", SOLVE, SIMULATE, ge=1, le=100_000)


class SkyFlux(Section):
    """How bright sources are."""

    min_flux_jy: float = _key(0.001, "Weaker ones are left out, Jy.", SOLVE, SIMULATE, gt=0)
    max_flux_jy: float = _key(1.0, "The brightest that is simulated, Jy.", SIMULATE, gt=0)
    power_law_index: float = _key(-1.5, "Of the numbers of simulated sources by flux, dN/dS.", SIMULATE, ge=-5, lt=0)

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.min_flux_jy >= self.max_flux_jy:
            raise ValueError("min_flux_jy must be less than max_flux_jy")
        return self


class SkyModel(Section):
    """The sky that calibration supposes, and the simulator shows."""

    field: SkyField = Field(default_factory=SkyField)
    flux: SkyFlux = Field(default_factory=SkyFlux)


class MsCreation(Section):
    """What is simulated."""

    test_mode: bool = _key(
        False,
        "Whether sub-bands are simulated into hdf5_dir instead of being recorded.",
        INGEST,
        WATCH,
        SIMULATE,
    )
    n_antennas: int = _key(96, "Antennas, of the telescope's the first.", SIMULATE, ge=3, le=1000)
    n_frequencies: int = _key(768, "Channels of all sub-bands together.", SIMULATE, ge=1, le=1_000_000)
    n_times: int = _key(24, "Integrations of a group.", SIMULATE, ge=1, le=100_000)


class Logging(Section):
    """What commands of the pipeline say beside their results, if they take a configuration."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = _key("INFO", "The least that is said.", *COMMANDS)
    console_output: bool = _key(True, "Whether to the terminal.", *COMMANDS)
    file_output: bool = _key(True, "Whether to pipeline.log in log_dir.", *COMMANDS)


class PipelineConfig(Section):
    """The whole configuration."""

    environment: str = _key("production", "Which environment's layer this is made of.", BLOCKS)
    telescope: str = _key(
        "dsa110",
        "Name of a telescope, or the path of its TOML file.",
        *ARRIVE,
        SOLVE,
        QA,
        MOSAIC,
        SIMULATE,
        min_length=1,
    )
    paths: Paths = Field(default_factory=Paths)
    services: Services = Field(default_factory=Services)
    calibration: Calibration = Field(default_factory=Calibration)
    quality: Quality = Field(default_factory=Quality)
    imaging: Imaging = Field(default_factory=Imaging)
    mosaicking: Mosaicking = Field(default_factory=Mosaicking)
    photometry: Photometry = Field(default_factory=Photometry)
    skymodel: SkyModel = Field(default_factory=SkyModel)
    ms_creation: MsCreation = Field(default_factory=MsCreation)
    logging: Logging = Field(default_factory=Logging)
