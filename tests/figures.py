"""The figures of docs/executors: each measured, kept as numbers in JSON, and drawn as SVG beside it.

``.venv/bin/python tests/figures.py`` measures and draws all anew, or those that are named; tests/test_figures.py
measures some points of each again, and sees that a picture is of the numbers beside it; `make soak` measures all.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures_of_images
import known_gains
import numpy as np
from astropy.time import Time
from house import ROOT
from interference import Mask, interfered, recording
from interferometer import observed
from numpy.typing import NDArray
from pyuvdata_places import TELESCOPE, array, pyuvdata_uvw

from absurd.tasks.calibration.settings import GainSettings
from absurd.tasks.calibration.solve import solve_bandpass
from absurd.tasks.qa import closure_of
from absurd.tasks.qa.closure import mean_cosine_of
from absurd.tasks.radio.earth import utc_s
from absurd.tasks.visibility.flagging.flagger import flag
from absurd.tasks.visibility.uvw import uvw_m
from absurd.tasks.visibility.visibilities import PhaseCentre

FOLDER = ROOT / "docs" / "executors" / "figures"
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7a4f9a", "#555555")
MARKERS = "osv^D"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "absurd",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
Numbers = dict[str, float]
"""What was measured at one x, by series."""


@dataclass(frozen=True)
class Figure:
    """What is measured at which places, and how it is shown."""

    name: str
    x_label: str
    y_label: str
    places: tuple[float, ...]
    measure: Callable[[float], Numbers]
    """At one place; the same numbers each time."""
    again: tuple[float, ...]
    """Places at which tests measure anew, in seconds."""
    relative: float
    """By how much other processors may differ: part of a number."""
    absolute: float
    """And in the unit of y."""
    x_log: bool = True
    y_log: bool = False
    lines: tuple[str, ...] = ()
    """Series that are formulas: drawn without points."""
    level: tuple[float, str] | None = None
    """A limit, and what it is."""

    @property
    def numbers(self) -> Path:
        return FOLDER / f"{self.name}.json"

    @property
    def picture(self) -> Path:
        return FOLDER / f"{self.name}.svg"


def _flagging(ratio: float) -> Numbers:
    def narrow(random: np.random.Generator, data: np.ndarray[Any, Any]) -> Mask:
        return _add(data, random, (slice(None), slice(70, 73)))

    def burst(random: np.random.Generator, data: np.ndarray[Any, Any]) -> Mask:
        return _add(data, random, (11, slice(None)))

    def patch(random: np.random.Generator, data: np.ndarray[Any, Any]) -> Mask:
        return _add(data, random, (slice(8, 16), slice(70, 86)))

    def single(random: np.random.Generator, data: np.ndarray[Any, Any]) -> Mask:
        mask: Mask = random.random(data.shape) < 1e-3
        data[mask] += (ratio * np.exp(2j * np.pi * random.random(int(mask.sum())))).astype(np.complex64)
        return mask

    def _add(data: np.ndarray[Any, Any], random: np.random.Generator, where: Any) -> Mask:
        mask = np.zeros(data.shape, np.bool_)
        phase = np.exp(2j * np.pi * random.random((data.shape[0], 1, 1, 1)))
        mask[:, where[0], where[1]] = True
        data += (ratio * phase * mask).astype(np.complex64)
        return mask

    quiet, told = recording(antennas=8, channels=192), {}
    worst = 0.0
    for name, inject in (
        ("three channels, all times", narrow),
        ("all channels, one time", burst),
        ("16 channels, 8 times", patch),
        ("single visibilities", single),
    ):
        made, truth = interfered(quiet, inject)
        flags = flag(made)[0].flags
        told[name] = 100 * float(flags[truth].mean())
        worst = max(worst, 100 * float(flags[~truth].mean()))
    return told | {"wrongly flagged (most of the four)": worst}


def _uvw(declination: float) -> Numbers:
    one, two = np.triu_indices(len(TELESCOPE.stations), 1)
    most = {"u, v": 0.0, "w": 0.0}
    for begin in ("2025-10-05T12:30:00", "2025-10-05T15:30:00", "2022-12-31T23:59:50"):
        time = Time(begin, scale="utc")
        ra, dec = math.radians(202.78), math.radians(declination)
        when, field = np.full(len(one), utc_s(time.jd)), np.zeros(len(one), np.int32)
        off = uvw_m(array(), one, two, when, field, [PhaseCentre("", ra, dec)]) - pyuvdata_uvw(time, ra, dec, one, two)
        most["u, v"] = max(most["u, v"], 1e3 * float(np.abs(off[:, :2]).max()))
        most["w"] = max(most["w"], 1e3 * float(np.abs(off[:, 2]).max()))
    return most


def _gains(snr: float) -> Numbers:
    antennas, dead = 20, (3, 11)
    empty = known_gains.empty(antennas, 8, 6)
    scene = known_gains.observe(empty, np.ones(empty.data.shape, np.complex64), seed=7, noise=1 / snr, drift=0.0)
    random = np.random.default_rng(8)
    seen = scene.visibilities
    noise = (random.normal(size=seen.data.shape) + 1j * random.normal(size=seen.data.shape)) / snr
    phases = np.exp(2j * np.pi * random.random(seen.data.shape))
    spoilt = np.where(random.random(seen.data.shape) < 0.1, seen.data + 30 * phases, seen.data)
    of_dead = np.isin(seen.antenna1, dead) | np.isin(seen.antenna2, dead)
    silent = np.where(of_dead[:, None, None], noise, seen.data)
    settings = GainSettings(min_snr=3.0, reference=(seen.array.names[dead[0]], seen.array.names[0]))

    def error(data: NDArray[np.complexfloating], without: tuple[int, ...] = ()) -> float:
        gains = solve_bandpass(seen.with_(data=data.astype(np.complex64)), scene.model, settings)
        left = np.setdiff1d(np.arange(antennas), without)
        found = np.where(gains.flags, np.nan, gains.values)
        return 100 * known_gains.error(found[:, left], scene.truth[:1, left])

    power = np.abs(scene.truth) ** 2
    others = power.sum(axis=(0, 1), keepdims=True) - power.sum(axis=0, keepdims=True)
    return {
        "noise alone": error(seen.data),
        "interference of 30 times the source on 10 %": error(spoilt),
        "two dead antennas, one the reference": error(silent, dead),
        "what noise leaves": 100 * math.sqrt(np.mean(2 / (snr**2 * power[:1] * others))),
    }


def _closure(snr: float) -> Numbers:
    told: Numbers = {}
    for antennas in (28, 12):
        random = np.random.default_rng(2021)
        scans = [closure_of(observed(random, antennas=antennas, snr=snr)) for _ in range(5)]
        told[f"{antennas} antennas, {scans[0].samples // scans[0].triangles} samples"] = -float(
            np.median([each.log10_false_alarm for each in scans])
        )
        triangles, samples = scans[0].triangles, scans[0].samples // scans[0].triangles
        share = samples * mean_cosine_of(snr) ** 2
        told[f"{antennas} antennas, expected"] = triangles * share / (1 + share) / math.log(10)
    return told


FIGURES = (
    Figure(
        "flagging",
        "amplitude of the interference / σ of a visibility's real part",
        "part flagged, %",
        (0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 16.0),
        _flagging,
        (1.0,),
        relative=0.02,
        absolute=0.6,
    ),
    Figure(
        "coordinates",
        "declination of the phase centre, degrees",
        "largest difference from pyuvdata, mm",
        (-40.0, -20.0, 0.0, 20.0, 40.0, 55.0, 65.0, 72.0, 78.0, 84.0),
        _uvw,
        (72.0,),
        relative=0.3,
        absolute=1e-3,
        x_log=False,
        y_log=True,
    ),
    Figure(
        "gain_error",
        "source / σ of a visibility's real part",
        "error of gains (root mean square), %",
        (0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
        _gains,
        (1.0, 16.0),
        relative=0.1,
        absolute=0.01,
        y_log=True,
        lines=("what noise leaves",),
    ),
    Figure(
        "closure",
        "source / σ of a visibility's real part",
        "-log10 of the probability that it is noise",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.6, 2.0, 3.0),
        _closure,
        (0.1, 0.7),
        relative=0.05,
        absolute=0.3,
        lines=("28 antennas, expected", "12 antennas, expected"),
        level=(6.0, "passes above"),
    ),
    Figure(
        "imaging",
        "flux density / thermal noise of the image",
        "error (root mean square), %",
        (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0),
        figures_of_images.imaging,
        (100.0,),
        relative=0.2,
        absolute=0.05,
        y_log=True,
        lines=("thermal noise",),
    ),
    Figure(
        "mosaic",
        "full width of the beam at half maximum, pixels",
        "error of flux densities, %",
        (3.0, 3.5, 4.0, 4.5, 5.0, 6.0),
        figures_of_images.mosaic,
        (4.0,),
        relative=0.1,
        absolute=0.01,
        x_log=False,
        y_log=True,
    ),
    Figure(
        "blends",
        "distance of two sources / width of the beam",
        "error of the fainter one (root mean square), %",
        (0.3, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0, 3.0),
        figures_of_images.blends,
        (0.5, 2.0),
        relative=0.1,
        absolute=0.1,
        x_log=False,
        y_log=True,
    ),
)


def measured(figure: Figure, places: Sequence[float]) -> dict[str, list[float]]:
    """The places and what was measured there, by series, four digits of each."""
    told = [figure.measure(place) for place in places]
    series = {name: [float(f"{each[name]:.4g}") for each in told] for name in told[0]}
    return {figure.x_label: list(places), **series}


def check(figure: Figure, places: Sequence[float]) -> None:
    """Measure at some places anew: what is kept of them has to agree, as far as processors do."""
    kept = json.loads(figure.numbers.read_text(encoding="utf-8"))
    found = measured(figure, places)
    assert kept[figure.x_label] == list(figure.places) and list(kept) == list(found)
    at = [figure.places.index(place) for place in places]
    for name, values in found.items():
        told = np.array(kept[name])[at]
        np.testing.assert_allclose(values, told, rtol=figure.relative, atol=figure.absolute, err_msg=name)


def digest(figure: Figure) -> str:
    """Of the numbers, as it stands in their picture."""
    return f"numbers sha256 {hashlib.sha256(figure.numbers.read_bytes()).hexdigest()}"


def draw(figure: Figure, path: Path) -> None:
    """Draw the numbers that are kept; the same give the same bytes, of one version of matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    numbers = json.loads(figure.numbers.read_text(encoding="utf-8"))
    places = numbers.pop(figure.x_label)
    with rc_context(STYLE):  # type: ignore[arg-type]
        canvas = Canvas(figsize=(6.0, 3.9), layout="constrained")
        axes = canvas.add_subplot()
        points = [name for name in numbers if name not in figure.lines]
        for name, colour, marker in zip(points, COLOURS, MARKERS, strict=False):
            axes.plot(
                places, numbers[name], marker + "-", color=colour, markersize=4.5, mfc="none", linewidth=1, label=name
            )
        for name, colour in zip(figure.lines, (COLOURS * 2)[:: 1 if len(figure.lines) > 1 else 4], strict=False):
            axes.plot(places, numbers[name], "--", color=colour, linewidth=1.0, label=name)
        if figure.level is not None:
            axes.axhline(figure.level[0], color=COLOURS[-1], linewidth=0.8, linestyle=":", label=figure.level[1])
        axes.set_xscale("log" if figure.x_log else "linear")
        axes.set_yscale("log" if figure.y_log else "linear")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set(xlabel=figure.x_label, ylabel=figure.y_label)
        canvas.legend(loc="outside upper center", ncols=2)
        metadata = {"Description": digest(figure), "Date": None, "Creator": None} if path.suffix == ".svg" else None
        canvas.savefig(path, metadata=metadata, dpi=110, facecolor="white")


def main(names: Sequence[str]) -> None:
    """Measure and draw figures, all or those named."""
    FOLDER.mkdir(exist_ok=True)
    for figure in FIGURES:
        if not names or figure.name in names:
            text = json.dumps(measured(figure, figure.places), indent=1, ensure_ascii=False)
            figure.numbers.write_text(text + "\n", encoding="utf-8")
            draw(figure, figure.picture)
            print(figure.picture)


if __name__ == "__main__":
    main(sys.argv[1:])
