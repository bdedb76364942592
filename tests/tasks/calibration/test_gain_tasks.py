"""calibration.solve and calibration.apply: gains that are stored, registered, chosen, refused and applied."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gain_examples import T0, observe
from house import ROOT
from single_run import fail, run

from absurd import SyncAbsurdClient
from absurd.tasks.calibration.apply import apply_gains
from absurd.tasks.calibration.casa_table import read_casa_table
from absurd.tasks.calibration.correct import applied_to
from absurd.tasks.calibration.gain_table import read_gains
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.measurement_set_files import size_and_checksum

HOUR = 3600.0
FLUX = 12.0
HOWS = ((2.0, "pad001"), (3.0, "pad002"))
"""Settings of two solutions of one recording: least signal to noise, reference antenna."""
SOLVE = {"flux_jy": FLUX, "beam": "none", "bcal": {"minblperant": 2}, "register_as": "valid"}


@pytest.fixture
def client(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncAbsurdClient]:
    """Of the database that the tasks use, too."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    with SyncAbsurdClient(database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of one telescope with the same gains: a calibrator, and others hours later and in another strip."""
    folder = tmp_path_factory.mktemp("recordings")
    made = {}
    for name, hours, declination in (
        ("calibrator", 0, 54.6),
        ("later", 3, 54.9),
        ("evening", 8, 54.6),
        ("tomorrow", 30, 54.6),
        ("south", 1, 16.1),
    ):
        made[name] = folder / f"{name}.ms"
        write_measurement_set(observe(T0 + hours * HOUR, declination, flux_jy=FLUX), made[name])
    return made


def solve(recordings: dict[str, Path], out: Path, name: str = "calibrator", **params: Any) -> dict[str, Any]:
    result, _ = run("calibration.solve", {"ms": str(recordings[name]), "out": str(out)} | SOLVE | params)
    return result


def apply(recordings: dict[str, Path], name: str, out: Path, **params: Any) -> dict[str, Any]:
    result, _ = run("calibration.apply", {"ms": str(recordings[name]), "out": str(out)} | params)
    return result


def refused(recordings: dict[str, Path], name: str, out: Path, **params: Any) -> dict[str, Any]:
    return fail("calibration.apply", {"ms": str(recordings[name]), "out": str(out)} | params)


def content(folder: str | Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def test_solved_registered_and_applied(client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path) -> None:
    """The source comes out with its flux and no phase, in the calibrator's recording and one three hours later."""
    solved = solve(recordings, tmp_path / "cal", casa_tables=True)

    row = client.get_gain_set(solved["gain_set"])
    assert row is not None
    assert (row["state"], row["path"], row["checksum"]) == ("valid", solved["path"], solved["checksum"])
    assert (row["telescope"], row["declination"], row["kinds"]) == ("OVRO_MMA", 54.6, ["bandpass", "gain"])
    assert row["provenance"]["sky"]["jy"] == {"3C48": FLUX}
    kept = read_gains(solved["path"], checksum=solved["checksum"])
    assert [each.source for each in kept.tables] == ["3C48", "3C48"]
    for path, gains in zip(solved["casa_tables"], kept.tables, strict=True):
        assert np.allclose(read_casa_table(path).tables[0].values[~gains.flags], gains.values[~gains.flags], rtol=1e-6)

    for name, hours in (("calibrator", 0), ("later", 3)):
        done = apply(recordings, name, tmp_path / f"{name}.ms")

        (used,) = done["gains"]
        assert (used["gain_set"], used["grade"], used["borrowed"]) == (solved["gain_set"], "fresh", False)
        assert used["age_hours"] == pytest.approx(hours, abs=1e-3)
        assert (done["without_gains"], done["outside_validity"], done["antennas_missing"]) == (0, 0, [])
        assert (done["bytes"], done["checksum"]) == size_and_checksum(tmp_path / f"{name}.ms")
        before, after = read_measurement_set(recordings[name]), read_measurement_set(done["path"])
        parallel = [after.correlations.index(each) for each in ("XX", "YY")]
        usable = ~after.flags[..., parallel] & ~after.is_auto[:, None, None]
        seen = after.data[..., parallel][usable]
        assert abs(seen.mean() - FLUX) < 0.02 * FLUX
        assert np.angle(seen).std() < 0.1
        expected = apply_gains(before, *kept.tables).visibilities
        assert np.array_equal(after.data, expected.data)
        assert np.array_equal(after.flags, expected.flags)
        assert np.allclose(after.weights, expected.weights)


def test_a_task_that_runs_again_changes_nothing(
    client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path
) -> None:
    """The same path, bits and row, also of a set that was quarantined meanwhile; corrected data are the same, too."""
    first = solve(recordings, tmp_path / "cal")
    bits = content(first["path"])

    again = solve(recordings, tmp_path / "cal")

    assert again == first
    assert content(first["path"]) == bits
    assert os.listdir(tmp_path / "cal") == [Path(first["path"]).name]
    applied = [content(apply(recordings, "later", tmp_path / f"{n}.ms")["path"]) for n in range(2)]
    one, other = (read_measurement_set(tmp_path / f"{n}.ms") for n in range(2))
    assert len(applied[0]) == len(applied[1])
    assert one.data.tobytes() == other.data.tobytes()
    client.quarantine_gain_set(first["gain_set"], "noise")
    assert solve(recordings, tmp_path / "cal")["state"] == "quarantined"
    assert len(client.list_gain_sets()) == 1


def test_an_old_calibration_and_another_strip_are_refused(
    client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path
) -> None:
    """With the age in hours and the distance in degrees, chosen or named; borrowed only on demand, and told."""
    number = solve(recordings, tmp_path / "cal")["gain_set"]

    for named in ({}, {"gain_set": number}):
        old = refused(recordings, "tomorrow", tmp_path / "x.ms", **named)
        assert old["code"] == "calibration_failed"
        assert "no gain set holds for OVRO_MMA at" in old["message"]
        assert "30.0 h and 0.00 degrees away: it is 30.0 h old (critical) and holds from" in old["message"]
        south = refused(recordings, "south", tmp_path / "x.ms", **named)
        assert "1.0 h and 38.50 degrees away: its declination +54.60 is 38.50 degrees from +16.10" in south["message"]
    assert not (tmp_path / "x.ms").exists()

    borrowed = apply(recordings, "tomorrow", tmp_path / "borrowed.ms", borrow=True)

    (used,) = borrowed["gains"]
    assert (used["borrowed"], used["grade"], used["age_hours"]) == (True, "critical", pytest.approx(30, abs=1e-3))
    assert "borrow" not in refused(recordings, "south", tmp_path / "x.ms", borrow=True)["code"]
    assert "5 are allowed" in refused(recordings, "south", tmp_path / "x.ms", borrow=True)["message"]
    from casacore.tables import table

    with table(borrowed["path"], ack=False) as opened:
        kept = json.loads(opened.getkeyword("ABSURD_GAINS"))
    assert (kept["gains"], kept["data"]) == (borrowed["gains"], "corrected")


def test_limits_may_be_others(client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path) -> None:
    """Of the set as it is registered, or of who applies it; sets of other folders are not looked at."""
    solve(recordings, tmp_path / "cal", validity_hours=48, declination_tolerance_deg=0.2)

    assert apply(recordings, "tomorrow", tmp_path / "a.ms")["gains"][0]["grade"] == "critical"
    assert "0.2 are allowed" in refused(recordings, "later", tmp_path / "x.ms")["message"]
    assert apply(recordings, "later", tmp_path / "b.ms", declination_tolerance_deg=0.5)["without_gains"] == 0
    assert "holds from" in refused(recordings, "tomorrow", tmp_path / "x.ms", validity_hours=6)["message"]
    elsewhere = refused(recordings, "calibrator", tmp_path / "x.ms", gains=str(tmp_path / "other"))
    assert "there is no valid gain set" in elsewhere["message"]
    assert apply(recordings, "calibrator", tmp_path / "c.ms", gains=str(tmp_path / "cal"))["without_gains"] == 0


def test_the_result_is_what_the_database_has(
    client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path
) -> None:
    """Solved again to hold for longer it is the same set, which holds for longer; unless it is quarantined."""
    first = solve(recordings, tmp_path / "cal")

    longer = solve(recordings, tmp_path / "cal", validity_hours=48, declination_tolerance_deg=3)

    assert (longer["gain_set"], longer["strip"]) == (first["gain_set"], 3)
    row = client.get_gain_set(first["gain_set"])
    assert row is not None
    assert [longer[name] for name in ("valid_from", "valid_until")] == [row["valid_from"], row["valid_until"]]
    assert longer["valid_until"] > first["valid_until"]
    assert apply(recordings, "tomorrow", tmp_path / "a.ms")["gains"][0]["gain_set"] == first["gain_set"]
    client.quarantine_gain_set(first["gain_set"], "noise")
    again = solve(recordings, tmp_path / "cal")
    assert (again["state"], again["valid_until"], again["strip"]) == ("quarantined", longer["valid_until"], 3)


def test_what_is_not_valid_is_never_applied(
    client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path
) -> None:
    """A candidate, which it is without a word, waits for its gates; a quarantined set is never applied."""
    params = {name: value for name, value in SOLVE.items() if name != "register_as"}
    result, _ = run("calibration.solve", params | {"ms": str(recordings["calibrator"]), "out": str(tmp_path / "cal")})
    number = result["gain_set"]
    for asked in ({}, {"gain_set": number}):
        said = refused(recordings, "calibrator", tmp_path / "x.ms", **asked)["message"]
        assert ("there is no valid gain set" in said) == (not asked)
        assert f"absurd pipeline gains accept {number}" in said
    assert "accept" not in refused(recordings, "tomorrow", tmp_path / "x.ms")["message"], "it would not hold"
    elsewhere = {"gains": str(tmp_path / "other")}
    assert "accept" not in refused(recordings, "calibrator", tmp_path / "x.ms", **elsewhere)["message"]
    assert client.accept_gain_set(number) == "valid"
    assert apply(recordings, "calibrator", tmp_path / "a.ms")["gains"][0]["gain_set"] == number

    client.quarantine_gain_set(number, "noise")

    for asked in ({}, {"borrow": True}):
        assert "there is no valid gain set" in refused(recordings, "calibrator", tmp_path / "x.ms", **asked)["message"]
    named = refused(recordings, "calibrator", tmp_path / "x.ms", gain_set=number, borrow=True)
    assert f"gain set {number} is quarantined" in named["message"]


def test_gains_between_two_recordings(client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path) -> None:
    """With both sides the gains before and after are joined; the nearest is told first."""
    one = solve(recordings, tmp_path / "cal")["gain_set"]
    two = solve(recordings, tmp_path / "cal", "evening")["gain_set"]

    both = apply(recordings, "later", tmp_path / "both.ms", both_sides=True)
    near = apply(recordings, "later", tmp_path / "near.ms")

    assert [each["gain_set"] for each in both["gains"]] == [one, two]
    assert [each["gain_set"] for each in near["gains"]] == [one]
    seen = read_measurement_set(both["path"])
    parallel = seen.data[~seen.is_auto][..., 0][~seen.flags[~seen.is_auto][..., 0]]
    assert abs(parallel.mean() - FLUX) < 0.02 * FLUX


def test_corrected_in_place(client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path) -> None:
    """CORRECTED_DATA beside DATA, with weights and flags; again is no change, and other gains go from DATA anew."""
    ms = tmp_path / "a.ms"
    raw = read_measurement_set(recordings["later"])
    write_measurement_set(raw, ms)
    solved = [solve(recordings, tmp_path / "cal", gcal={"minsnr": minsnr, "refant": [ant]}) for minsnr, ant in HOWS]

    results = []
    for each in (solved[0], solved[0], solved[1], solved[0]):
        done, _ = run("calibration.apply", {"ms": str(ms), "sets": [each["path"]]})
        results.append(done["changed"])
        assert (done["bytes"], done["checksum"]) == size_and_checksum(ms)
        data, corrected = (read_measurement_set(ms, column=name) for name in ("DATA", "CORRECTED_DATA"))
        expected = apply_gains(raw, *read_gains(each["path"]).tables).visibilities
        assert np.array_equal(data.data, raw.data)
        assert np.array_equal(corrected.data, expected.data)
        assert np.allclose(corrected.weights, expected.weights, rtol=1e-6)
        assert not (expected.flags & ~corrected.flags).any()
        assert applied_to(ms) == {key: done[key] for key in applied_to(ms) or ()}
    assert results == [True, False, True, True]
    copy, _ = run("calibration.apply", {"ms": str(ms), "out": str(tmp_path / "b.ms"), "sets": [solved[1]["path"]]})
    assert np.allclose(
        read_measurement_set(copy["path"]).weights,
        apply_gains(raw, *read_gains(solved[1]["path"]).tables).visibilities.weights,
        rtol=1e-6,
    )
    assert (
        "corrected data already"
        in fail("calibration.apply", {"ms": copy["path"], "sets": [solved[0]["path"]]})["message"]
    )
    os.rename(solved[0]["path"], tmp_path / "away")
    assert (
        "cannot be read any more" in fail("calibration.apply", {"ms": str(ms), "sets": [solved[1]["path"]]})["message"]
    )
    assert "a part of" in fail("calibration.apply", {"ms": str(ms), "fields": [0]})["message"]


def test_sets_by_their_folders(recordings: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database: neither to solve nor to apply; who names a folder answers for it."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    solved = solve(recordings, tmp_path / "cal", register_as="none")

    done = apply(recordings, "south", tmp_path / "a.ms", sets=[solved["path"]])

    assert "gain_set" not in solved
    assert done["gains"] == [{"path": solved["path"], "checksum": solved["checksum"], "borrowed": False}]
    assert (done["joined"], done["valid_s"]) == (False, None)


def test_gains_that_are_gone_or_changed_are_not_applied(
    client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path
) -> None:
    """The row remains; the folder is missing, or holds something else than what was registered."""
    first = solve(recordings, tmp_path / "cal")
    other = solve(recordings, tmp_path / "other", "later", register_as="none")
    os.rename(first["path"], tmp_path / "away")
    assert "there are no gains in" in refused(recordings, "calibrator", tmp_path / "x.ms")["message"]
    os.rename(other["path"], first["path"])
    assert "not those that were registered" in refused(recordings, "calibrator", tmp_path / "x.ms")["message"]


def test_what_cannot_be_calibrated_fails_with_the_reason(
    client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path
) -> None:
    """All flagged, no numbers, no sky; corrections in place, and sets for other antennas. Nothing is left of it."""
    good = read_measurement_set(recordings["calibrator"])
    write_measurement_set(good.with_(flags=np.ones_like(good.flags)), tmp_path / "flagged.ms")
    write_measurement_set(good.with_(data=np.full_like(good.data, np.nan)), tmp_path / "nan.ms")
    for name in ("flagged", "nan"):
        told = fail("calibration.solve", {"ms": str(tmp_path / f"{name}.ms"), "out": str(tmp_path / "cal")} | SOLVE)
        assert told["code"] == "calibration_failed", told
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"flux_jy": None}, "no calibrator is within"),
        ({"flux_jy": None, "calibrator": "3C999"}, "3C999"),
        ({"flux_jy": None, "sky_model": str(tmp_path / "absent.json")}, "cannot be read"),
        ({"ms": str(tmp_path / "absent.ms")}, "absent.ms"),
        ({"calibrator": "3C48"}, "exclude one another"),
        ({"gcal": {"solint": "soon"}}, "duration"),
    ]
    for change, said in wrong:
        params = {"ms": str(recordings["calibrator"]), "out": str(tmp_path / "cal")} | SOLVE | change
        assert said in fail("calibration.solve", params)["message"]
    assert client.list_gain_sets() == []
    assert not (tmp_path / "cal").exists()

    solved = solve(recordings, tmp_path / "cal", register_as="none")
    assert (
        "both read and written" in refused(recordings, "later", recordings["later"], sets=[solved["path"]])["message"]
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    assert "holds something else" in refused(recordings, "later", tmp_path / "mine", sets=[solved["path"]])["message"]
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["notes"]
    strange = read_measurement_set(recordings["later"])
    named = tuple(f"other{n}" for n in range(len(strange.array.names)))
    object.__setattr__(strange.array, "names", named)
    write_measurement_set(strange, tmp_path / "strange.ms")
    told = fail(
        "calibration.apply",
        {"ms": str(tmp_path / "strange.ms"), "out": str(tmp_path / "x.ms"), "sets": [solved["path"]]},
    )
    assert "none of" in told["message"]
    assert "has gains" in told["message"]


def test_a_wrong_reference_antenna_is_told(recordings: dict[str, Path], tmp_path: Path) -> None:
    """Another takes its place: the first of the next ones that is there."""
    params: dict[str, Any] = {
        "gcal": {"refant": ["pad999", "pad003"]},
        "bcal": {"minblperant": 2, "refant": ["pad003"]},
    }

    solved = solve(recordings, tmp_path, register_as="none", **params)

    assert "gain: reference antenna pad999 is no antenna here; pad003 is it" in solved["warnings"]
    assert set(read_gains(solved["path"]).tables[1].reference) == {"pad003"}


def test_two_solves_that_race_leave_one_valid_set(
    client: SyncAbsurdClient, recordings: dict[str, Path], tmp_path: Path
) -> None:
    """Of the same recording with different settings, at once: one valid, the other superseded by it."""
    results: list[Any] = []

    def race(minsnr: float) -> None:
        try:
            results.append(solve(recordings, tmp_path / "cal", gcal={"minsnr": minsnr}))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=race, args=(minsnr,)) for minsnr in (2.0, 3.0)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert [each for each in results if isinstance(each, BaseException)] == []
    rows = {each["id"]: each for each in client.list_gain_sets()}
    assert sorted(each["state"] for each in rows.values()) == ["superseded", "valid"]
    (valid,) = (each for each in rows.values() if each["state"] == "valid")
    (other,) = (each for each in rows.values() if each["state"] == "superseded")
    assert other["superseded_by"] == valid["id"] == max(rows)
    for row in rows.values():
        read_gains(row["path"], checksum=row["checksum"])


SOLVER = """
import json, sys
from single_run import run
print("ready", flush=True)
sys.stdin.readline()
result, _ = run("calibration.solve", json.loads(sys.argv[1]))
print(json.dumps(result), flush=True)
"""


def test_killed_at_any_time_no_row_is_without_its_gains(
    client: SyncAbsurdClient, database_url: str, recordings: dict[str, Path], tmp_path: Path
) -> None:
    """Kill -9 before, while and after the set is stored and registered; run again it is the same, once."""
    seed = int(time.time())
    print(f"seed {seed}")
    chance = random.Random(seed)
    out = tmp_path / "cal"
    params = {"ms": str(recordings["calibrator"]), "out": str(out)} | SOLVE
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
    many = chance.randint(1, 20)
    moments: dict[str, Callable[[], bool]] = {
        "begun": lambda: True,
        "storing": lambda: any(".part" in each for each in os.listdir(out)) if out.exists() else False,
        "half": lambda: sum(len(names) for place, _, names in os.walk(out) if ".part" in place) >= many,
        "stored": lambda: any(each.endswith(".gains") for each in os.listdir(out)) if out.exists() else False,
        "registered": lambda: bool(client.list_gain_sets()),
    }

    def process() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SOLVER, json.dumps(params)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def go(started: subprocess.Popen[str]) -> None:
        assert started.stdin is not None
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        started.stdin.write("\n")
        started.stdin.flush()

    for name in chance.sample(list(moments), 3):
        with process() as started:
            go(started)
            while started.poll() is None and not moments[name]():
                pass
            started.send_signal(signal.SIGKILL)
        for row in client.list_gain_sets():
            read_gains(row["path"], checksum=row["checksum"])
        for each in os.listdir(out) if out.exists() else []:
            if not each.startswith("."):
                read_gains(out / each)
    result = solve(recordings, out)
    assert [each["id"] for each in client.list_gain_sets()] == [result["gain_set"]]
    assert solve(recordings, tmp_path / "again", register_as="none")["checksum"] == result["checksum"]
    assert [each for each in os.listdir(out) if not each.startswith(".")] == [Path(result["path"]).name]
