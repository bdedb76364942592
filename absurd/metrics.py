"""What Prometheus is told: every metric in one table, histograms, and the text format (version 0.0.4).

Who measures gives `Sample`s under names of the table; `exposition` makes the page of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Source = Literal["queue", "worker", "scheduler"]
"""Who tells a metric: ``queue`` is of the whole queue, told by each `absurd serve` and each scheduler."""


class Metric(NamedTuple):
    """What a metric is, and by which labels its samples differ."""

    kind: Literal["counter", "gauge", "histogram"]
    source: Source
    labels: tuple[str, ...]
    help: str


METRICS: dict[str, Metric] = {
    "absurd_tasks": Metric("gauge", "queue", ("queue", "state"), "Tasks that are kept, by state."),
    "absurd_tasks_spawned_total": Metric("counter", "queue", ("queue",), "Tasks that were spawned."),
    "absurd_tasks_completed_total": Metric("counter", "queue", ("queue",), "Ends of tasks as completed."),
    "absurd_tasks_failed_total": Metric("counter", "queue", ("queue",), "Ends of tasks as failed, attempts spent."),
    "absurd_tasks_cancelled_total": Metric("counter", "queue", ("queue",), "Ends of tasks as cancelled."),
    "absurd_tasks_pruned_total": Metric(
        "counter", "queue", ("queue",), "Ended tasks that were pruned, or moved to another queue."
    ),
    "absurd_runs_retried_total": Metric("counter", "queue", ("queue",), "Runs that failed and were tried again."),
    "absurd_runs_lost_total": Metric("counter", "queue", ("queue",), "Runs that were lost with their worker."),
    "absurd_queue_oldest_pending_seconds": Metric(
        "gauge", "queue", ("queue",), "Age of the oldest pending task since its spawn; 0 where none is pending."
    ),
    "absurd_queue_paused": Metric("gauge", "queue", ("queue",), "Whether the queue is paused."),
    "absurd_dead_letters": Metric("gauge", "queue", (), "Dead letters, estimated where there are very many."),
    "absurd_workers": Metric("gauge", "queue", ("state",), "Workers: running, stopping, or lost within the hour."),
    "absurd_slots": Metric("gauge", "queue", (), "Runs that all workers together execute at once at most."),
    "absurd_slots_busy": Metric("gauge", "queue", (), "Runs that workers hold, those among them that wait for a slot."),
    "absurd_schedule_lateness_seconds": Metric(
        "gauge", "queue", ("schedule",), "For how long a schedule has been due; only those that are, up to 100."
    ),
    "absurd_problems": Metric("gauge", "queue", ("code",), "Problems that `absurd status` tells, by code."),
    "absurd_alert_firing": Metric(
        "gauge", "queue", ("alert", "severity"), "Whether an alert of the database fires, be it silent or not."
    ),
    "absurd_table_rows": Metric("gauge", "queue", ("table",), "Rows of a table, estimated by PostgreSQL."),
    "absurd_table_dead_rows": Metric("gauge", "queue", ("table",), "Dead rows of a table, still to be removed."),
    "absurd_oldest_snapshot_seconds": Metric(
        "gauge", "queue", (), "Age of the oldest transaction that keeps dead rows from being removed."
    ),
    "absurd_task_start_seconds": Metric(
        "histogram", "worker", ("queue",), "From the spawn of a task to the start of its first run."
    ),
    "absurd_run_seconds": Metric("histogram", "worker", ("executor",), "Durations of runs, however they ended."),
    "absurd_runs_total": Metric("counter", "worker", ("executor", "outcome"), "Runs that this worker has executed."),
    "absurd_worker_slots": Metric("gauge", "worker", (), "Runs that this worker executes at once at most."),
    "absurd_worker_slots_busy": Metric("gauge", "worker", (), "Runs that this worker executes now."),
    "absurd_worker_resident_bytes": Metric("gauge", "worker", (), "Memory of the worker's own process."),
    "absurd_tick_lateness_seconds": Metric(
        "histogram", "scheduler", (), "From the time a schedule was due to its being fired by this scheduler."
    ),
    "absurd_scheduler_leads": Metric("gauge", "scheduler", (), "Whether this scheduler has the lead."),
}  # fmt: skip
"""By name.  Units stand in the names; a switch is 1 or 0."""

BOUNDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0)
"""Upper bounds of all histograms in seconds: from a task that does nothing to a night."""


class Sample(NamedTuple):
    """A value of a metric; `suffix` tells the parts of a histogram."""

    name: str
    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


class Histogram:
    """Durations in seconds by the value of one label, or by none: ``""``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._label = METRICS[name].labels
        self._found: dict[str, tuple[list[int], list[float]]] = {}

    def observe(self, seconds: float, label: str = "") -> None:
        """Count a duration."""
        found = self._found.get(label)
        if found is None:
            found = self._found[label] = ([0] * (len(BOUNDS) + 1), [0.0])
        counts, total = found
        counts[bisect_left(BOUNDS, seconds)] += 1
        total[0] += seconds

    def samples(self) -> Iterator[Sample]:
        """The histogram as Prometheus has it: each bucket holds those below it."""
        for label, (counts, (total,)) in sorted(self._found.items()):
            labels = dict.fromkeys(self._label, label)
            sums = list(accumulate(counts))
            for bound, count in zip((*BOUNDS, math.inf), sums, strict=True):
                yield Sample(self._name, count, labels | {"le": _number(bound)}, "_bucket")
            yield Sample(self._name, total, labels, "_sum")
            yield Sample(self._name, sums[-1], labels, "_count")


def exposition(samples: Iterable[Sample]) -> str:
    """The page of `samples`, metric by metric in the order of the table.  Raises KeyError for an unknown name."""
    by_name: dict[str, list[Sample]] = {name: [] for name in METRICS}
    for each in samples:
        by_name[each.name].append(each)
    return "".join(f"{line}\n" for name, found in by_name.items() if found for line in _lines(name, found))


def _lines(name: str, samples: Sequence[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {METRICS[name].help}"
    yield f"# TYPE {name} {METRICS[name].kind}"
    for each in samples:
        labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in each.labels.items())
        yield f"{name}{each.suffix}{f'{{{labels}}}' if labels else ''} {_number(each.value)}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
