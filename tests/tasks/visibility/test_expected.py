"""Real files of other arrays: what is read, and converted, is what astropy, casacore and pyuvdata found in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from conftest import SHARED
from house import unpack
from single_run import run

from absurd.tasks.quiet import quiet
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.correlations import AIPS
from absurd.tasks.visibility.foreign import read_foreign, read_visibilities
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.uvw import phase_to, uvw_m
from absurd.tasks.visibility.visibilities import PhaseCentre, Visibilities

DATA = SHARED / "data" / "radio-visibilities"
EXPECTED = DATA / "expected_visibilities.json"

pytestmark = pytest.mark.skipif(not EXPECTED.is_file(), reason="real visibilities are not beside the checkout")


def entries(*, tables: bool) -> list[Any]:
    """What is expected, of Measurement Sets or of other files; tables of gains are not read here."""
    if not EXPECTED.is_file():
        return []
    told = json.loads(EXPECTED.read_text(encoding="utf-8"))
    return [
        pytest.param(each, id=each["file"][:20])
        for each in told
        if ("table" in each) == tables and each.get("col", "DATA") == "DATA"
    ]


def unpacked(entry: dict[str, Any], folder: Path) -> Path:
    """The Measurement Set of an entry."""
    unpack(DATA / entry["file"], folder)
    path: Path = folder / entry["table"]
    return path


def converted(found: Visibilities, folder: Path) -> Visibilities:
    """The same, written as a Measurement Set and read again: nothing is lost."""
    write_measurement_set(found, folder / "out.ms")
    again = read_measurement_set(folder / "out.ms")
    for name in ("data", "weights", "uvw_m", "time_s", "exposure_s", "frequencies_hz", "channel_width_hz"):
        assert np.array_equal(getattr(again, name), getattr(found, name), equal_nan=True), name
    for name in ("flags", "antenna1", "antenna2", "field", "scan"):
        assert np.array_equal(getattr(again, name), getattr(found, name)), name
    assert again.correlations == found.correlations
    assert again.phase_centres == found.phase_centres
    assert again.array.names == found.array.names
    assert np.array_equal(again.array.positions_m, found.array.positions_m)
    assert np.array_equal(again.array.position_m, found.array.position_m)
    return again


def amplitude(found: Visibilities) -> float:
    """Sum of the absolute values that are not flagged."""
    return float(np.abs(found.data[~found.flags].astype(np.complex128)).sum())


@pytest.mark.parametrize("entry", entries(tables=True))
def test_measurement_sets(entry: dict[str, Any], tmp_path: Path) -> None:
    """Rows, times, baselines, channels, fields and amplitudes of Measurement Sets of other programs."""
    found = converted(read_measurement_set(unpacked(entry, tmp_path)), tmp_path)

    assert found.data.shape == (entry["rows"], *entry["cell_shapes"][0])
    times = np.unique(found.time_s)
    assert (len(times), times[0], times[-1]) == (entry["n_times"], entry["t0_mjd_s"], entry["t1_mjd_s"])
    assert len(set(zip(found.antenna1, found.antenna2, strict=True))) == entry["n_baselines"]
    assert len(found.array.names) == entry["n_ant"]
    assert [each.name for each in found.phase_centres] == entry["fields"]
    assert found.array.telescope == entry["telescope"][0]
    told = np.degrees([[each.ra_rad, each.dec_rad] for each in found.phase_centres])
    np.testing.assert_allclose(told, entry["phase_dir_deg"], atol=1e-5)  # J2000 is some 0.02 arcsec from ICRS
    np.testing.assert_allclose(found.frequencies_hz[[0, -1]], entry["spw0_hz"], rtol=1e-12)
    assert found.flags.mean() == entry["flag_fraction"]
    np.testing.assert_allclose(np.abs(found.data.astype(np.complex128)).sum(), entry["abs_sum"], rtol=1e-7)


@pytest.mark.parametrize("entry", entries(tables=False))
def test_other_files(entry: dict[str, Any], tmp_path: Path) -> None:
    """UVH5 and UVFITS, by whichever way reads them."""
    found = converted(read_visibilities(DATA / entry["file"]), tmp_path)

    assert entry["to_ms"] == {"ok": True, "rows": len(found.time_s)}
    assert found.data.shape == (entry["nblts"], entry["nfreqs"], entry["npols"])
    assert sorted(found.correlations) == sorted(AIPS[each] for each in entry["pols"])
    antennas = np.concatenate([found.antenna1, found.antenna2])
    assert len(np.unique(antennas)) == entry["nants_data"]
    assert len(found.array.names) == entry["nants_telescope"]
    assert len(set(zip(found.antenna1, found.antenna2, strict=True))) == entry["nbls"]
    times = np.unique(found.time_s)
    assert len(times) == entry["ntimes"]
    np.testing.assert_allclose(times[[0, -1]], (np.array(entry["jd"]) - 2400000.5) * 86400, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.frequencies_hz[[0, -1]], entry["freq_hz"], rtol=1e-12)
    assert found.flags.mean() == pytest.approx(entry["flag_fraction"], abs=1e-12)
    np.testing.assert_allclose(amplitude(found), entry["abs_sum_unflagged"], rtol=1e-7)
    # Of which only the lengths are the same whatever the phase centre.
    assert np.linalg.norm(found.uvw_m, axis=1).max() == pytest.approx(longest(entry), rel=1e-4)


def first_of_each_kind() -> list[Any]:
    """The smallest UVFITS and UVH5 files, and a Measurement Set."""
    files = {Path(each.values[0]["file"]).suffix: each for each in entries(tables=False)}
    return [*files.values(), *entries(tables=True)[:1]]


@pytest.mark.parametrize("entry", first_of_each_kind())
def test_conversions_on_the_queue(entry: dict[str, Any], tmp_path: Path) -> None:
    """`visibility.convert` makes of each kind of file a Measurement Set that holds what was read."""
    source = unpacked(entry, tmp_path) if "table" in entry else DATA / entry["file"]

    told, kinds = run("visibility.convert", {"source": str(source), "ms": str(tmp_path / "made.ms")})

    found, read = read_measurement_set(tmp_path / "made.ms"), read_visibilities(source)
    assert (told["rows"], told["channels"], told["correlations"]) == found.data.shape == read.data.shape
    assert told["flagged"] == entry["flag_fraction"]
    assert np.array_equal(found.data, read.data, equal_nan=True)
    assert np.array_equal(found.uvw_m, read.uvw_m)
    assert kinds == []


def longest(entry: dict[str, Any]) -> float:
    """The longest baseline, by pyuvdata."""
    from pyuvdata import UVData

    with quiet():
        told = UVData.from_file(DATA / entry["file"], run_check=False)
    return float(np.linalg.norm(told.uvw_array, axis=1).max())


@pytest.mark.parametrize("entry", entries(tables=False))
def test_phases_are_those_that_pyuvdata_writes(entry: dict[str, Any], tmp_path: Path) -> None:
    """Its own Measurement Set of the same file, phased to the same place, has the same phases by u, v, w."""
    from pyuvdata import UVData

    found = read_foreign(DATA / entry["file"])
    centre = found.phase_centres[0]
    with quiet():
        told = UVData.from_file(DATA / entry["file"], run_check=False)
        if entry["phase_centers"][0]["type"] == "unprojected":
            told.phase(lon=centre.ra_rad, lat=centre.dec_rad, phase_frame="icrs", cat_name="zenith")
        told.write_ms(str(tmp_path / "theirs.ms"), run_check=False)

    theirs = read_measurement_set(tmp_path / "theirs.ms")

    reach = np.abs(found.uvw_m).max()
    is_turned = np.sum(theirs.uvw_m * found.uvw_m, axis=1) < 0  # it lets all baselines go one way
    # Their north is taken over a degree; see test_uvw.
    uvw = np.where(is_turned[:, None], -theirs.uvw_m, theirs.uvw_m)
    np.testing.assert_allclose(uvw, found.uvw_m, atol=max(1e-3, 1e-4 * reach))
    swapped = theirs.data.conj()[:, :, [0, 2, 1, 3] if len(found.correlations) == 4 else slice(None)]
    data = np.where(is_turned[:, None, None], swapped, theirs.data)
    told_alike = np.ones(data.shape, np.bool_)
    # Versions before 3.2.8 exchange antennas, and with them cross-hands, where they turn no u, v, w, and the other way.
    exchanged = (theirs.antenna1 > theirs.antenna2) != (found.antenna1 > found.antenna2)
    told_alike[exchanged != is_turned, :, 1:-1] = False
    scale = np.abs(found.data).max()
    np.testing.assert_allclose(data[told_alike] / scale, found.data[told_alike] / scale, atol=1e-4)


def test_coordinates_that_the_vla_wrote(tmp_path: Path) -> None:
    """Are ours to 6 mm on a kilometre, for what it looked at: J0954+1743, which the set calls J1008+0730.

    So its coordinates are not those of its phase centre, and it is refused to be phased by positions.
    """
    entry = next(each.values[0] for each in entries(tables=True) if "day2" in str(each.values[0]))
    found = read_measurement_set(unpacked(entry, tmp_path))
    place = SkyCoord("09:54:56.8236 +17:43:31.222", unit=("hourangle", "deg"))
    centres = [PhaseCentre("J0954+1743", place.ra.rad, place.dec.rad)]

    reckoned = uvw_m(found.array, found.antenna1, found.antenna2, found.time_s, found.field, centres)

    assert np.abs(reckoned - found.uvw_m).max() < 6e-3
    with pytest.raises(DataError, match=r"coordinates of baselines are 41\.2 m from what positions of antennas give"):
        phase_to(found, place.ra.rad, place.dec.rad)
    assert phase_to(found, place.ra.rad, place.dec.rad, by="uvw").data.shape == found.data.shape


def test_a_measurement_set_is_read_by_pyuvdata(tmp_path: Path) -> None:
    """What is written here comes out there as it went in: times, frequencies, coordinates and visibilities."""
    from pyuvdata import UVData

    source = DATA / "ata.LoA.C0352.uvh5_60647_62965_9760406_3c286_0001.uvh5"
    found = read_foreign(source)
    write_measurement_set(found, tmp_path / "ours.ms")
    with quiet():
        theirs = UVData.from_file(str(tmp_path / "ours.ms"))
        told = UVData.from_file(source)

    np.testing.assert_allclose(theirs.uvw_array, told.uvw_array, atol=2e-3)
    np.testing.assert_allclose(theirs.time_array, told.time_array, atol=1e-9)
    order = [list(theirs.polarization_array).index(each) for each in told.polarization_array]
    assert np.array_equal(theirs.data_array[:, :, order], told.data_array.astype(np.complex64))
    assert theirs.telescope.name == told.telescope.name
    assert abs(Time(theirs.time_array[0], format="jd") - Time(told.time_array[0], format="jd")).sec < 1e-3
