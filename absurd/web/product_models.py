"""What is answered of products, for the OpenAPI: made of the columns that the tables have."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, create_model

from absurd.product_rows import TABLES
from absurd.web.answers import Page

_TYPES: dict[str, Any] = {
    "integer": int,
    "real": float,
    "text": str,
    "boolean": bool,
    "time": AwareDatetime | str,  # -infinity: that is not told
    "json": Any,
}


class _Document(BaseModel):
    model_config = ConfigDict(extra="allow")


def _row(name: str, about: str, table: str, **more: Any) -> type[BaseModel]:
    """A model of a table's rows, with further fields; all but the key may be null."""
    key = TABLES[table].key
    fields: dict[str, Any] = {
        column: (_TYPES[kind], ...) if column in key else (_TYPES[kind] | None if kind != "json" else Any, None)
        for column, kind in TABLES[table].columns.items()
    }
    return create_model(name, __base__=_Document, __doc__=about, **fields | more)


def page_of(model: Any) -> Any:
    """A page of rows of a model."""
    return Page[model]


Product = _row("Product", "A file that the pipeline has made: an image, a mosaic or a table.", "product")
Measure = _row("Measure", "What a gate has measured of a product, the last time.", "qa_result")
Image = _row("Image", "An image or mosaic, with what gates have measured of it.", "product", qa=(list[Measure], ...))  # type: ignore[valid-type]
Source = _row(
    "Source",
    "A source of the sky; `arcsec` is how far it is from the position that was asked for.",
    "source",
    arcsec=(float | None, None),
)
Flux = _row("Flux", "A source in an image, whether it was seen or not: then with an upper limit.", "photometry")
Variability = _row("Variability", "How much a source changes, by the table that tells it.", "variability")
MeasurementSet = _row("MeasurementSet", "A Measurement Set that was converted from sub-bands.", "recording")
Subband = _row("Subband", "A file of a sub-band.", "subband")
GainSet = _row("GainSet", "Gains that were solved, where they lie and for what they hold.", "gain_set")
Session = _row("Session", "A session whose file is whole.", "session")
PublishedFile = _row("PublishedFile", "A file that a task has published.", "artifact")


class Input(BaseModel):
    """What a product was made of."""

    path: str
    role: str
    input_id: int | None = Field(description="The product that had this path then; null: it is none.")


Traced = _row(
    "Traced", "A product with what it was made of.", "product", inputs=(list[Input], Field(description="Of this one."))
)


class Provenance(BaseModel):
    """What a product was made of, and what was made of it."""

    product: Traced  # type: ignore[valid-type]
    ancestors: list[Traced] = Field(description="The products behind it, the nearest first.")  # type: ignore[valid-type]
    used_in: list[int] = Field(description="Products that were made of it.")
    complete: bool = Field(description="False where there are more than are told.")


class LightCurve(BaseModel):
    """What a source was in each image it was measured in, by time."""

    source: Source  # type: ignore[valid-type]
    items: list[Flux]  # type: ignore[valid-type]
    next: str | None = Field(description="What to give as `after` for the next page; null at the end.")


class MsProvenance(BaseModel):
    """What a Measurement Set was converted from, and by which task."""

    ms: MeasurementSet  # type: ignore[valid-type]
    subbands: list[Subband]  # type: ignore[valid-type]


class GainProvenance(BaseModel):
    """What a gain set was solved from."""

    gain_set: GainSet  # type: ignore[valid-type]
    provenance: Any = Field(description="What the solver has told: recordings, model, versions.")
    superseded_by: int | None


class Count(_Document):
    """How many there are, with the values that they have in common."""

    count: int


class Statistics(BaseModel):
    """How much there is, at most half a minute old."""

    products: list[Count]
    sources: list[Count]
    gain_sets: list[Count]
    recordings: list[Count]
    measures: list[Count]
    sessions: list[Count]


class CacheStatistics(BaseModel):
    """What this process keeps, and how often it was of use since it began."""

    entries: int
    bytes: int
    limit_bytes: int
    hits: int
    misses: int


class Invalidated(BaseModel):
    """How many entries are gone."""

    removed: int


class Neighbour(BaseModel):
    """A service beside this one."""

    name: str
    url: str
    up: bool
    latency_seconds: float | None = Field(description="Of its answer; null where there was none.")
    status: int | None = Field(description="Of HTTP.")
    error: str | None = Field(description="Why there was no answer.")


class Job(_Document):
    """A task with the products it has made."""

    id: UUID
    queue: str
    name: str
    state: str
    created_at: AwareDatetime
    products: list[int] = Field(description="Numbers of the products it has made, last.")


class JobProvenance(BaseModel):
    """How something came about: the task, and the products it has made with all that is behind them."""

    id: UUID
    name: str
    params: Any
    depends_on: list[UUID]
    children: list[UUID]
    workflow_id: UUID | None
    runs: list[dict[str, Any]]
    products: list[Traced] = Field(description="Those it has made, and those they were made of.")  # type: ignore[valid-type]
    complete: bool = Field(description="False where there are more than are told.")


class JobsCreated(BaseModel):
    """The jobs of a batch, in its order."""

    jobs: list[dict[str, Any]] = Field(description="`id`, and `created`: false where the key was taken.")


class JobsChanged(BaseModel):
    """Where jobs stand after a change."""

    jobs: list[dict[str, Any]] = Field(description="`id` and `state`.")
