"""Files of sub-bands: as the array writes them, as pyuvdata does, and such as cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from recordings import Recording

from absurd.tasks.quiet import quiet
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.uvh5 import read_subband, read_subband_header

RECORDING = Recording(correlations=(-5, -6, -7, -8))


def test_both_layouts_and_both_orders(tmp_path: Path) -> None:
    """Old and new arrays, ascending and descending frequencies: the same visibilities by ascending frequency."""
    plain = read_subband(RECORDING.write_subband(tmp_path / "plain.hdf5", 1))
    other = read_subband(RECORDING.write_subband(tmp_path / "other.hdf5", 1, descending=True, old_layout=False))

    assert plain.correlations == ("XX", "XY", "YX", "YY")
    assert np.array_equal(plain.data, other.data)
    assert np.array_equal(plain.frequencies_hz, other.frequencies_hz)
    assert np.all(np.diff(plain.frequencies_hz) > 0)
    assert plain.array.names[3] == "pad003"
    assert np.linalg.norm(plain.array.positions_m, axis=1) == pytest.approx(6.371e6, rel=1e-2)


def test_correlations_come_in_one_order(tmp_path: Path) -> None:
    """XX, XY, YX, YY, whichever way they lie: each has the values that were written for it."""
    shape = RECORDING.integrations * len(RECORDING.pairs[0]), 4, 4
    data = np.broadcast_to(np.array([1, 2, 3, 4], np.complex64), shape)

    found = read_subband(RECORDING.write_subband(tmp_path / "one.hdf5", 0, data={"visdata": data}))

    assert found.data[0, 0].real.tolist() == [1, 3, 4, 2]


def test_integers_as_correlators_have_them(tmp_path: Path) -> None:
    """Pairs of integers are the complex numbers that they stand for, conjugated as all are."""
    shape = RECORDING.integrations * len(RECORDING.pairs[0]), 4, 4
    data = np.zeros(shape, [("r", np.int32), ("i", np.int32)])
    data["r"], data["i"] = 3, -4

    found = read_subband(RECORDING.write_subband(tmp_path / "one.hdf5", 0, data={"visdata": data}))

    assert np.unique(found.data).tolist() == [3 + 4j]


def test_the_header_tells_the_pointing(tmp_path: Path) -> None:
    """Declination and hour angle, one phase centre for each time, and what the file has of coordinates."""
    found = read_subband_header(RECORDING.write_subband(tmp_path / "one.hdf5", 0))

    assert np.degrees(found.declination_rad) == pytest.approx(37.0)
    assert found.hour_angle_rad == 0.0
    assert len(found.phase_centres) == RECORDING.integrations
    assert found.bytes == (tmp_path / "one.hdf5").stat().st_size
    assert found.points_to_antenna_2()
    assert np.abs(found.uvw_m()[:, 2] + found.told_uvw_m[:, 2]).max() < 1e-3


def test_coordinates_that_point_the_other_way(tmp_path: Path) -> None:
    """A file whose u, v, w and phases both are turned is the same recording."""
    plain = read_subband(RECORDING.write_subband(tmp_path / "plain.hdf5", 0))
    with h5py.File(RECORDING.write_subband(tmp_path / "turned.hdf5", 0), "r+") as file:
        file["Header/uvw_array"][...] = -file["Header/uvw_array"][...]
        file["Data/visdata"][...] = file["Data/visdata"][...].conj()

    assert np.array_equal(read_subband(tmp_path / "turned.hdf5").data, plain.data)


def test_what_pyuvdata_writes(tmp_path: Path) -> None:
    """Fixed phase centres of newer files: the same visibilities as by pyuvdata."""
    from pyuvdata import UVData

    from absurd.tasks.visibility.foreign import read_foreign

    with quiet():
        told = UVData.from_file(RECORDING.write_subband(tmp_path / "one.hdf5", 0), file_type="uvh5", run_check=False)
        told.uvw_array = told.uvw_array.astype(np.float64)
        told.phase(lon=5.0, lat=0.6, phase_frame="icrs", cat_name="there")
        told.write_uvh5(tmp_path / "phased.uvh5")

    found, expected = read_subband(tmp_path / "phased.uvh5"), read_foreign(tmp_path / "phased.uvh5")

    assert [(each.name, each.ra_rad, each.dec_rad) for each in found.phase_centres] == [("there", 5.0, 0.6)]
    assert np.array_equal(found.data, expected.data)
    np.testing.assert_allclose(found.uvw_m, expected.uvw_m, atol=2e-2)  # their north, see test_uvw
    assert np.isnan(read_subband_header(tmp_path / "phased.uvh5").declination_rad)


def spoiled(change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Change an HDF5 file."""

    def act(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return act


def replace(name: str, value: Any) -> Callable[[Path], None]:
    """Put something else into a file."""

    def change(file: Any) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return spoiled(change)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "is not there"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read"),
        (lambda path: path.write_bytes(b"x" * 100), "cannot be read"),
        (replace("Data/visdata", None), "visdata"),
        (
            replace("Data/flags", np.zeros((44, 4, 4), np.bool_)),
            r"/Data/flags has shape \(44, 4, 4\), and \(45, 4, 4\)",
        ),
        (replace("Header/time_array", np.zeros(0)), "holds no rows"),
        (replace("Header/antenna_numbers", np.arange(1, 6)), "there is no antenna 0"),
        (replace("Header/polarization_array", np.array([-5, -6, -7, -9])), "correlation -9 is none of"),
        (replace("Header/extra_keywords/phase_center_dec", None), "does not tell what its visibilities are phased to"),
        (replace("Header/extra_keywords/phase_center_dec", 37.0), "phase_center_dec is 37 radians"),
        (replace("Header/extra_keywords/phase_center_dec", -0.9), "m from what positions of antennas give"),
        (replace("Header/Nspws", 2), "several spectral windows"),
        (replace("Header/telescope_frame", b"mcmf"), "not on Earth"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    """The error names the file and what is wrong."""
    path = RECORDING.write_subband(tmp_path / "one.hdf5", 0, header={"telescope_frame": b"itrs"})
    spoil(path)

    with pytest.raises(DataError, match=said) as caught:
        read_subband(path)

    assert "one.hdf5" in str(caught.value)
