"""A Measurement Set is corrected by blocks of rows: with their memory, and to the bits of all rows at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gain_examples import T0, make_gains, make_visibilities

from absurd.tasks.calibration.correct import correct
from absurd.tasks.calibration.gain_table import GainSet, write_gains
from absurd.tasks.calibration.params import ApplyParams
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.measurement_set_files import size_and_checksum

BLOCK = "absurd.tasks.visibility.measurement_set_blocks.BLOCK_BYTES"
BYTES = 1 << 17
"""Of a block: 128 rows of 64 channels and two correlations."""
OF_FILES = {"path", "bytes", "checksum"}
"""What a result tells of the files, in which casacore leaves a few bytes unset."""
COLUMNS = ("DATA", "CORRECTED_DATA", "FLAG", "WEIGHT_SPECTRUM", "WEIGHT", "SIGMA", "FLAG_ROW")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,640 rows (more than twenty blocks) at 40 times, in no order of time, some of them flagged."""
    times = np.asarray(T0 + 10.0 * np.random.default_rng(5).permutation(40), np.float64)
    seen = make_visibilities(antennas=11, channels=64, times=times, correlations=("XX", "YY"), flagged=0.05)
    write_measurement_set(seen, folder := tmp_path_factory.mktemp("recording") / "a.ms")
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two sets: one without an antenna, and with solutions that are flagged."""
    place = tmp_path_factory.mktemp("gains")
    made = []
    for name, antennas in (("one", 10), ("other", 11)):
        bandpass = make_gains("bandpass", antennas=antennas, channels=64, times=1, flagged=0.05)
        gains = GainSet((bandpass, make_gains(antennas=antennas, times=5, flagged=0.1)), {"name": name})
        made.append(write_gains(place / f"{name}.gains", gains).path)
    return made


def run(ms: Path, sets: list[str], out: Path | None = None, **params: Any) -> dict[str, Any]:
    told = ApplyParams(ms=str(ms), out=None if out is None else str(out), sets=sets, **params)
    return correct(told, lambda *_: [], lambda _: None, lambda *_: None)


def columns(ms: Path) -> dict[str, bytes]:
    from casacore.tables import table

    with table(str(ms), ack=False) as main:
        return {name: main.getcol(name).tobytes() for name in COLUMNS if name in main.colnames()}


@pytest.mark.parametrize("missing", ["flag", "leave"])
@pytest.mark.parametrize("in_place", [True, False])
def test_blocks_give_the_bits_of_the_whole(
    recording: Path, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool, missing: str
) -> None:
    """As another Measurement Set and in place, once and by other gains then; and they tell the same."""
    results, found = [], []
    for name, size in (("whole", 1 << 40), ("blocks", BYTES)):
        monkeypatch.setattr(BLOCK, size)
        if in_place:
            write_measurement_set(read_measurement_set(recording), place := tmp_path / name)
            told = [run(place, [each], missing=missing) for each in sets]
        else:
            told = [run(recording, sets[:1], place := tmp_path / name, missing=missing)]
        assert (told[-1]["bytes"], told[-1]["checksum"]) == size_and_checksum(place)
        results.append([{key: value for key, value in each.items() if key not in OF_FILES} for each in told])
        found.append(columns(place))

    assert results[0] == results[1]
    assert results[0][0]["antennas_missing"] == ["pad010"]
    assert 0 < results[0][0]["without_gains"] < results[0][0]["usable"]
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


@pytest.mark.parametrize("in_place", [True, False])
def test_memory_is_that_of_blocks(
    recording: Path, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    """Bytes that arrays take at most: those of a few blocks, where all rows at once take several times their data."""
    seen = read_measurement_set(recording)
    data = seen.data.nbytes
    most = {}
    for name, size in (("compiled", 1 << 40), ("whole", 1 << 40), ("blocks", BYTES)):
        write_measurement_set(seen, place := tmp_path / name)
        monkeypatch.setattr(BLOCK, size)
        tracemalloc.start()
        try:
            run(place, sets[1:], None if in_place else tmp_path / f"{name}.ms")
            most[name] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert most["whole"] > 2 * data
    # Once a row 64 bytes, and what they are made from; a block is read, corrected and written.
    assert most["blocks"] < 8 * BYTES + 3 * 64 * len(seen.data) + (1 << 19), (most, data)
    assert most["blocks"] < data
