"""What the executors of gates are given."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from absurd.tasks.calibration.params import Params, Path
from absurd.tasks.qa.gates import gates_with
from absurd.tasks.radio.errors import PipelineError


class CalibrationParams(Params):
    """Which recording, which gains, which sky, and what becomes of gains that do not pass."""

    ms: Path = Field(description="The recording before any gains: a Measurement Set, or UVH5 or uvfits.")
    spectral_window: int | None = Field(default=None, ge=0, description="Of the recording; it may have one only.")
    fields: list[int | str] | None = Field(
        default=None, description="Numbers or names of fields of a Measurement Set; without it all."
    )
    column: str = Field(default="DATA", min_length=1, description="Column of a Measurement Set with what was observed.")
    model: str | None = Field(
        default=None,
        description="Column with the visibilities of a sky from a catalogue, such as MODEL_DATA; not of one that was "
        "made from the same recording, which would close as its noise does.",
    )
    calibrator: str | None = Field(
        default=None,
        min_length=1,
        description="A source of the scale of Perley and Butler (2017), or of the lists in `catalogs`, with its "
        "neighbours there: the sky, instead of a column.",
    )
    flux_jy: float | None = Field(
        default=None,
        gt=0,
        description="Flux density of a point source at the phase centre, Jy: the sky, instead of these.",
    )
    sky_model: Path | None = Field(
        default=None, description="A model of the sky (JSON), instead of these.  Without any it is the gain set's."
    )
    catalogs: Path | None = Field(
        default=None,
        description="Folder with lists of calibrators as the VLA's manual gives them (*.txt).  The sky by them has "
        "to be the one that the gain set was solved against.",
    )
    telescope: str | None = Field(
        default=None,
        description="A telescope by name, or its TOML file, whose noise is compared with; without it the gain set's.",
    )
    gain_set: int | None = Field(
        default=None,
        ge=1,
        description="Number of the gain set to judge: a candidate that passes becomes valid, one that does not is "
        "quarantined.",
    )
    sets: list[Path] = Field(
        default=[],
        description="Folders of gain sets to judge, in the order in which they are applied, instead of one.  What the "
        "database has of one that is moved into quarantine is quarantined there.",
    )
    corrected: str | None = Field(
        default=None, description="Column with corrected visibilities, without gain sets to make them by."
    )
    limits: dict[str, dict[str, float | None]] = Field(
        default={},
        description="Other limits of gates, as {antennas: {fail_below: 6}}: warn_below, fail_below, warn_above, "
        "fail_above; null is none.",
    )
    quarantine: bool = Field(
        default=True,
        description="Move gain sets that do not pass into a folder quarantine beside them; the task fails either way.",
    )
    reports: Path | None = Field(
        default=None, description="Folder for the report, NAME.quality.json; without it that of the recording."
    )

    @field_validator("limits")
    @classmethod
    def _known(cls, limits: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
        try:
            gates_with(limits)
        except PipelineError as error:
            raise ValueError(error.message) from None
        return limits

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if sum(each is not None for each in (self.gain_set, self.sets or None, self.corrected)) > 1:
            raise ValueError("gain_set, sets and corrected exclude one another: each says what was corrected by what")
        skies = [name for name in ("model", "calibrator", "flux_jy", "sky_model") if getattr(self, name) is not None]
        if len(skies) > 1:
            raise ValueError(f"{' and '.join(skies)} exclude one another: each is the sky")
        return self
