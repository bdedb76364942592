"""What takes minutes: outages longer than the lease that workers really have.  `make soak` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from outage import outage_below, outlive


@pytest.mark.parametrize("frozen", [False, True], ids=["stopped", "mute"])
def test_a_finished_run_outlives_an_outage_of_thirty_seconds(tmp_path: Path, *, frozen: bool) -> None:
    """At the default lease: its receipt arrives, attempt 1, no second run."""
    with outage_below(tmp_path) as outage:
        done = outlive(outage, lease=30.0, frozen=frozen)

    assert [(run.attempt, run.state) for run in done.runs] == [(1, "completed")]
