"""How blocks went: how many, how long, how well.  Of what the database has, or of what is recorded here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from absurd.client import AbsurdClient
from absurd.tasks.pipeline.orchestrator import outcome_of

REPORT = "pipeline.report"
MOST = 1000


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """How a block went."""

    block_id: str
    success: bool
    processing_time: float
    """Seconds."""
    ms_count: int
    image_count: int
    ended_at: datetime


class PipelineMetrics:
    """Numbers about blocks, of those that were recorded with it.

    `of` takes them from the database, where each block that was worked on is a task.
    """

    def __init__(self, records: Iterable[BlockRecord] = ()) -> None:
        self.records = sorted(records, key=lambda each: each.ended_at)

    @classmethod
    async def of(cls, client: AbsurdClient, hours: float = 24) -> Self:
        """Of the blocks that were spawned in the last hours and have ended, the latest thousand.

        Raises DatabaseError.
        """
        since = datetime.now(UTC) - timedelta(hours=hours)
        records = []
        for each in await client.list_tasks(name=REPORT, since=since, limit=MOST):
            if each["state"] not in {"completed", "failed"}:
                continue
            task = await client.get_task(each["id"])
            if task.params["workflow"] == "ingestion":  # no block of recordings
                continue
            told = task.result if task.state == "completed" else None
            if told is None:
                outcome = await outcome_of(client, task.id)
                if outcome is None:  # it goes on
                    continue
                told = outcome.told()
            names = ("block_id", "success", "processing_time", "ms_count", "image_count")
            ended = task.finished_at or task.created_at
            records.append(BlockRecord(**{name: told[name] for name in names}, ended_at=ended))
        return cls(records)

    def record_block_processing(
        self,
        block_id: str,
        success: bool,
        processing_time: float,
        ms_count: int = 0,
        image_count: int = 0,
        *,
        ended_at: datetime | None = None,
    ) -> None:
        """Record a block that has ended now, or at an aware time, after `processing_time` seconds."""
        ended = ended_at or datetime.now(UTC)
        self.records.append(BlockRecord(block_id, success, float(processing_time), ms_count, image_count, ended))

    def get_recent_metrics(self, hours: float = 24) -> dict[str, Any]:
        """Blocks that ended in the last hours: how many, how they went, and each of them, the latest last."""
        recent = self._recent(hours)
        return {
            "hours": hours,
            "blocks": len(recent),
            "failed": sum(not each.success for each in recent),
            "recordings": sum(each.ms_count for each in recent),
            "images": sum(each.image_count for each in recent),
            "success_rate": self.get_success_rate(hours),
            "average_processing_time": self.get_average_processing_time(hours),
            "records": [asdict(each) for each in recent],
        }

    def get_success_rate(self, hours: float = 24) -> float | None:
        """Share of them that succeeded, 0 to 1; None if there were none."""
        recent = self._recent(hours)
        return sum(each.success for each in recent) / len(recent) if recent else None

    def get_average_processing_time(self, hours: float = 24) -> float | None:
        """Mean of their seconds; None if there were none."""
        recent = self._recent(hours)
        return sum(each.processing_time for each in recent) / len(recent) if recent else None

    def _recent(self, hours: float) -> list[BlockRecord]:
        since = datetime.now(UTC) - timedelta(hours=hours)
        return [each for each in self.records if each.ended_at >= since]
