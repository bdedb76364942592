"""Stages of the radio pipeline as they are killed: what they begin with, what they are to make, what must hold."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from casacore.tables import table
from interferometer import observed
from single_run import run
from subband_files import name_of, write_subband

from absurd import SyncAbsurdClient
from absurd.tasks.calibration.gain_record import record
from absurd.tasks.calibration.gain_table import read_gains, write_gains
from absurd.tasks.visibility.flag_record import FlagRecord
from absurd.tasks.visibility.flagging.on_disk import flag_measurement_set
from absurd.tasks.visibility.flagging.strategy import Strategy
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.measurement_set_files import size_and_checksum

COLUMNS = (
    *("DATA", "CORRECTED_DATA", "FLAG", "FLAG_ROW", "WEIGHT_SPECTRUM", "WEIGHT", "SIGMA"),
    *("TIME", "UVW", "ANTENNA1", "ANTENNA2", "FIELD_ID"),
)
TILES = 2
"""Recordings that arrive as sub-bands."""
SKY: dict[str, Any] = {"flux_jy": 5.0, "beam": "none"}
"""Of the recording: at five times its noise."""


@dataclass(frozen=True)
class Inputs:
    """What all stages begin with; none changes it."""

    folder: Path
    gains: str
    """Solved from the recording."""

    def ms(self, name: str) -> str:
        return str(self.folder / f"{name}.ms")


def make_inputs(folder: Path) -> Inputs:
    """A recording of a source, one of nothing, and gains solved from each."""
    random = np.random.default_rng(8)
    for name, snr, times in (("night", 5.0, 6), ("noise", 0.0, 1)):
        seen = observed(random, snr=snr, antennas=14, channels=64 if name == "noise" else 16, times=times)
        write_measurement_set(seen, folder / f"{name}.ms")
    flagged = folder / "flagged.ms"
    shutil.copytree(folder / "night.ms", flagged)
    flag_measurement_set(flagged, Strategy())
    solved, _ = run(
        "calibration.solve", {"ms": str(folder / "night.ms"), "out": str(folder), "register_as": "none"} | SKY
    )
    return Inputs(folder, solved["path"])


class Stage:
    """A task that makes its product in a folder of its own."""

    executor = ""
    fails: str | None = None
    """What its failure says, if it is to fail."""

    def __init__(self, folder: Path, inputs: Inputs, client: SyncAbsurdClient) -> None:
        self.folder, self.inputs, self.client = folder, inputs, client
        self.result: Any = None
        folder.mkdir(exist_ok=True)
        self.params = self.prepare()

    def prepare(self) -> dict[str, Any]:
        """Make what it begins with, and give its params."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What lies under final names, and what the database knows: as before, or as it will be, each by itself."""
        raise NotImplementedError

    def check(self) -> None:
        """What holds between these, at any moment."""

    def signature(self) -> Any:
        """What changes as it goes on: all files, with their sizes."""
        found = {}
        for place, _, names in os.walk(self.folder):
            for name in names:
                try:
                    found[place, name] = os.lstat(os.path.join(place, name)).st_size
                except OSError:
                    continue
        return found

    def copy(self, name: str) -> Path:
        """A Measurement Set of its own."""
        return shutil.copytree(self.inputs.ms(name), self.folder / "a.ms")


# Visibilities ------------------------------------------------------------------------------------


class Ingest(Stage):
    """Four files of each recording, whose conversions nobody serves."""

    executor = "visibility.ingest"

    def prepare(self) -> dict[str, Any]:
        incoming = self.folder / "incoming"
        incoming.mkdir()
        for tile in range(TILES):
            for number in range(4):
                write_subband(incoming, number, tile, jitter_s=15 * number)
        self.client.create_queue("elsewhere")
        self.intake = f"{type(self).__name__}-{self.folder.name}"
        told = {"folder": str(incoming), "intake": self.intake, "out": str(self.folder / "ms")}
        return told | {"steady_s": 0, "subbands": 4, "queue": "elsewhere"}

    def groups(self) -> list[dict[str, Any]]:
        return sorted(self.client.list_subband_groups(self.intake), key=lambda each: int(each["id"]))

    def is_known(self) -> bool:
        """Whether there is its intake already."""
        return any(each["name"] == self.intake for each in self.client.list_intakes())

    def state(self) -> dict[str, Any]:
        """What became of each file, and how many conversions each recording has."""
        files, groups = (self.client.list_subbands(self.intake), self.groups()) if self.is_known() else ([], [])
        told: dict[str, Any] = dict.fromkeys(sorted(os.listdir(self.folder / "incoming")))
        told |= {Path(each["path"]).name: each["state"] for each in files}
        spawned = [datetime.fromisoformat(each["first_stamp"]) for each in groups if each["task_id"] is not None]
        for tile in range(TILES):
            stamp = name_of(0, tile).partition("_")[0]
            told[stamp] = sum(f"{each.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" == stamp for each in spawned)
        return told

    def signature(self) -> Any:
        if not self.is_known():
            return None
        return [len(self.client.list_subbands(self.intake)), [each["state"] for each in self.groups()]]

    def check(self) -> None:
        """A group has a conversion, and only one, from the moment on at which it is complete."""
        if self.signature() is None:
            return
        groups = self.groups()
        assert [each["task_id"] is not None for each in groups] == [each["state"] == "complete" for each in groups]
        if self.result is not None:
            assert [(each["state"], each["present"], each["round"]) for each in groups] == [
                ("complete", [0, 1, 2, 3], 1)
            ] * TILES
            assert len({each["task_id"] for each in groups}) == TILES


class Convert(Ingest):
    """A group of four sub-bands."""

    executor = "visibility.convert_group"

    def prepare(self) -> dict[str, Any]:
        run("visibility.ingest", super().prepare())
        group = self.groups()[0]
        self.group, self.out = group["id"], self.folder / "ms"
        params: dict[str, Any] = self.client.get_task(group["task_id"]).params
        return params

    def signature(self) -> Any:
        return Stage.signature(self)

    def state(self) -> dict[str, Any]:
        return {"ms": [content(each) for each in self.out.glob("[!.]*")]}

    def check(self) -> None:
        """The group is converted when its Measurement Set is there, not before."""
        (group,) = (each for each in self.groups() if each["id"] == self.group)
        if group["state"] == "converted":
            told = group["product"]
            assert [str(each) for each in self.out.iterdir()] == [told["path"]]
            assert (told["bytes"], told["checksum"]) == size_and_checksum(told["path"])
        if self.result is not None:
            assert group["state"] == "converted"


class Flag(Stage):
    """Flags in place, with their record."""

    executor = "visibility.flag"

    def prepare(self) -> dict[str, Any]:
        self.ms = self.copy("night")
        return {"ms": str(self.ms), "steps": {"edges": None}}

    def state(self) -> dict[str, Any]:
        return {"ms": (content(self.ms), record_of(self.ms))}

    def spoil(self) -> None:
        """Flag something by hand."""
        with table(str(self.ms), readonly=False, ack=False) as main:
            main.putcell("FLAG", 0, ~main.getcell("FLAG", 0))


class Restore(Flag):
    """Flags from before, in place."""

    executor = "visibility.restore_flags"

    def prepare(self) -> dict[str, Any]:
        self.ms = self.copy("flagged")
        return {"ms": str(self.ms), "version": 0}


class Foreign(Flag):
    """A Measurement Set of another one, in place of an older one with its flags and their record."""

    executor = "visibility.convert"

    def prepare(self) -> dict[str, Any]:
        self.ms = self.copy("flagged")
        return {"source": self.inputs.ms("night"), "ms": str(self.ms)}


# Calibration -------------------------------------------------------------------------------------


class Solve(Stage):
    """A gain set, stored and registered."""

    executor = "calibration.solve"

    def prepare(self) -> dict[str, Any]:
        self.cal = self.folder / "cal"
        return {"ms": self.inputs.ms("night"), "out": str(self.cal)} | SKY

    def sets(self) -> list[str]:
        return sorted(each.name for each in self.cal.glob("[!.]*"))

    def rows(self) -> list[dict[str, Any]]:
        return [each for each in self.client.list_gain_sets(limit=1000) if Path(each["path"]).parent == self.cal]

    def state(self) -> dict[str, Any]:
        stored = [(name, read_gains(self.cal / name).checksum) for name in self.sets()]
        return {"stored": stored, "rows": [(Path(each["path"]).name, each["state"]) for each in self.rows()]}

    def check(self) -> None:
        """No row is without its gains, and those are the ones that were registered."""
        for each in self.rows():
            read_gains(each["path"], checksum=each["checksum"])


class SelfCalibrate(Solve):
    """A gain set, stored and not registered."""

    executor = "calibration.self_calibrate"

    def prepare(self) -> dict[str, Any]:
        told = super().prepare()
        return told | {"rounds": [{"mode": "p", "solint": "30s"}, {"mode": "ap", "minsnr": 5}]}


class Apply(Stage):
    """Another Measurement Set, with corrected data."""

    executor = "calibration.apply"

    def prepare(self) -> dict[str, Any]:
        self.ms = self.folder / "b.ms"
        return {"ms": self.inputs.ms("night"), "out": str(self.ms), "sets": [self.inputs.gains]}

    def state(self) -> dict[str, Any]:
        return {"ms": content(self.ms)}


class ApplyInPlace(Apply):
    """A column more, with weights, flags and a keyword."""

    def prepare(self) -> dict[str, Any]:
        self.ms = self.copy("night")
        return {"ms": str(self.ms), "sets": [self.inputs.gains]}


# Quality -----------------------------------------------------------------------------------------


class Judge(Stage):
    """A candidate that passes."""

    executor = "qa.calibration"
    recording = "night"

    def prepare(self) -> dict[str, Any]:
        ms = self.inputs.ms(self.recording)
        seen = read_measurement_set(ms)
        gains = read_gains(self.inputs.gains)
        self.place = self.folder / "cal" / "night.gains"
        stored = write_gains(self.place, gains)
        self.number = self.client.register_gain_set(record(gains, stored, seen), "candidate")["id"]
        return {"ms": ms, "gain_set": self.number, "reports": str(self.folder / "reports")} | {
            "flux_jy": SKY["flux_jy"]
        }

    def row(self) -> Mapping[str, Any]:
        row = self.client.get_gain_set(self.number)
        assert row is not None
        return row

    def state(self) -> dict[str, Any]:
        report = self.folder / "reports" / "night.gains.quality.json"
        told = json.loads(report.read_text()) if report.exists() else {}
        return {
            "set": self.row()["state"],
            "report": (told.get("verdict"), json.dumps(told.get("measures"))),
            "stored": self.place.exists(),
            "quarantined": (self.place.parent / "quarantine" / "night.gains").exists(),
        }

    def check(self) -> None:
        """It is valid only with a report, and goes into quarantine only when nobody can choose it any more."""
        now = self.state()
        assert now["stored"] != now["quarantined"]
        assert now["set"] == "candidate" or now["report"][0] is not None
        if now["quarantined"]:
            assert now["set"] == "quarantined"
            read_gains(self.place.parent / "quarantine" / "night.gains", checksum=self.row()["checksum"])
            assert json.loads((self.place.parent / "quarantine" / "night.gains.reasons.json").read_text())["reasons"]


class Refuse(Judge):
    """A candidate for a recording of nothing."""

    recording = "noise"
    fails = "closure phases are not to be told from those of noise"


STAGES: dict[str, Callable[[Path, Inputs, SyncAbsurdClient], Stage]] = {
    "visibility.ingest": Ingest,
    "visibility.convert_group": Convert,
    "visibility.convert": Foreign,
    "visibility.flag": Flag,
    "visibility.restore_flags": Restore,
    "calibration.solve": Solve,
    "calibration.apply": Apply,
    "calibration.apply in place": ApplyInPlace,
    "calibration.self_calibrate": SelfCalibrate,
    "qa.calibration": Judge,
    "qa.calibration refuses": Refuse,
}


def content(ms: Path) -> dict[str, bytes] | None:
    """Columns of a Measurement Set, and by which gains it is corrected; None where there is none."""
    if not ms.exists():
        return None
    with table(str(ms), ack=False) as main:
        found = {name: main.getcol(name).tobytes() for name in COLUMNS if name in main.colnames()}
        return found | {"gains": str(main.getkeywords().get("ABSURD_GAINS")).encode()}


def record_of(ms: Path) -> list[tuple[int, str, bytes]]:
    """Versions of the record of flags, with their reasons."""
    kept = FlagRecord(ms)
    return [(each.number, each.step, kept.reasons(each.number).tobytes()) for each in kept.versions()]
