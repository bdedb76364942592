"""What came of a block, by the tasks that were its own (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol

IMAGE = "imaging.image"
PRODUCTS = ("calibration.solve", "imaging.", "photometry.")
"""What the names of executors begin with that make files of their own; others change what is there."""
MOST_TOLD = 20


class Done(Protocol):
    """What is asked of a task."""

    @property
    def name(self) -> str: ...
    @property
    def node(self) -> str | None: ...
    @property
    def headers(self) -> Mapping[str, Any]: ...
    @property
    def state(self) -> Any: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def error(self) -> Mapping[str, Any] | None: ...
    @property
    def result(self) -> Any: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def finished_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class ProcessingResult:
    """What came of a block."""

    block_id: str
    success: bool
    """Whether all that was to be done was done."""
    processing_time: float
    """Seconds from the begin of the first task that ran for it to the end of the last; 0 if all was done before."""
    stage_results: dict[str, Any] = field(default_factory=dict)
    """What each task has returned, by the name of its node."""
    errors: list[str] = field(default_factory=list)
    """What failed, by node, and what could not be done for that."""
    output_files: dict[str, str] = field(default_factory=dict)
    """Products by the name of the node that made them: images, mosaic, catalogues, measurements, gains."""
    ms_count: int = 0
    image_count: int = 0

    def told(self) -> dict[str, Any]:
        """As JSON, without what each task has returned."""
        document = asdict(self)
        del document["stage_results"]
        return document


def result_of(block_id: str, tasks: Iterable[Done], *, recordings: int, asked_at: datetime) -> ProcessingResult:
    """Put together what came of the tasks of a block, which have ended.

    Those that began before `asked_at` were done for another block, or at another time: they take no time here.
    """
    stages: dict[str, Any] = {}
    causes: list[tuple[datetime, str]] = []
    entailed, files = [], {}
    begun: list[datetime] = []
    ended: list[datetime] = []
    images = 0
    for each in tasks:
        node = str(each.headers.get("node") or each.node or each.name)
        if str(each.state) == "completed":
            stages[node] = each.result
            files.update(_files(node, each.name, each.result))
            images += each.name == IMAGE
        elif _reason(each) == "upstream":
            entailed.append(f"{node} {each.state}: upstream")
        else:
            causes.append((each.finished_at or asked_at, f"{node} {each.state}: {_reason(each)}"))
        if each.started_at is not None and each.finished_at is not None and each.started_at >= asked_at:
            begun.append(each.started_at)
            ended.append(each.finished_at)
    return ProcessingResult(
        block_id=block_id,
        success=not (causes or entailed),
        processing_time=(max(ended) - min(begun)).total_seconds() if begun else 0.0,
        stage_results=stages,
        errors=[told for _, told in sorted(causes)] + sorted(entailed),
        output_files=files,
        ms_count=recordings,
        image_count=images,
    )


def _files(node: str, executor: str, result: Any) -> dict[str, str]:
    if not executor.startswith(PRODUCTS) or not isinstance(result, Mapping):
        return {}
    if isinstance(result.get("paths"), Mapping) and isinstance(result["paths"].get("image"), str):
        return {node: result["paths"]["image"]}
    return {node: result["path"]} if isinstance(result.get("path"), str) else {}


def _reason(task: Done) -> str:
    if task.error is not None:
        return str(task.error.get("message", "no reason was kept"))
    return task.reason or "no reason was kept"


def summary(errors: list[str]) -> str:
    """Errors as one text."""
    more = len(errors) - MOST_TOLD
    return "; ".join(errors[:MOST_TOLD]) + (f"; and {more} more" if more > 0 else "")
