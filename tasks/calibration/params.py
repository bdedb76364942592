"""What the executors of calibration are given."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from absurd.tasks.calibration.settings import MOST_ROUNDS, RECIPE
from absurd.tasks.calibration.validity import BORROW_DAYS, BORROW_DEG, STRIP_DEG, WINDOW_HOURS
from absurd.tasks.radio.errors import PipelineError
from absurd.tasks.radio.quantity import duration_s, uv_range

Path = Annotated[str, Field(min_length=1)]


def _seconds(value: float | str) -> float | str:
    try:
        duration_s(value)
    except PipelineError as error:
        raise ValueError(error.message) from None
    return value


def _baselines(value: str) -> str:
    try:
        uv_range(value)
    except PipelineError as error:
        raise ValueError(error.message) from None
    return value


Interval = Annotated[float | str, AfterValidator(_seconds)]
Baselines = Annotated[str, AfterValidator(_baselines)]


class Params(BaseModel):
    """Params with these keys and no others; numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Solution(Params):
    """How one kind of gains is solved."""

    solint: Interval = Field(
        default="inf",
        description="Length of a solution, as 60s or 30min; inf: all of the recording, int: an integration.",
    )
    minsnr: float = Field(default=3.0, ge=0, description="Solutions with less signal to noise are flagged.")
    uvrange: Baselines = Field(
        default="",
        description="Baselines to solve by, as >1klambda, at each channel; without it all.  Metres are "
        "wavelengths at the middle of the band.",
    )
    refant: list[str] = Field(
        default=[], description="Antennas whose phase is 0, the best first; then those of `telescope`."
    )


class BandpassSolution(Solution):
    """How the bandpass is solved."""

    minsnr: float = Field(default=5.0, ge=0, description="Solutions with less signal to noise are flagged.")
    combine: list[Literal["scan", "field"]] = Field(
        default=["scan", "field"], description="Boundaries that a solution reaches over."
    )
    fillgaps: int = Field(default=3, ge=0, description="Channels in a row without a solution that are interpolated.")
    minblperant: int = Field(default=4, ge=1, description="Antennas with fewer baselines are not solved for.")
    solnorm: bool = Field(default=True, description="Have the mean square of its amplitudes be 1 for each antenna.")


class GainSolution(Solution):
    """How gains in time are solved."""

    mode: Literal["p", "a", "ap"] = Field(default="ap", description="Phases, amplitudes, or both.")


class RecordingParams(Params):
    """What to solve gains from, and against which sky."""

    ms: Path = Field(description="The Measurement Set to solve from.")
    out: Path = Field(description="The folder in which the gain set is stored, under a name of its own.")
    spectral_window: int | None = Field(default=None, ge=0, description="Of the Measurement Set; it may have one only.")
    fields: list[int | str] | None = Field(default=None, description="Numbers or names of fields; without it all.")
    calibrator: str | None = Field(
        default=None,
        description="A source of the scale of Perley and Butler (2017), or of the VLA's list in `catalogs`; without it "
        "the strongest within `radius_deg` of the phase centre.",
    )
    flux_jy: float | None = Field(
        default=None, gt=0, description="Flux density of a point at the phase centre, instead of a calibrator, Jy."
    )
    sky_model: Path | None = Field(default=None, description="A model of the sky (JSON), instead of a calibrator.")
    catalogs: Path | None = Field(
        default=None, description="Folder with lists of calibrators as the VLA's manual gives them (*.txt)."
    )
    radius_deg: float = Field(
        default=2.0, gt=0, le=90, description="Sources of the lists so near to the phase centre are part of the sky."
    )
    most_sources: int = Field(default=100, ge=1, description="Sources of the sky at most, the strongest.")
    faintest_jy: float = Field(default=0.0, ge=0, description="Flux density of the faintest of them, Jy.")
    beam: Literal["none", "airy", "gaussian"] = Field(
        default="airy", description="How a dish receives sources away from its axis; none: as on it."
    )
    telescope: str | None = Field(
        default=None,
        description="A telescope by name, or its TOML file: its reference antennas are taken after `refant`.",
    )

    @model_validator(mode="after")
    def _one_sky(self) -> Self:
        given = [name for name in ("calibrator", "flux_jy", "sky_model") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude one another: each is a model of the sky")
        return self


class SolveParams(RecordingParams):
    """What to solve gains from, against which sky, and how long they hold."""

    engine: Literal["embedded", "casatasks"] = Field(default="embedded", description="What solves.")
    casa_python: Path | None = Field(
        default=None, description="A Python with casatasks and casadata, for that engine; without it the worker's own."
    )
    prebp: Solution | None = Field(
        default=Solution(solint="60s"), description="Phases that hold the recording together before the bandpass."
    )
    bcal: BandpassSolution = Field(default=BandpassSolution(), description="The bandpass.")
    gcal: GainSolution = Field(default=GainSolution(), description="Gains in time.")
    validity_hours: float = Field(
        default=WINDOW_HOURS, gt=0, le=720, description="The set holds so long before and after the recording."
    )
    declination_tolerance_deg: float = Field(
        default=STRIP_DEG, gt=0, le=180, description="It holds for declinations so near to its own, degrees."
    )
    register_as: Literal["valid", "candidate", "none"] = Field(
        default="candidate",
        description="State under which the set is put into the database: a candidate is not used until qa.calibration, "
        "or somebody, accepts it.",
    )
    casa_tables: bool = Field(default=False, description="Write tables for CASA beside the set, .bcal and .gcal.")


class SelfCalibrateParams(RecordingParams):
    """What to solve gains from in rounds, against which sky, and when it is enough."""

    column: str = Field(
        default="DATA",
        min_length=1,
        description="Column of the visibilities: CORRECTED_DATA of a set that was corrected in place, whose gains are "
        "then applied before these.",
    )
    rounds: list[GainSolution] = Field(
        default=[
            GainSolution(
                mode=each.mode,
                solint=f"{each.interval_s:g}s" if math.isfinite(each.interval_s) else "inf",
                minsnr=each.min_snr,
            )
            for each in RECIPE
        ],
        min_length=1,
        max_length=MOST_ROUNDS,
        description="What is solved in each round, at most five; each from the visibilities as they are in the column.",
    )
    least_snr_gain: float = Field(
        default=0.05,
        ge=0,
        allow_inf_nan=False,
        description="A round that raises the signal to noise by a smaller share, and",
    )
    least_chi_squared_drop: float = Field(
        default=0.05, ge=0, le=1, description="lowers chi-squared by a smaller one too, is the last."
    )
    most_flagged: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="A round that leaves a larger share of its gains without a solution is given up: noise alone does.",
    )


class ApplyParams(Params):
    """What to correct, and by which gains."""

    ms: Path = Field(description="The Measurement Set to correct.")
    out: Path | None = Field(
        default=None,
        description="The Measurement Set to write, whose DATA are the corrected visibilities; without it `ms` "
        "itself gets them as CORRECTED_DATA, and keeps its DATA.",
    )
    spectral_window: int | None = Field(default=None, ge=0, description="Of the Measurement Set; it may have one only.")
    fields: list[int | str] | None = Field(default=None, description="Numbers or names of fields; without it all.")
    gain_set: int | None = Field(
        default=None, ge=1, description="Number of the set to apply; without it the nearest in time that holds."
    )
    sets: list[Path] = Field(
        default=[],
        description="Folders of gain sets to apply as they are, in this order, instead of one of the database.",
    )
    gains: Path | None = Field(default=None, description="Only sets that lie in this folder are chosen.")
    validity_hours: float | None = Field(
        default=None, gt=0, le=720, description="How long sets hold before and after, instead of what each says."
    )
    declination_tolerance_deg: float | None = Field(
        default=None, gt=0, le=180, description="For which declinations sets hold, degrees, instead of what each says."
    )
    both_sides: bool = Field(
        default=False, description="Interpolate gains between the sets before and after, where both hold."
    )
    borrow: bool = Field(
        default=False, description="Where no set holds, take the nearest within the limits of borrowing, and tell."
    )
    borrow_days: float = Field(default=BORROW_DAYS, gt=0, le=365, description="Greatest age of a borrowed set, days.")
    borrow_deg: float = Field(
        default=BORROW_DEG, gt=0, le=180, description="Greatest distance in declination of a borrowed set, degrees."
    )
    calwt: bool = Field(default=True, description="Multiply weights by the power of the gains.")
    missing: Literal["flag", "leave"] = Field(
        default="flag", description="What becomes of visibilities without gains: flagged, or left as they are."
    )
    bridge: bool = Field(default=False, description="Interpolate over flagged solutions.")

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if self.sets and self.gain_set is not None:
            raise ValueError("sets and gain_set exclude one another: both say which gains")
        return self
