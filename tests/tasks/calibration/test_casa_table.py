"""CASA's calibration tables: real ones are read, and ours have their form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gain_examples import array_of, make_gains
from house import unpack

from absurd.tasks.calibration.casa_export import write_casa_table
from absurd.tasks.calibration.casa_table import CasaTable, casacore_tables, read_casa_table
from absurd.tasks.calibration.gains import Kind
from absurd.tasks.calibration.interpolation import interpolate
from absurd.tasks.radio.errors import CalibrationError, ValidationError

Real = dict[str, tuple[Path, dict[str, Any]]]
REAL = {"sma.ms.dcal": "delay", "sma.ms.pha.gcal": "gain"}


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    """The tables of the Submillimeter Array, and what is known of each."""
    folder = shared / "data/radio-visibilities"
    expected = {
        each["table"]: each
        for each in json.loads((folder / "expected_visibilities.json").read_text())
        if "table" in each
    }
    into = tmp_path_factory.mktemp("sma")
    for name in REAL:
        unpack(folder / f"{name}.tar.gz", into)
    return {name: (into / name, expected[name]) for name in REAL}


@pytest.mark.parametrize("name", REAL)
def test_real_tables_are_read(real: Real, name: str) -> None:
    """Sums, rows, flags, times, antennas and frequencies are those that casacore alone has found."""
    path, expected = real[name]

    found = read_casa_table(path)

    tables = list(found.tables.values())
    scale = 1e9 if REAL[name] == "delay" else 1
    assert {each.kind for each in tables} == {REAL[name]}
    assert sum(float(np.abs(each.values).sum()) for each in tables) * scale == pytest.approx(
        expected["abs_sum"], rel=1e-6
    )
    flags = np.concatenate([each.flags.ravel() for each in tables])
    assert flags.mean() == pytest.approx(expected["flag_fraction"], abs=1e-12)
    assert sum(each.flags.shape[0] * each.flags.shape[1] for each in tables) == expected["rows"]
    times = np.concatenate([each.time_s for each in tables])
    assert (times.min(), times.max(), len(np.unique(times))) == (
        expected["t0_mjd_s"],
        expected["t1_mjd_s"],
        expected["n_times"],
    )
    assert {len(each.antennas) for each in tables} == {expected["n_ant"]}
    if REAL[name] == "gain":  # a delay's is where its phase is 0
        assert tables[0].frequencies_hz[0] == pytest.approx(expected["spw0_hz"][0], rel=1e-12)
    assert set(found.field_names) == set(expected["fields"])
    assert all((each.snr[each.flags] == 0).all() for each in tables)


def test_gains_of_several_fields_keep_which(real: Real) -> None:
    """The table of phases was solved on two calibrators: each time has its field; the source names both."""
    found = read_casa_table(real["sma.ms.pha.gcal"][0])

    for window, gains in found.tables.items():
        fields = found.fields[window]
        assert fields.shape == gains.time_s.shape
        assert gains.source.split(", ") == [found.field_names[each] for each in np.unique(fields)]
        assert np.isfinite(gains.ra_rad) == (len(np.unique(fields)) == 1)


def structure(path: Path) -> dict[str, Any]:
    """What CASA looks at: names and types of columns with their keywords, and what the table says it is."""
    tables = casacore_tables()
    with tables.table(str(path), ack=False) as opened:
        columns = {
            name: (opened.coldatatype(name), opened.isscalarcol(name), opened.getcolkeywords(name))
            for name in opened.colnames()
        }
        keywords = {
            name: value.split(" ")[0] if isinstance(value, str) and value.startswith("Table:") else value
            for name, value in opened.getkeywords().items()
        }
        return {"columns": columns, "keywords": keywords, "info": opened.info()}


@pytest.mark.parametrize("name", REAL)
def test_ours_have_the_form_of_real_ones(real: Real, name: str, tmp_path: Path) -> None:
    """Columns, their types, units and frames, keywords and subtables of a table that CASA wrote, written anew by us."""
    path, _ = real[name]
    found = read_casa_table(path)
    tables = casacore_tables()
    with tables.table(f"{path}::ANTENNA", ack=False) as antennas:
        places = antennas.getcol("POSITION")
    array = array_of(len(places))
    object.__setattr__(array, "names", next(iter(found.tables.values())).antennas)

    ours = write_casa_table(tmp_path / "ours", list(found.tables.values()), array, ms_name="sma.ms")

    one, other = structure(path), structure(ours)
    assert other["columns"] == one["columns"]
    for keyword in ("ParType", "VisCal"):  # the basis is told, where theirs is unknown
        assert other["keywords"][keyword] == one["keywords"][keyword]
    assert set(one["keywords"]) <= set(other["keywords"])
    assert {key: other["info"][key] for key in ("type", "subType")} == {
        key: one["info"][key] for key in ("type", "subType")
    }
    for subtable in ("OBSERVATION", "ANTENNA", "FIELD", "SPECTRAL_WINDOW", "HISTORY"):
        theirs, own = structure(path / subtable), structure(ours / subtable)
        required = {key: value for key, value in theirs["columns"].items() if key in own["columns"]}
        for column, told in own["columns"].items():
            assert required.get(column, told)[:2] == told[:2], f"{subtable} {column}"


@pytest.mark.parametrize("kind", ["gain", "bandpass", "delay"])
def test_what_is_written_is_read(kind: Kind, tmp_path: Path) -> None:
    """To the rounding of float32, of several spectral windows; antennas that the gains do not have are flagged."""
    written = [make_gains(kind, seed=seed, antennas=4, flagged=0.2) for seed in (1, 2)]

    found: CasaTable = read_casa_table(write_casa_table(tmp_path / "table", written, array_of(5), ms_name="/data/a.ms"))

    assert (found.ms_name, list(found.tables)) == ("a.ms", [0, 1])
    for before, after in zip(written, found.tables.values(), strict=True):
        assert after.antennas == array_of(5).names
        assert after.flags[:, 4].all()
        assert np.array_equal(after.flags[:, :4], before.flags)
        assert np.allclose(after.values[:, :4], before.values, rtol=3e-7, atol=1e-16)
        assert np.allclose(after.snr[:, :4], before.snr)
        assert np.array_equal(after.time_s, before.time_s)
        assert np.array_equal(after.frequencies_hz, before.frequencies_hz)
        assert (after.polarisations, after.source, after.reference) == (("X", "Y"), "3C48", before.reference)
        assert after.ra_rad == pytest.approx(before.ra_rad)
        frequencies = before.frequencies_hz.mean() + np.array([0, 1e6])
        one, other = (interpolate(each, before.time_s, frequencies).values for each in (before, after))
        assert np.allclose(other[:, :4], one, atol=1e-6)


def test_a_table_is_replaced_whole(tmp_path: Path) -> None:
    """And nothing else lies beside it; what is no table of gains stays."""
    for seed in (1, 2):
        path = write_casa_table(tmp_path / "t", make_gains(seed=seed), array_of(5))

    assert np.allclose(read_casa_table(path).tables[0].values, make_gains(seed=2).values, rtol=3e-7)
    assert [each.name for each in tmp_path.iterdir()] == ["t"]
    (tmp_path / "mine" / "t").mkdir(parents=True)
    with pytest.raises(ValidationError, match="mine holds something else, and is not replaced by a Calibration"):
        write_casa_table(tmp_path / "mine", make_gains(), array_of(5))
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["t"]


def test_what_is_no_gain_table_is_refused(tmp_path: Path, real: Real) -> None:
    """No table at all, a table of something else, and one that is torn."""
    (tmp_path / "empty").mkdir()
    for path, said in (
        (tmp_path / "absent", "is no CASA table"),
        (tmp_path / "empty", "is no CASA table"),
        (real["sma.ms.dcal"][0] / "FIELD", "is no calibration table"),
    ):
        with pytest.raises(CalibrationError, match=said):
            read_casa_table(path)
    torn = write_casa_table(tmp_path / "torn", make_gains(), array_of(5))
    (torn / "table.dat").write_bytes((torn / "table.dat").read_bytes()[:100])
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_casa_table(torn)


def test_gains_that_casa_has_no_table_for(tmp_path: Path) -> None:
    """Of two kinds, of other polarisations, and of antennas that are none of the array."""
    odd = make_gains()
    object.__setattr__(odd, "polarisations", ("I", "Q"))
    for gains, said in (
        ([make_gains(), make_gains("bandpass")], "one kind"),
        ([odd], "no table for polarisations"),
        ([make_gains(antennas=6)], "pad005 of the gains are none"),
    ):
        with pytest.raises(CalibrationError, match=said):
            write_casa_table(tmp_path / "t", gains, array_of(5))
    assert not (tmp_path / "t").exists()
