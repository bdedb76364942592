"""Files that only pyuvdata reads, and paths that hold no visibilities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from pyuvdata import UVData
from recordings import Recording
from single_run import fail

from absurd.tasks.quiet import quiet
from absurd.tasks.radio.errors import DataError, ValidationError
from absurd.tasks.visibility.foreign import file_type, read_foreign, read_visibilities
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.uvw import phase_to

RECORDING = Recording(seed=0, sources=((0.31, 0.22, 3.0),))


def by_pyuvdata(folder: Path) -> Any:
    """The recording, phased to its source as pyuvdata does it."""
    with quiet():
        told = UVData.from_file(RECORDING.write_subband(folder / "one.hdf5", 0), file_type="uvh5", run_check=False)
        told.uvw_array = told.uvw_array.astype(np.float64)
        frequencies = RECORDING.frequencies_hz(0)
        # Undo what the array does, so that pyuvdata's "unprojected" is true of them.
        w = told.uvw_array[:, 2]
        told.data_array *= np.exp(2j * np.pi * w[:, None, None] * frequencies[:, None] / 299792458.0)
        told.set_uvws_from_antenna_positions(update_vis=False)
    return told


def moved(told: Any, name: str, **where: Any) -> Any:
    """The same, phased by pyuvdata."""
    with quiet():
        told.phase(cat_name=name, **where)
    return told


def test_data_that_are_not_phased(tmp_path: Path) -> None:
    """Get the zenith as phase centre; moved to the source they have its flux and no phase."""
    told = by_pyuvdata(tmp_path)
    with quiet():
        told.write_uvh5(tmp_path / "raw.uvh5")
    with h5py.File(tmp_path / "raw.uvh5", "r+") as file:
        del file["Header/extra_keywords"]

    found = read_visibilities(tmp_path / "raw.uvh5")

    assert [each.name for each in found.phase_centres] == ["zenith"]
    place = RECORDING.sky[0]
    assert np.abs(phase_to(found, place.ra.rad, place.dec.rad).data - 3.0).max() < 1e-4


def test_what_stands_still_over_the_earth(tmp_path: Path) -> None:
    """Has a phase centre for each time, and the same phases after a move."""
    told = moved(by_pyuvdata(tmp_path), "up", lon=0.3, lat=1.4, cat_type="driftscan", phase_frame="altaz")
    with quiet():
        told.write_uvh5(tmp_path / "drift.uvh5")
    with h5py.File(tmp_path / "drift.uvh5", "r+") as file:
        del file["Header/extra_keywords"]

    found = read_visibilities(tmp_path / "drift.uvh5")

    assert [each.name for each in found.phase_centres] == ["up_t0", "up_t1", "up_t2"]
    directions = SkyCoord([each.ra_rad for each in found.phase_centres], 0.6, unit="rad")
    assert np.diff(directions.ra.arcsec) == pytest.approx(12.884902 * 15.041, rel=0.2)
    place = RECORDING.sky[0]
    assert np.abs(phase_to(found, place.ra.rad, place.dec.rad).data - 3.0).max() < 1e-3


def test_uvfits_and_several_spectral_windows(tmp_path: Path) -> None:
    """UVFITS is read as the file that it was made from; of several windows one has to be named."""
    told = moved(by_pyuvdata(tmp_path), "there", lon=5.0, lat=0.6, phase_frame="icrs")
    with quiet():
        told.write_uvfits(tmp_path / "one.uvfits")
        told.flex_spw_id_array = np.array([0, 0, 1, 1])
        told.spw_array, told.Nspws = np.array([0, 1]), 2
        told.write_uvh5(tmp_path / "two.uvh5")

    one, second = read_visibilities(tmp_path / "one.uvfits"), read_foreign(tmp_path / "two.uvh5", spectral_window=1)

    assert np.array_equal(one.data[:, 2:], second.data)
    assert np.array_equal(one.frequencies_hz[2:], second.frequencies_hz)
    with pytest.raises(DataError, match=r"has 2 spectral windows: name one"):
        read_visibilities(tmp_path / "two.uvh5")
    with pytest.raises(ValidationError, match=r"no spectral window 2; it has 2"):
        read_foreign(tmp_path / "two.uvh5", spectral_window=2)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.mkdir(), "is a folder, and no Measurement Set"),
        (lambda path: path.write_bytes(b""), "holds no visibilities"),
        (lambda path: path.write_bytes(b"SIMPLE  =                    T"), "cannot be read"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100), "cannot be read"),
    ],
)
def test_what_holds_no_visibilities(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    """The error names the path and why."""
    make(tmp_path / "odd")

    with pytest.raises(DataError, match=said):
        read_visibilities(tmp_path / "odd")


def test_what_is_converted_is_not_replaced(tmp_path: Path) -> None:
    """A Measurement Set over itself, under whatever name, would lose what is not converted; so would files in it."""
    source = tmp_path / "a.ms"
    write_measurement_set(read_visibilities(RECORDING.write_subband(tmp_path / "one", 0)), source)
    (tmp_path / "link").symlink_to(source)
    inside = RECORDING.write_subband(source / "one", 0)
    before = {each: each.read_bytes() for each in source.rglob("*") if each.is_file()}

    for read in (source, tmp_path / "link", inside):
        told = fail("visibility.convert", {"source": str(read), "ms": str(source)})
        assert (told["code"], "is both read and written" in told["message"]) == ("pipeline_validation", True)

    assert {each: each.read_bytes() for each in source.rglob("*") if each.is_file()} == before


def test_whatever_it_is(tmp_path: Path) -> None:
    """Measurement Sets and sub-bands are told by content, not by name; columns are of Measurement Sets alone."""
    file = RECORDING.write_subband(tmp_path / "odd", 0)
    found = read_visibilities(file)
    write_measurement_set(found, tmp_path / "set", model=found.data * 2)

    assert (file_type(file), file_type(tmp_path / "set")) == ("uvh5", "ms")
    assert np.array_equal(read_visibilities(tmp_path / "set").data, read_measurement_set(tmp_path / "set").data)
    assert np.array_equal(
        read_visibilities(tmp_path / "set", column="MODEL_DATA", fields=[1]).data, 2 * found.data[15:30]
    )
    with pytest.raises(ValidationError, match=r"neither columns nor fields"):
        read_visibilities(file, column="MODEL_DATA")
