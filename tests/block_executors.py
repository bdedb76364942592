"""Stages that take a moment and make nothing, under the names of those that do: how blocks go by themselves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from absurd.executor import Executor
from absurd.outcome import Reject
from absurd.tasks.pipeline.executors import batch, report


@dataclass
class Stages:
    """Executors for a worker, and what was seen of them."""

    fails: Callable[[str, str], bool] = lambda name, ms: False
    """Whether a stage fails for a recording."""
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By executor and recording's name."""
    busy: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    """Blocks that were worked on at the same time."""
    block_of: dict[str, str] = field(default_factory=dict)
    """Recordings' names to what is counted as one."""

    @property
    def executors(self) -> list[Executor[Any]]:
        names = (
            *("visibility.flag", "calibration.apply", "imaging.image", "qa.image", "imaging.mosaic", "qa.mosaic"),
            *("photometry.detect", "photometry.forced", "photometry.variability"),
        )
        both = (replace(each, runs_in="thread") for each in (report, batch))  # a process takes seconds
        return [*both, *(self._executor(name) for name in names)]

    def _executor(self, name: str) -> Executor[Any]:
        async def stage(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
            recording = Path(params.get("ms") or params.get("image") or params["out"]).stem
            self.runs[name, recording] += 1
            block = self.block_of.get(recording, recording)
            self.busy[block] += 1
            self.most_at_once = max(self.most_at_once, sum(count > 0 for count in self.busy.values()))
            try:
                await asyncio.sleep(0.02)
                if self.fails(name, recording):
                    raise Reject(f"{recording} cannot be had")
            finally:
                self.busy[block] -= 1
            if name in ("imaging.image", "qa.image"):
                path = params.get("out") or params["image"]
                return {"paths": {"image": path, "pb": "pb", "pbcor": path}}
            return {"path": params.get("out", recording), "images": []}

        return Executor(name=name, function=stage, runs_in="loop")
