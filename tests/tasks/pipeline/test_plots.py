"""Pictures: that they show what is so, of anything that is read, and of nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from house import run_python, told, unpack
from PIL import Image

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.pipeline.plots import style
from absurd.tasks.pipeline.plots.draw import OF_GAINS, OF_VISIBILITIES, draw_all
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.simulate import simulate, simulate_in_memory
from absurd.tasks.radio.errors import DataError, ValidationError
from absurd.tasks.visibility.visibilities import Visibilities

SMALL = SimulationSettings(antennas=7, subbands=2, channels=4, integrations=4, sources=0, noise_jy=0.3, lost=0.05)
Data = tuple[Visibilities, Gains, Gains]


@pytest.fixture(scope="module")
def small() -> Data:
    """Visibilities, gains and bandpass of seven antennas, one of them dead."""
    return simulate_in_memory(replace(SMALL, dead=1))


@pytest.fixture(scope="module")
def many() -> Data:
    """Of more antennas than have a line of their own."""
    return simulate_in_memory(replace(SMALL, antennas=30, dead=1, subbands=1))


def check(made: Any, path: Path) -> None:
    """It can be written as a picture with something in it."""
    style.save(made, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        assert len(np.unique(np.asarray(image.convert("L")))) > 10


# All of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OF_VISIBILITIES)
def test_visibilities_are_drawn(kind: str, small: Data, many: Data, tmp_path: Path) -> None:
    """Of few antennas and of many."""
    for each in (small, many):
        check(OF_VISIBILITIES[kind](each[0], "title"), tmp_path / "made.png")


@pytest.mark.parametrize("kind", OF_GAINS)
def test_gains_are_drawn(kind: str, small: Data, many: Data, tmp_path: Path) -> None:
    """Gains and bandpasses alike, of few antennas and of many; the others too, as they are asked for."""
    tables = small[1:] + ((many[1],) if kind == "gains" else (many[2],))
    for each in tables:
        check(OF_GAINS[kind](each, "title"), tmp_path / "made.png")


@pytest.mark.parametrize("rows", ["none", "one", "all flagged", "not a number", "zero", "autos"])
@pytest.mark.parametrize("kind", OF_VISIBILITIES)
def test_visibilities_of_nothing_are_drawn(kind: str, rows: str, small: Data) -> None:
    """Without rows, without baselines, or without one that can be used there is a picture that says so."""
    data = small[0]
    match rows:
        case "none":
            data = some(data, np.zeros(len(data.time_s), np.bool_))
        case "one":
            data = some(data, np.arange(len(data.time_s)) == 1)
        case "all flagged":
            data = data.with_(flags=np.ones_like(data.flags))
        case "not a number":
            data = data.with_(data=np.full_like(data.data, np.nan))
        case "zero":
            data = data.with_(data=np.zeros_like(data.data))
        case _:
            data = some(data, data.is_auto)

    made = OF_VISIBILITIES[kind](data, "title")
    if rows in ("none", "all flagged"):
        made.draw_without_rendering()  # which takes most of the time


@pytest.mark.parametrize("kind", OF_GAINS)
def test_gains_without_solutions_are_drawn(kind: str, small: Data, many: Data) -> None:
    """All flagged, of one polarisation or of both, of few antennas or many."""
    for gains in (small[1], many[1]) if kind == "gains" else (small[2], many[2]):
        for lost in (np.ones_like(gains.flags), gains.flags | (np.arange(2) == 0)):
            made = OF_GAINS[kind](replace(gains, flags=lost), "title")
    made.draw_without_rendering()


def test_extremes_are_drawn(small: Data) -> None:
    """Amplitudes of 1e33 and of nearly nothing, as broken receivers give them, break no picture."""
    data = small[0].data.copy()
    data[::7] *= np.float32(1e30)
    data[1::7] *= np.float32(1e-30)

    for picture in OF_VISIBILITIES.values():
        picture(small[0].with_(data=data), "title").draw_without_rendering()


def some(data: Visibilities, rows: Any) -> Visibilities:
    """Only those rows."""
    names = ("data", "flags", "weights", "uvw_m", "time_s", "exposure_s", "antenna1", "antenna2", "field", "scan")
    return data.with_(**{name: getattr(data, name)[rows] for name in names})


# What they show -----------------------------------------------------------------------------------


def test_flags_are_counted(small: Data) -> None:
    """The map holds the percentage of each time and channel; what is no number counts as flagged."""
    flags, data = np.zeros_like(small[0].flags), small[0].data.copy()
    first = small[0].time_s == small[0].time_s.min()
    flags[first, 2] = True
    data[~first, 5] = np.nan

    made = OF_VISIBILITIES["flags"](small[0].with_(flags=flags, data=data), "title")

    image = np.asarray(made.axes[2].collections[0].get_array())
    expected = np.zeros((4, 8))
    expected[0, 2] = expected[1:, 5] = 100
    assert np.array_equal(image, expected)


def test_delays_are_in_nanoseconds(small: Data) -> None:
    """A table of delays is drawn as what it is: seconds are its real parts."""
    gains = small[1]
    delays = replace(gains, kind="delay", values=np.full_like(gains.values, 3.5e-9), flags=np.zeros_like(gains.flags))

    made = OF_GAINS["gains"](delays, "title")

    assert made.axes[0].get_ylabel() == "Delay (ns)"
    assert np.allclose(made.axes[0].lines[0].get_ydata(), 3.5)


def test_every_axis_has_its_unit(small: Data) -> None:
    """Where an axis has a label it says what it counts, and in which unit if there is one."""
    labels = set()
    for picture in (*OF_VISIBILITIES.values(),):
        labels |= {text for axes in picture(small[0], "").axes for text in (axes.get_xlabel(), axes.get_ylabel())}
    for gains in small[1:]:
        labels |= {
            text for axes in OF_GAINS["gains"](gains, "").axes for text in (axes.get_xlabel(), axes.get_ylabel())
        }

    without = {"", "Amplitude", "Antenna", "Rows"}
    assert [each for each in labels - without if "(" not in each and "%" not in each] == []


# From paths to files ------------------------------------------------------------------------------


def test_the_same_gives_the_same_bytes(small: Data, tmp_path: Path) -> None:
    """A picture of the same data is the same file, so that it can be compared."""
    for name in ("one.png", "two.png"):
        style.save(OF_VISIBILITIES["closure"](small[0], "title"), tmp_path / name)

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_truth_is_drawn(tmp_path: Path) -> None:
    """The folder beside a simulation gives its gains and its bandpass; of one kind only that one."""
    made = simulate(SMALL, tmp_path / "in")

    both = draw_all(Path(made.truth), tmp_path / "all")
    one = draw_all(Path(made.truth), tmp_path / "one", kinds=["bandpass"])

    stem = Path(made.truth).name
    assert [Path(each).name for each in both] == [f"{stem}_gains.png", f"{stem}_bandpass.png"]
    assert [Path(each).name for each in one] == [f"{stem}_bandpass.png"]
    assert all(Path(each).stat().st_size > 10_000 for each in both)


@pytest.mark.parametrize(
    "name", ["ata.LoA.C0352.uvh5_60647_62965_9760406_3c286_0001.uvh5", "zen.2456865.60537.xy.uvcRREAAM.ms"]
)
def test_data_of_others_are_drawn(name: str, shared: Path, tmp_path: Path) -> None:
    """A UVH5 file of amplitudes up to 1e36 and zeros, and a Measurement Set: each gives its three pictures."""
    path = shared / "data" / "radio-visibilities" / name
    if name.endswith(".ms"):
        unpack(Path(f"{path}.tar.gz"), tmp_path)
        path = tmp_path / name

    made = draw_all(path, tmp_path / "made")

    stem = name.rpartition(".")[0]
    assert [Path(each).name for each in made] == [f"{stem}_{kind}.png" for kind in OF_VISIBILITIES]


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    """A path that is not there, and a kind that a path does not have, with those that it has."""
    made = simulate(SMALL, tmp_path / "in")

    with pytest.raises(DataError, match="nowhere is not there"):
        draw_all(tmp_path / "nowhere", tmp_path)
    with pytest.raises(ValidationError, match=r"no picture flags of .*: take gains, bandpass"):
        draw_all(Path(made.truth), tmp_path, kinds=["flags"])


def test_no_display_is_needed(tmp_path: Path) -> None:
    """Pictures are drawn where there is no screen, whatever matplotlib is set to, and pyplot is not even loaded."""
    made = simulate(SMALL, tmp_path / "in")
    code = (
        "import os, sys\n"
        "os.environ.pop('DISPLAY', None); os.environ['MPLBACKEND'] = 'TkAgg'\n"
        "from pathlib import Path\n"
        "from absurd.tasks.pipeline.plots.draw import draw_all\n"
        f"draw_all(Path({made.truth!r}), Path({str(tmp_path)!r}))\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)\n"
    )

    result = run_python("-c", code)

    assert result.returncode == 0, told(result)
    assert "matplotlib.pyplot" not in sys.modules
