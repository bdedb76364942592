"""Columns and flags of Measurement Sets that are there: all that is asked for at once, or nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from casacore import tables
from recordings import Recording

from absurd.tasks.radio.errors import DataError, ValidationError
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.measurement_set_columns import changing, put_column, put_columns, put_flags
from absurd.tasks.visibility.measurement_set_files import size_and_checksum
from absurd.tasks.visibility.uvh5 import read_subband
from absurd.tasks.visibility.visibilities import Visibilities

PATIENCE = 60


@pytest.fixture
def visibilities(tmp_path: Path) -> Visibilities:
    """Two integrations of five antennas, in ``out.ms`` too."""
    found = read_subband(Recording(integrations=2).write_subband(tmp_path / "one.hdf5", 0))
    write_measurement_set(found, tmp_path / "out.ms")
    return found


def column(folder: Path, name: str) -> np.ndarray[tuple[int, int, int], np.dtype[np.complex64]]:
    """The visibilities of a column of ``out.ms``."""
    return read_measurement_set(folder / "out.ms", column=name).data


def test_columns_are_added_and_replaced(visibilities: Visibilities, tmp_path: Path) -> None:
    """A second time they have the new values; all else is as before, and nothing is left beside."""
    before = sorted(each.name for each in tmp_path.iterdir())
    for factor in (2, 3):
        put_columns(
            tmp_path / "out.ms",
            {"MODEL_DATA": visibilities.data * factor, "CORRECTED_DATA": visibilities.data * -factor},
        )

        assert np.array_equal(column(tmp_path, "MODEL_DATA"), visibilities.data * factor)
        assert np.array_equal(column(tmp_path, "CORRECTED_DATA"), visibilities.data * -factor)
    assert np.array_equal(column(tmp_path, "DATA"), visibilities.data)
    assert sorted(each.name for each in tmp_path.iterdir()) == before
    with tables.table(str(tmp_path / "out.ms"), ack=False) as main:
        assert main.getcolkeyword("MODEL_DATA", "CHANNEL_SELECTION").tolist() == [[0, 4]]
        assert main.getcolkeyword("MODEL_DATA", "UNIT") == "Jy"


def test_weights_go_with_sigma(visibilities: Visibilities, tmp_path: Path) -> None:
    """WEIGHT is the mean of what is not flagged, and SIGMA one over its root."""
    flags = np.zeros(visibilities.data.shape, np.bool_)
    flags[:, 0] = True
    weights = np.arange(1, 5, dtype=np.float32)[:, None] * np.ones(visibilities.data.shape, np.float32)
    put_flags(tmp_path / "out.ms", flags)

    put_column(tmp_path / "out.ms", "WEIGHT_SPECTRUM", weights)

    assert np.array_equal(read_measurement_set(tmp_path / "out.ms").weights, weights)
    with tables.table(str(tmp_path / "out.ms"), ack=False) as main:
        assert np.unique(main.getcol("WEIGHT")).tolist() == [3.0]
        assert np.unique(main.getcol("SIGMA")).tolist() == [np.float32(3**-0.5)]


def test_rows_of_a_field(visibilities: Visibilities, tmp_path: Path) -> None:
    """Only they change; those of a column that is new are 0 elsewhere."""
    rows = visibilities.field == 1
    put_column(tmp_path / "out.ms", "MODEL_DATA", visibilities.data[rows], fields=[1])
    put_column(tmp_path / "out.ms", "DATA", visibilities.data[rows] * 2, fields=["meridian_icrs_t1"])

    assert np.array_equal(column(tmp_path, "MODEL_DATA"), np.where(rows[:, None, None], visibilities.data, 0))
    doubled = np.where(rows[:, None, None], 2 * visibilities.data, visibilities.data)
    assert np.array_equal(column(tmp_path, "DATA"), doubled)


def test_channels_that_descend(visibilities: Visibilities, tmp_path: Path) -> None:
    """Values that come by ascending frequency go where their channels are."""
    with tables.table(f"{tmp_path}/out.ms/SPECTRAL_WINDOW", readonly=False, ack=False) as table:
        table.putcell("CHAN_FREQ", 0, table.getcell("CHAN_FREQ", 0)[::-1])
    found = read_measurement_set(tmp_path / "out.ms")
    assert np.array_equal(found.data, visibilities.data[:, ::-1])
    flags = np.zeros(found.flags.shape, np.bool_)
    flags[:, 0] = True

    put_column(tmp_path / "out.ms", "MODEL_DATA", found.data)
    put_flags(tmp_path / "out.ms", flags)

    assert np.array_equal(column(tmp_path, "MODEL_DATA"), found.data)
    assert np.array_equal(read_measurement_set(tmp_path / "out.ms").flags, flags)
    with tables.table(str(tmp_path / "out.ms"), ack=False) as main:
        assert np.array_equal(main.getcol("MODEL_DATA"), visibilities.data)
        assert main.getcol("FLAG")[:, 3].all()


def test_flags_only_grow(visibilities: Visibilities, tmp_path: Path) -> None:
    """What is flagged stays so, what is new is counted, and rows of which all is flagged are told."""
    random = np.random.default_rng(11)
    first, second = (random.random(visibilities.flags.shape) < 0.3 for _ in range(2))
    second[4] = True

    assert put_flags(tmp_path / "out.ms", first) == first.sum()
    assert put_flags(tmp_path / "out.ms", second) == (first | second).sum() - first.sum()
    assert put_flags(tmp_path / "out.ms", np.zeros_like(first)) == 0

    assert np.array_equal(read_measurement_set(tmp_path / "out.ms").flags, first | second)
    with tables.table(str(tmp_path / "out.ms"), ack=False) as main:
        assert np.array_equal(main.getcol("FLAG_ROW"), (first | second).all(axis=(1, 2)))
    assert np.array_equal(column(tmp_path, "DATA"), visibilities.data)


def test_by_blocks_of_rows(visibilities: Visibilities, tmp_path: Path) -> None:
    """A block that raises changes nothing; one that ends changes what was written."""
    with changing(tmp_path / "out.ms", ["CORRECTED_DATA", "DATA"], whole=True) as main:
        main.putcol("CORRECTED_DATA", visibilities.data[:9], 0, 9)
        main.putcol("DATA", visibilities.data[:5] * 7, 0, 5)
        assert np.array_equal(column(tmp_path, "DATA"), visibilities.data)
    with pytest.raises(KeyError), changing(tmp_path / "out.ms", ["DATA"]) as main:
        main.putcol("DATA", visibilities.data * 0)
        raise KeyError

    assert np.array_equal(column(tmp_path, "DATA")[:5], visibilities.data[:5] * 7)
    assert np.array_equal(column(tmp_path, "DATA")[5:], visibilities.data[5:])
    assert not column(tmp_path, "CORRECTED_DATA")[9:].any()


def test_who_reads_meanwhile_sees_what_was(visibilities: Visibilities, tmp_path: Path) -> None:
    """A table that is open, and files that are linked, keep their values when the column is replaced."""
    put_column(tmp_path / "out.ms", "MODEL_DATA", visibilities.data)
    with tables.table(str(tmp_path / "out.ms"), ack=False) as main:
        assert np.array_equal(main.getcol("MODEL_DATA"), visibilities.data)
        put_columns(tmp_path / "out.ms", {"MODEL_DATA": visibilities.data * 2, "DATA": visibilities.data * 3})

        assert np.array_equal(main.getcol("MODEL_DATA"), visibilities.data)
    assert np.array_equal(column(tmp_path, "MODEL_DATA"), visibilities.data * 2)


_KILLED = """
import sys
import numpy as np
from absurd.tasks.visibility.measurement_set_columns import changing
with changing(sys.argv[1], ["MODEL_DATA", "DATA"], whole=True) as main:
    main.putcol("DATA", main.getcol("DATA") * 5)
    main.flush(recursive=True)
    print("there", flush=True)
    sys.stdin.read()
"""


def test_a_kill_leaves_the_old_columns(visibilities: Visibilities, tmp_path: Path) -> None:
    """Kill -9 while a column is written: neither it nor another changed, and the next change cleans up."""
    victim = subprocess.Popen(
        [sys.executable, "-c", _KILLED, tmp_path / "out.ms"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"there\n"
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=PATIENCE)

    found = read_measurement_set(tmp_path / "out.ms")
    assert np.array_equal(found.data, visibilities.data)
    with tables.table(str(tmp_path / "out.ms"), ack=False) as main:
        assert "MODEL_DATA" not in main.colnames()
    put_column(tmp_path / "out.ms", "MODEL_DATA", visibilities.data)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one.hdf5", "out.ms"]


_FLAGGING = """
import sys
import numpy as np
from absurd.tasks.visibility.measurement_set_columns import put_flags
for channel in sys.argv[2]:
    flags = np.zeros((30, 4, 2), np.bool_)
    flags[:, int(channel)] = True
    print(put_flags(sys.argv[1], flags))
"""


def test_two_that_change_at_once(visibilities: Visibilities, tmp_path: Path) -> None:
    """Each waits for the one before: nothing that one wrote is lost."""
    both = [
        subprocess.Popen([sys.executable, "-c", _FLAGGING, tmp_path / "out.ms", channels], stdout=subprocess.PIPE)
        for channels in ("02", "13")
    ]

    told = [each.communicate(timeout=PATIENCE)[0] for each in both]

    assert visibilities.flags.shape == (30, 4, 2)
    assert told == [b"60\n60\n"] * 2
    assert read_measurement_set(tmp_path / "out.ms").flags.all()


def test_a_checksum_tells_changes(visibilities: Visibilities, tmp_path: Path) -> None:
    """It stays when the Measurement Set is read, and changes with its values."""
    told, before = size_and_checksum(tmp_path / "out.ms")
    read_measurement_set(tmp_path / "out.ms")

    assert size_and_checksum(tmp_path / "out.ms") == (told, before)
    assert told > visibilities.data.nbytes
    assert put_flags(tmp_path / "out.ms", np.ones(visibilities.flags.shape, np.bool_)) > 0
    assert size_and_checksum(tmp_path / "out.ms")[1] != before


def test_spectral_windows_of_several_shapes(visibilities: Visibilities, tmp_path: Path) -> None:
    """Columns that are there are changed, by one of them; none is added."""
    path = str(tmp_path / "ragged.ms")
    with tables.table(str(tmp_path / "out.ms"), ack=False) as main:
        description = main.getdesc()
        for name in ("DATA", "FLAG", "WEIGHT_SPECTRUM"):
            description[name] = {**description[name], "option": 0, "dataManagerType": "TiledShapeStMan"}
            del description[name]["shape"]
        for name in ("WEIGHT", "SIGMA", "UVW"):
            description[name]["dataManagerType"] = "TiledShapeStMan"
        with tables.default_ms(path, description, tables.makedminfo(description)) as ragged:
            ragged.addrows(30)
            for name in ("ANTENNA1", "ANTENNA2", "TIME", "EXPOSURE", "FIELD_ID", "SCAN_NUMBER", "UVW", "WEIGHT"):
                ragged.putcol(name, main.getcol(name))
            for row in range(30):
                width = 4 if row < 20 else 3
                ragged.putcell("DATA_DESC_ID", row, int(row >= 20))
                for name in ("DATA", "FLAG", "WEIGHT_SPECTRUM"):
                    ragged.putcell(name, row, main.getcell(name, row)[:width])
    for name in ("ANTENNA", "FIELD", "OBSERVATION", "POLARIZATION", "SPECTRAL_WINDOW", "DATA_DESCRIPTION"):
        shutil.rmtree(f"{path}/{name}")
        shutil.copytree(tmp_path / "out.ms" / name, f"{path}/{name}")
    with tables.table(f"{path}/SPECTRAL_WINDOW", readonly=False, ack=False) as table:
        table.addrows(1)
        for name in ("CHAN_FREQ", "CHAN_WIDTH"):
            table.putcell(name, 1, table.getcell(name, 0)[:3])
        table.putcell("NUM_CHAN", 1, 3)
    with tables.table(f"{path}/DATA_DESCRIPTION", readonly=False, ack=False) as table:
        table.addrows(1)
        table.putcell("SPECTRAL_WINDOW_ID", 1, 1)

    second = read_measurement_set(path, spectral_window=1)
    put_column(path, "DATA", second.data * 2, spectral_window=1)

    assert np.array_equal(second.data, visibilities.data[20:, :3])
    assert np.array_equal(read_measurement_set(path, spectral_window=1).data, second.data * 2)
    assert np.array_equal(read_measurement_set(path, spectral_window=0).data, visibilities.data[:20])
    with pytest.raises(ValidationError, match=r"spectral windows of several shapes: \(3, 2\), \(4, 2\): split it"):
        put_column(path, "MODEL_DATA", second.data, spectral_window=1)


def test_what_is_not_put(visibilities: Visibilities, tmp_path: Path) -> None:
    """Other columns, other shapes and tables that only refer to others are refused, and nothing changes."""
    with pytest.raises(ValidationError, match=r"column UVW is not put; DATA, MODEL_DATA"):
        put_column(tmp_path / "out.ms", "UVW", visibilities.data)
    with pytest.raises(DataError, match=r"DATA has shape \(29, 4, 2\), and \(30, 4, 2\) is that of the rows"):
        put_column(tmp_path / "out.ms", "DATA", visibilities.data[1:])
    with pytest.raises(DataError, match=r"flags have shape \(29, 4, 2\)"):
        put_flags(tmp_path / "out.ms", visibilities.flags[1:])
    with pytest.raises(ValidationError, match=r"has no column NONE"), changing(tmp_path / "out.ms", ["NONE"]):
        pass
    with tables.table(str(tmp_path / "out.ms"), ack=False) as main:
        main.query("ANTENNA1 == 0").copy(str(tmp_path / "reference.ms"), deep=False)
    with (
        pytest.raises(ValidationError, match=r"refers to another table"),
        changing(tmp_path / "reference.ms", ["DATA"]),
    ):
        pass
    assert np.array_equal(column(tmp_path, "DATA"), visibilities.data)
