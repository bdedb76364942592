"""One night, twice: left alone, and with a worker killed at ten random moments.  `make soak` runs it."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from proof import seed_of
from pyarrow import parquet

from absurd import SyncAbsurdClient
from absurd.config import load_settings
from absurd.demo.compare import Source, compare
from absurd.demo.night import Night, run_night
from absurd.demo.plan import SIZES, Plan
from absurd.demo.platform import Platform

KILLS = 10
SIZE = os.environ.get("ABSURD_TEST_NIGHT", "tiny")
NOT_OF_THE_SKY = ("id", "task_id", "stored_at", "decided_at")


class Quiet:
    """Nobody watches."""

    def say(self, text: str) -> None:
        """Print it, for the report of a failure."""
        print(text)

    def paint(self, text: str) -> None:
        """No terminal."""


class Struck(Platform):
    """The demo's platform, of which a worker is killed now and then, and another one started."""

    def __init__(self, out: Path, plan: Plan, chance: random.Random | None) -> None:
        super().__init__(load_settings(environ={}), out, plan, keep=False)
        # The second night is observed in the place of the first, with a database of its own.
        self.settings = replace(self.settings, home=out.with_name("home with kills" if chance else "home"))
        self._environ |= self.settings.environment() | {"ABSURD_MAX_RETRIES": "30"}
        self._environ.pop("ABSURD_DATABASE_URL", None)
        self._chance = chance
        self._next = 0.0
        self.kills = 0

    def check(self) -> None:
        """Look after the processes, and kill one if it is time."""
        super().check()
        if self._chance is None or self.kills == KILLS:
            return
        now = time.monotonic()
        if self._next and now >= self._next:
            alive = [each.pid for name, each in self._processes.items() if "worker" in name and each.poll() is None]
            assert self.kill(self._chance.choice(alive))
            self.add_worker()
            self.kills += 1
        if not self._next or now >= self._next:
            self._next = now + self._chance.uniform(1, 6) * len(self.night.size.fields)


def observe(out: Path, chance: random.Random | None) -> tuple[dict[str, Any], tuple[Source, ...], dict[str, Any]]:
    """What a night left: its products by their path, its sources, and all its measurements."""
    with Struck(out, Plan(SIZES[SIZE], seed=12), chance) as platform:
        night = run_night(platform, Quiet())
        assert platform.kills == (KILLS if chance else 0)
        with SyncAbsurdClient(settings=platform.settings) as client:
            rows = [dict(each) for each in client.list_products(limit=1000) if each["kind"] != "table"]
    products = {each["path"]: {key: each[key] for key in each if key not in NOT_OF_THE_SKY} for each in rows}
    sources = compare(night.pointings, files(night, "measurements"), files(night, "variability")).sources
    tables = {path.name: measurements(path) for path in files(night, "measurements")}
    return products, sources, tables


def files(night: Night, kind: str) -> list[Path]:
    return sorted((night.out / "data" / "photometry" / kind).glob("*.parquet"))


def measurements(path: Path) -> list[dict[str, Any]]:
    """Rows of a table, but for the numbers that the database gave to images."""
    return [
        {key: value for key, value in row.items() if not key.endswith("_id") or key == "source_id"}
        for row in parquet.read_table(path).to_pylist()
    ]


def test_a_night_with_ten_kills_is_the_same_night(tmp_path: Path) -> None:
    """Images and mosaics are the same to the byte, and all flux densities, errors and kinds equal."""
    left_alone = observe(tmp_path / "night", None)
    (tmp_path / "night").rename(tmp_path / "first")  # what is written tells where it was made: the same place again

    assert observe(tmp_path / "night", random.Random(seed_of("kills"))) == left_alone
    assert len(left_alone[1]) > 0
    assert all(left_alone[2].values())
