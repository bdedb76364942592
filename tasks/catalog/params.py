"""What the executors of catalogues are given."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Path = Annotated[str, Field(min_length=1)]


class CatalogueParams(BaseModel):
    """A catalogue, and which of its columns are what."""

    model_config = ConfigDict(extra="forbid")

    path: Path = Field(description="Catalogue (.parquet, .csv, .ecsv, .fits, .vot, .xml).")
    ra_column: str = Field(default="ra", min_length=1, description="Column with right ascensions, degrees.")
    dec_column: str = Field(default="dec", min_length=1, description="Column with declinations, degrees.")
    id_column: str | None = Field(
        default=None, min_length=1, description="Column with names; without it sources have their row alone."
    )


class CrossmatchParams(BaseModel):
    """Which catalogues, how near, and where the pairs go."""

    model_config = ConfigDict(extra="forbid")

    first: CatalogueParams | Path = Field(description="A catalogue, or its path; positions in degrees of one frame.")
    second: CatalogueParams | Path = Field(description="The other.")
    radius_arcsec: float = Field(
        default=10.0, gt=0, le=3600, allow_inf_nan=False, description="Largest distance of a pair, arcseconds."
    )
    unmatched: bool = Field(default=False, description="Whether sources without a counterpart have a row too.")
    out: Path = Field(description="The pairs, as Parquet.")
