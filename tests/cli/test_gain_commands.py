"""``absurd pipeline gains``: gain sets listed, looked at, accepted, quarantined and forgotten."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gain_examples import make_gains

from absurd import SyncAbsurdClient
from absurd.tasks.calibration.gain_table import GainSet, read_gains, write_gains
from absurd.tasks.qa import put_into_quarantine

if TYPE_CHECKING:
    from cli.conftest import Run


@pytest.fixture
def sets(database_url: str) -> list[int]:
    """A valid set and a candidate of the same recording."""
    told: dict[str, Any] = {
        "telescope": "OVRO_MMA", "checksum": "0" * 64, "bytes": 9, "kinds": ["bandpass", "gain"], "source": "3C48",
        "ra": 24.4, "declination": 54.6, "strip": 1, "lowest_hz": 1.28e9, "highest_hz": 1.53e9,
        "observed_from": "2026-03-01T12:00Z", "observed_until": "2026-03-01T12:05Z",
        "valid_from": "2026-03-01T00:00Z", "valid_until": "2026-03-02T00:00Z",
        "quality": {"gain": {"snr": 21.5, "antennas": 96}},
    }  # fmt: skip
    with SyncAbsurdClient(database_url) as client:
        return [
            client.register_gain_set(told | {"path": "/cal/one"})["id"],
            client.register_gain_set(told | {"path": "/cal/two"}, "candidate")["id"],
        ]


def test_gain_sets_are_listed_and_looked_at(run: Run, sets: list[int]) -> None:
    """With state, source, declination and times; by state; and one with all that is known of it."""
    one, two = sets
    rows = [line.split()[:5] for line in run("pipeline", "gains", "list").out.splitlines()[1:]]
    assert rows == [
        [str(two), "candidate", "OVRO_MMA", "3C48", "+54.60"],
        [str(one), "valid", "OVRO_MMA", "3C48", "+54.60"],
    ]
    assert [each["path"] for each in run("pipeline", "gains", "list", "--state", "valid", "--json").document] == [
        "/cal/one"
    ]
    assert run("pipeline", "gains", "list", "--telescope", "VLA").out.startswith("There are no gain sets")

    shown = run("pipeline", "gains", "show", str(one)).out
    assert "3C48, seen by OVRO_MMA at declination +54.600" in shown
    assert "1280.000 to 1530.000 MHz" in shown
    assert "snr 21.5, antennas 96" in shown
    assert run("pipeline", "gains", "show", str(one), "--json").document["path"] == "/cal/one"
    absent = run("pipeline", "gains", "show", "77")
    assert (absent.code, "there is no gain set 77" in absent.err) == (3, True)


def test_gain_sets_are_accepted_quarantined_and_forgotten(run: Run, sets: list[int]) -> None:
    """A conflict is told by its exit code, and what changes it."""
    one, two = map(str, sets)
    assert run("pipeline", "gains", "accept", two).out == f"Gain set {two} is valid.\n"
    assert run("pipeline", "gains", "accept", one).out == f"Gain set {one} is superseded; --again changes it.\n"
    assert run("pipeline", "gains", "accept", one, "--again", "--json").document == {
        "gain_set": int(one),
        "state": "valid",
        "released_from": None,
    }
    assert f"superseded by {one}" in run("pipeline", "gains", "show", two).out
    quarantined = run("pipeline", "gains", "quarantine", one, "--reason", "swapped antennas")
    assert quarantined.out == f"Gain set {one} is quarantined.\n"
    assert "quarantined before" in run("pipeline", "gains", "quarantine", one, "--reason", "else").out
    assert "quarantined: swapped antennas" in run("pipeline", "gains", "show", one).out
    refused = run("pipeline", "gains", "accept", one)
    assert (refused.code, "swapped antennas" in refused.err) == (5, True)
    assert run("pipeline", "gains", "forget", one).out == f"Gain set {one} is forgotten.\n"
    assert run("pipeline", "gains", "forget", one).code == 3


def test_a_set_that_is_accepted_again_comes_out_of_quarantine(
    run: Run, sets: list[int], database_url: str, tmp_path: Path
) -> None:
    """Before its row is valid, and only with what was registered: a folder that is gone or another stays refused."""
    stored = write_gains(tmp_path / "night.gains", GainSet((make_gains(),)))
    with SyncAbsurdClient(database_url) as client:
        row = client.get_gain_set(sets[0])
        assert row is not None
        names = ("telescope", "kinds", "source", "declination", "strip", "lowest_hz", "highest_hz")
        times = ("observed_from", "observed_until", "valid_from", "valid_until")
        told = {name: row[name] for name in (*names, *times)}
        told |= {"path": stored.path, "checksum": stored.checksum, "bytes": stored.bytes}
        number = client.register_gain_set(told)["id"]
        client.quarantine_gain_set(number, "noise")
        place = put_into_quarantine(stored.path, {"reasons": ["noise"]})
        away = place.rename(tmp_path / "away")

        refused = run("pipeline", "gains", "accept", str(number), "--again")
        assert "nor in quarantine" in refused.err
        write_gains(place, GainSet((make_gains(seed=9),)))
        refused = run("pipeline", "gains", "accept", str(number), "--again")
        assert "not those that were registered" in refused.err
        assert (client.get_gain_set(number) or {})["state"] == "quarantined"
        assert not Path(stored.path).exists()
        shutil.rmtree(place)
        away.rename(place)

        accepted = run("pipeline", "gains", "accept", str(number), "--again", "--json").document

        assert accepted == {"gain_set": number, "state": "valid", "released_from": str(place)}
        read_gains(stored.path, checksum=stored.checksum)
