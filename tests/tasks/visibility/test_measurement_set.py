"""Measurement Sets: what is written is read again, whole or not at all, and what cannot be meant is refused."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from casacore import tables
from recordings import Recording

from absurd.tasks.radio.errors import DataError, StageError, ValidationError
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.uvh5 import read_subband
from absurd.tasks.visibility.visibilities import Visibilities

ROWS = {
    "ANTENNA": 5, "DATA_DESCRIPTION": 1, "FEED": 5, "FIELD": 2, "FLAG_CMD": 0, "HISTORY": 2, "OBSERVATION": 1,
    "POINTING": 0, "POLARIZATION": 1, "PROCESSOR": 1, "SPECTRAL_WINDOW": 1, "STATE": 1, "SOURCE": 2,
}  # fmt: skip
"""Of the tables beside the rows."""
BY_ROWS = ("data", "flags", "weights", "uvw_m", "time_s", "exposure_s", "antenna1", "antenna2", "field", "scan")


@pytest.fixture
def visibilities(tmp_path: Path) -> Visibilities:
    """Three integrations of five antennas, with flags and weights."""
    found = read_subband(Recording(integrations=2).write_subband(tmp_path / "one.hdf5", 0))
    random = np.random.default_rng(7)
    print("seed 7")
    return found.with_(
        flags=random.random(found.flags.shape) < 0.1,
        weights=random.random(found.weights.shape).astype(np.float32),
        scan=np.arange(len(found.time_s), dtype=np.int32) // 15 + 1,
        history=("made", "and changed"),
    )


def test_all_is_read_again(visibilities: Visibilities, tmp_path: Path) -> None:
    """Every field comes back, and so do a model and corrected visibilities."""
    model, corrected = visibilities.data * 2, visibilities.data - 1j

    write_measurement_set(visibilities, tmp_path / "out.ms", model=model, corrected=corrected)

    found = read_measurement_set(tmp_path / "out.ms")
    for name in visibilities.__dataclass_fields__:
        expected, here = getattr(visibilities, name), getattr(found, name)
        if isinstance(expected, np.ndarray):
            assert np.array_equal(here, expected), name
        elif name != "array":
            assert here == expected, name
    assert found.array.names == visibilities.array.names
    assert found.array.telescope == "OVRO_MMA"
    assert np.array_equal(read_measurement_set(tmp_path / "out.ms", column="MODEL_DATA").data, model)
    assert np.array_equal(read_measurement_set(tmp_path / "out.ms", column="CORRECTED_DATA").data, corrected)


def test_what_other_programs_look_for(visibilities: Visibilities, tmp_path: Path) -> None:
    """All tables that are required, their rows, what is told once a row, and the keywords of columns."""
    path = str(tmp_path / "out.ms")
    write_measurement_set(visibilities, path, model=visibilities.data)

    with tables.table(path, ack=False) as main:
        names = main.getkeywords()
        weight, sigma, flags = main.getcol("WEIGHT"), main.getcol("SIGMA"), main.getcol("FLAG")
        assert np.array_equal(main.getcol("FLAG_ROW"), flags.all(axis=(1, 2)))
        assert main.getcolkeyword("UVW", "QuantumUnits") == ["m", "m", "m"]
        assert main.getcolkeyword("TIME", "MEASINFO")["Ref"] == "UTC"
        assert np.array_equal(main.getcolkeyword("MODEL_DATA", "CHANNEL_SELECTION"), [[0, 4]])
        assert tables.tableinfo(path)["type"] == "Measurement Set"
    assert {*ROWS, "MS_VERSION"} <= names.keys()
    expected = np.where(visibilities.flags, 0, visibilities.weights).sum(axis=1) / (~visibilities.flags).sum(axis=1)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    np.testing.assert_allclose(sigma, weight**-0.5, rtol=1e-6)
    rows = {}
    for name in ROWS:
        with tables.table(f"{path}/{name}", ack=False) as table:
            rows[name] = table.nrows()
            for column in table.colnames():  # each cell that has a value can be read
                for row in range(table.nrows()):
                    if table.iscelldefined(column, row):
                        table.getcell(column, row)
    assert rows == ROWS


def test_fields_by_number_and_name(visibilities: Visibilities, tmp_path: Path) -> None:
    """Only their rows come, with the numbers that the fields have."""
    write_measurement_set(visibilities, tmp_path / "out.ms")

    second = read_measurement_set(tmp_path / "out.ms", fields=[1])
    first = read_measurement_set(tmp_path / "out.ms", fields=["meridian_icrs_t0"])

    assert np.array_equal(second.data, visibilities.data[15:])
    assert np.unique(second.field).tolist() == [1]
    assert np.array_equal(first.time_s, visibilities.time_s[:15])
    with pytest.raises(ValidationError, match=r"no field 'mars'; it has meridian_icrs_t0, meridian_icrs_t1"):
        read_measurement_set(tmp_path / "out.ms", fields=["mars"])


def test_several_spectral_windows(visibilities: Visibilities, tmp_path: Path) -> None:
    """One has to be named; one whose channels descend comes by ascending frequency."""
    path = str(tmp_path / "out.ms")
    write_measurement_set(visibilities, path)
    with tables.table(f"{path}/SPECTRAL_WINDOW", readonly=False, ack=False) as table:
        table.addrows(1)
        for column in ("NUM_CHAN", "CHAN_FREQ", "CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"):
            table.putcell(column, 1, table.getcell(column, 0))
        table.putcell("CHAN_FREQ", 1, table.getcell("CHAN_FREQ", 0)[::-1] + 1e9)
    with tables.table(f"{path}/DATA_DESCRIPTION", readonly=False, ack=False) as table:
        table.addrows(1)
        table.putcell("SPECTRAL_WINDOW_ID", 1, 1)
    with tables.table(path, readonly=False, ack=False) as main:
        main.putcol("DATA_DESC_ID", np.arange(30, dtype=np.int32) % 2)

    with pytest.raises(DataError, match=r"several spectral windows: 0 \(4 channels from 1\.3\d+ GHz\), 1 .*name one"):
        read_measurement_set(path)
    with pytest.raises(ValidationError, match=r"no rows of spectral window 2; it has 0"):
        read_measurement_set(path, spectral_window=2)
    second = read_measurement_set(path, spectral_window=1)
    assert np.all(np.diff(second.frequencies_hz) > 0)
    assert second.frequencies_hz[0] == pytest.approx(visibilities.frequencies_hz[0] + 1e9)
    assert np.array_equal(second.data, visibilities.data[1::2, ::-1])
    assert np.array_equal(second.weights, visibilities.weights[1::2, ::-1])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda main: main.removecols("WEIGHT_SPECTRUM"), None),
        (lambda main: main.putcol("FLAG_ROW", np.ones(30, np.bool_)), None),
        (lambda main: main.putcolkeyword("TIME", "MEASINFO", {"type": "epoch", "Ref": "TAI"}), None),
        (lambda main: main.putcolkeyword("TIME", "MEASINFO", {"type": "epoch", "Ref": "LAST"}), "times are in LAST"),
        (lambda main: main.putcol("DATA_DESC_ID", np.full(30, 3, np.int32)), "descriptions that are not there"),
    ],
    ids=["weights of rows", "rows flagged", "TAI", "sidereal", "no description"],
)
def test_sets_that_are_unlike_ours(
    visibilities: Visibilities, tmp_path: Path, spoil: Callable[[Any], None], said: str | None
) -> None:
    """Are read as what they mean, or refused with the reason."""
    path = str(tmp_path / "out.ms")
    write_measurement_set(visibilities, path)
    with tables.table(path, readonly=False, ack=False) as main:
        spoil(main)

    if said:
        with pytest.raises(DataError, match=said):
            read_measurement_set(path)
        return
    found = read_measurement_set(path)

    assert found.weights.shape == found.data.shape
    assert found.flags.all() == (found.flags.mean() > 0.5)
    assert found.time_s[0] - visibilities.time_s[0] in {0.0, -37.0}


def test_no_rows(visibilities: Visibilities, tmp_path: Path) -> None:
    """None are written, and read, as none."""
    empty = visibilities.with_(**{name: getattr(visibilities, name)[:0] for name in BY_ROWS})

    write_measurement_set(empty, tmp_path / "out.ms")

    assert read_measurement_set(tmp_path / "out.ms").data.shape == (0, 4, 2)


def test_what_is_no_measurement_set(tmp_path: Path) -> None:
    """A path that is not there, a folder, a file; a column that there is not."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for name, said in (("none", "is not there"), (".", "is no Measurement Set"), ("file", "is no Measurement Set")):
        with pytest.raises(DataError, match=said):
            read_measurement_set(tmp_path / name)


def test_nothing_but_a_measurement_set_is_replaced(visibilities: Visibilities, tmp_path: Path) -> None:
    """A folder of files, and a table of another kind, are refused and stay as they are; an empty folder may go."""
    (tmp_path / "night").mkdir()
    (tmp_path / "night" / "notes").write_text("mine", encoding="utf-8")
    tables.table(str(tmp_path / "other"), tables.maketabdesc([tables.makescacoldesc("A", 0)]), ack=False).close()
    (tmp_path / "empty").mkdir()
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}

    for name in ("night", "other"):
        with pytest.raises(ValidationError, match=f"{name} holds something else, and is not replaced by a Measurement"):
            write_measurement_set(visibilities, tmp_path / name)
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before
    for _ in range(2):
        write_measurement_set(visibilities, tmp_path / "empty")

    assert np.array_equal(read_measurement_set(tmp_path / "empty").data, visibilities.data)


def test_columns_that_do_not_fit(visibilities: Visibilities, tmp_path: Path) -> None:
    """A model of another shape is refused before anything is written; so is a column that there is not."""
    with pytest.raises(DataError, match=r"MODEL_DATA has shape \(29, 4, 2\), and \(30, 4, 2\) goes with the data"):
        write_measurement_set(visibilities, tmp_path / "out.ms", model=visibilities.data[1:])
    assert not (tmp_path / "out.ms").exists()
    write_measurement_set(visibilities, tmp_path / "out.ms")
    with pytest.raises(ValidationError, match=r"no column MODEL_DATA; it has .*DATA"):
        read_measurement_set(tmp_path / "out.ms", column="MODEL_DATA")


_FULL = """
import resource, signal, sys, pickle
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from absurd.tasks.visibility.measurement_set import write_measurement_set
from absurd.tasks.radio.errors import StageError
with open(sys.argv[1], "rb") as file:
    visibilities = pickle.load(file)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    write_measurement_set(visibilities, sys.argv[2])
except (StageError, OSError) as error:
    print("refused", error)
"""


@pytest.mark.parametrize("room", [3_000, 60_000])
def test_no_room(visibilities: Visibilities, tmp_path: Path, room: int) -> None:
    """Where files cannot grow, as on a full disk, the older Measurement Set stays; the next one cleans up."""
    many = visibilities.with_(**{name: np.concatenate([getattr(visibilities, name)] * 40) for name in BY_ROWS})
    (tmp_path / "pickled").write_bytes(pickle.dumps(many))
    write_measurement_set(visibilities, tmp_path / "out.ms")
    before = sorted(each.name for each in tmp_path.iterdir())

    done = subprocess.run(
        [sys.executable, "-c", _FULL, tmp_path / "pickled", tmp_path / "out.ms", str(room)],
        capture_output=True,
        text=True,
        check=False,
    )

    # casacore writes what is left as it closes tables, and ends the process where it cannot.
    assert done.stdout.startswith("refused") or done.returncode == -signal.SIGABRT, done.stderr
    assert np.array_equal(read_measurement_set(tmp_path / "out.ms").data, visibilities.data)
    write_measurement_set(visibilities, tmp_path / "out.ms")
    assert sorted(each.name for each in tmp_path.iterdir()) == before


def test_room_is_asked_for_first(visibilities: Visibilities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is too full is told before anything is written, with how much is needed."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))

    with pytest.raises(StageError, match=r"has room for 0\.001 GB, and 0\.00\d+ GB are needed: make room"):
        write_measurement_set(visibilities, tmp_path / "out.ms")

    assert not (tmp_path / "out.ms").exists()


def test_antennas_have_names_of_their_own(visibilities: Visibilities, tmp_path: Path) -> None:
    """Some programs write empty or equal names: gains, which go by name, would be another antenna's."""
    path = tmp_path / "a.ms"
    write_measurement_set(visibilities, path)
    with tables.table(f"{path}/ANTENNA", readonly=False, ack=False) as table:
        table.putcol("NAME", ["pad", "", "pad", "", "pad#2"])

    names = read_measurement_set(path).array.names

    assert names == ("pad", "#1", "pad#2", "#3", "pad#2#4")
