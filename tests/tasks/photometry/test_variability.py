"""photometry.variability: statistics by hand, steady sources, a simulated night, one flux scale."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from radio_skies import DISH_M, FREQUENCY_HZ, Field, Source, draw, scattered, write
from single_run import fail, run

from absurd.tasks.photometry.normalise import linked_scales, pick_references, scale_of
from absurd.tasks.photometry.variability import (
    pairs_false_alarm,
    scattering_score,
    statistics,
    transient,
    variable,
)
from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.errors import PhotometryError
from absurd.tasks.radio.sky_pixels import separation_rad

SEED = 99
FIELD = Field(150.0, -30.0, side=400, cell_arcsec=3.0, noise=0.0003, attenuated=False)
EPOCHS = 12


def test_statistics_by_hand() -> None:
    """eta, V, Vs, m, sigma deviation and score are what a pencil gives for four epochs with errors 1, 1, 2, 2.

    F = 10, 12, 8, 14; w = 1, 1, 1/4, 1/4: <w> = 0.625, <wF> = 6.875, <wF^2> = 77.25.
    """
    flux, error = np.array([[10.0, 12.0, 8.0, 14.0]]), np.array([[1.0, 1.0, 2.0, 2.0]])
    w_mean = (1 + 1 + 0.25 + 0.25) / 4
    wf_mean = (10 + 12 + 2 + 3.5) / 4
    wff_mean = (100 + 144 + 16 + 49) / 4

    found = statistics(flux, error)

    assert (w_mean, wf_mean, wff_mean) == (0.625, 6.875, 77.25)
    assert found.eta[0] == pytest.approx(4 / 3 * (77.25 - 6.875**2 / 0.625))
    assert found.eta[0] == pytest.approx(2.166667, rel=1e-6)
    assert found.weighted_mean[0] == pytest.approx(11.0)
    assert found.mean[0] == pytest.approx(11.0)
    assert found.v[0] == pytest.approx(np.sqrt(20 / 3) / 11)  # (1 + 1 + 9 + 9) / 3
    assert found.vs[0] == pytest.approx(6 / np.sqrt(8))  # of the last two; 12 - 8 has 4 / sqrt(5) = 1.79
    assert found.m[0] == pytest.approx(2 * 6 / 22)
    assert found.sigma_deviation[0] == pytest.approx(3 / np.sqrt(20 / 3))
    chance = math.erfc(math.sqrt(3.25)) + math.sqrt(13 / math.pi) * math.exp(-3.25)  # of 6.5 with 3 degrees of freedom
    assert found.false_alarm[0] == pytest.approx(chance)
    score, confidence = scattering_score(found)
    expected = 5 * (3 / np.sqrt(20 / 3)) / 1.5 + 3 * 2.166667 / 2.5 + 2  # 4 epochs reach (4 - 1) / sqrt(4) = 1.5
    assert score[0] == pytest.approx(expected, rel=1e-5)
    assert confidence == ["high"]


def test_few_epochs_and_gaps() -> None:
    """Statistics of one epoch are unknown, never zero; epochs without a measurement do not count."""
    nan = np.nan
    found = statistics(np.array([[1.0, nan, nan], [1.0, nan, 3.0], [nan] * 3]), np.full((3, 3), 0.5))

    assert found.epochs.tolist() == [1, 2, 0]
    assert np.isnan(found.eta[[0, 2]]).all()
    assert np.isnan(found.vs[[0, 2]]).all()
    assert found.eta[1] == pytest.approx(8.0)
    assert found.vs[1] == pytest.approx(2 / np.sqrt(0.5))


def test_false_alarms_are_as_documented() -> None:
    """Of 40,000 steady sources with Gaussian errors not more than the documented share is variable; of the changing
    ones most are found.
    """
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    error = rng.uniform(0.5, 2, (40_000, EPOCHS))
    steady = 10 + error * rng.standard_normal(error.shape)
    for rate in (0.01, 0.001):
        found = variable(statistics(steady, error), false_alarm=rate, least_epochs=3, least_v=0)
        assert found.mean() < rate + 3 * np.sqrt(rate / len(steady))
        assert found.mean() > rate / 4  # the bound is not empty
    changing = steady.copy()
    changing[:, 5:8] += 6 * error[:, 5:8]
    assert variable(statistics(changing, error), false_alarm=0.001, least_epochs=3, least_v=0).mean() > 0.95


def test_transients_are_absent_at_other_times() -> None:
    """A source in two of twelve epochs is a transient; one that is always there, or never, is none."""
    error = np.ones((3, EPOCHS))
    flux = np.zeros((3, EPOCHS))
    flux[0, 4:6] = 9.0
    flux[1] = 9.0

    assert transient(flux, error, detection_sigma=7).tolist() == [True, False, False]
    assert pairs_false_alarm(np.array([0.0, 10.0]), np.array([12, 12])) == pytest.approx([1.0, 0.0], abs=1e-9)


def test_one_flux_scale() -> None:
    """Scales of epochs are found to 0.3 %, though one reference doubles and an epoch of the baseline is odd."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    true = np.array([1.0, 1.05, 0.9, 1.3, 1.0, 0.97, 1.02, 1.0, 0.8, 1.1, 1.0, 1.04])
    source = rng.uniform(0.1, 1, (30, 1))
    error = np.broadcast_to(source / 200, (30, 12)).copy()
    flux = source * true * (1 + rng.standard_normal((30, 12)) / 200)
    flux[3, 6:] *= 2
    flux[10, 2] = np.nan

    references = pick_references(flux, error, usable=np.arange(30) != 4)
    scale = scale_of(flux, error, references)

    assert len(references) == 20
    assert not {4, 10} & set(references)
    assert scale.factor / np.median(scale.factor[:10]) == pytest.approx(true / np.median(true[:10]), rel=0.005)
    made, spread = scale.apply(flux, error)
    assert (spread > error / scale.factor).all() or np.isnan(flux).any()
    assert np.nanmedian(made[0] / source[0]) == pytest.approx(np.nanmedian(made[1] / source[1]), rel=0.01)
    with pytest.raises(PhotometryError, match="2 sources can be references"):
        scale_of(flux, error, references[:2])


def test_simulated_night(tmp_path: Path) -> None:
    """Of a night of 12 epochs the injected variable and transient are found, from the images on, and no steady source;
    where a source is not seen there is a row with a limit.
    """
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    places = scattered(rng, FIELD.ra, FIELD.dec, 42, across=0.14, up=0.14, apart=0.02)
    peaks = 10 ** rng.uniform(-1.9, -0.7, 42)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    gains = 1 + 0.05 * rng.standard_normal(EPOCHS)
    images = []
    for epoch in range(EPOCHS):
        flux = peaks.copy()
        flux[0] = 0.02 * (1 + 0.4 * np.sin(epoch))  # varies by 40 %
        flux[1] = 0.01 if epoch in (6, 7) else 0.0  # comes and goes
        flux[2] = 0.0002  # never seen
        sources: list[Source] = [(*place, float(each * gains[epoch])) for place, each in zip(places, flux, strict=True)]
        images.append(str(write(tmp_path / f"{epoch:02}.fits", FIELD, draw(FIELD, sources, rng),
                                start + timedelta(minutes=5 * epoch))))  # fmt: skip
    names = [f"s{n:02}" for n in range(42)]
    ra, dec = np.array(places).T
    pq.write_table(pa.table({"source_id": names, "ra": ra, "dec": dec}), tmp_path / "sources.parquet")
    rows = tmp_path / "night.parquet"
    run("photometry.forced", {"images": images, "positions": str(tmp_path / "sources.parquet"), "out": str(rows)})
    params: dict[str, Any] = {"photometry": [str(rows)], "out": str(tmp_path / "v.parquet")}

    told, kinds = run("photometry.variability", params | {"light_curves": str(tmp_path / "curves.parquet")})

    assert kinds == ["variability", "light_curves"]
    assert told["variable"] == ["s00"]
    assert told["transient"] == ["s01"]
    assert told["counts"] == {"steady": 40, "variable": 1, "transient": 1, "not judged": 0}
    scales = np.array([each["scale"] for each in told["epochs"]])
    assert scales / np.median(scales) == pytest.approx(gains / np.median(gains), rel=0.01)
    night = pq.read_table(rows).to_pylist()
    unseen = [each for each in night if each["source_id"] == "s02"]
    assert len(unseen) == EPOCHS
    assert all(not each["detected"] and each["upper_limit_jy"] > each["flux_jy"] for each in unseen)
    curves = pq.read_table(tmp_path / "curves.parquet")
    assert curves.num_rows == 42 * EPOCHS
    assert curves.column("observed").to_pylist()[:2] == [start, start + timedelta(minutes=5)]
    steady = [each for each in pq.read_table(tmp_path / "v.parquet").to_pylist() if each["kind"] == "steady"]
    assert 0.7 < np.median([each["eta"] for each in steady]) < 1.4
    error = fail("photometry.variability", params | {"references": ["nobody", "s03", "s04"]})
    assert (error["code"], "nobody" in error["message"]) == ("photometry_failed", True)
    few, _ = run("photometry.variability", params | {"min_epochs": 13, "normalise": False})
    assert few["counts"]["not judged"] == 42
    told, _ = run("photometry.variability", params | {"target_flux_range_jy": [0.015, 0.03]})
    means = {each["source_id"]: each["mean_jy"] for each in pq.read_table(tmp_path / "v.parquet").to_pylist()}
    assert told["counts"]["not judged"] == sum(not 0.015 <= each <= 0.03 for each in means.values())
    run("photometry.variability", params | {"reference_flux_range_jy": [0.05, 0.1]})
    chosen = [each for each in pq.read_table(tmp_path / "v.parquet").to_pylist() if each["reference"]]
    assert len(chosen) >= 3
    assert all(0.045 < each["mean_jy"] < 0.11 for each in chosen)
    apart = fail("photometry.variability", params | {"reference_separation_arcsec": 3600})
    assert "0 sources can be references" in apart["message"]
    (tmp_path / "nights").mkdir()
    rows.rename(tmp_path / "nights" / "one.parquet")
    folder, _ = run("photometry.variability", params | {"photometry": [str(tmp_path / "nights")]})
    assert folder["variable"] == ["s00"]
    (tmp_path / "none").mkdir()
    none = fail("photometry.variability", params | {"photometry": [str(tmp_path / "none")]})
    assert "no Parquet file" in none["message"]
    rows = tmp_path / "nights" / "one.parquet"
    twice = fail("photometry.variability", params | {"photometry": [str(rows), str(rows)]})
    assert "measured twice" in twice["message"]
    for name in ("out", "light_curves"):
        same = fail("photometry.variability", params | {"photometry": [str(rows)], name: str(rows)})
        assert "both read and written" in same["message"]


def test_a_night_that_drifts_through_the_beam(tmp_path: Path) -> None:
    """Of a night in which each source is in a few of twelve images, divided by the beam, and no source in all, scales
    of epochs are found, flux densities are right, and the one source that varies is variable.
    """
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    fields = [Field((356 + 1.25 * epoch) % 360, 54.6) for epoch in range(EPOCHS)]
    places = scattered(rng, 2.9, 54.6, 90, across=4.5, up=1.0, apart=0.25)
    peaks = 10 ** rng.uniform(-1.2, -0.2, len(places))
    varying = min(range(len(places)), key=lambda n: abs((places[n][0] + 180) % 360 - 182.9))
    gains = 1 + 0.05 * rng.standard_normal(EPOCHS)
    images = []
    for epoch, field in enumerate(fields):
        flux = peaks * gains[epoch]
        flux[varying] *= 1.3 if epoch % 2 else 0.8
        sky = [(*place, float(each)) for place, each in zip(places, flux, strict=True)]
        row, column = np.mgrid[: field.side, : field.side]
        ra, dec = field.wcs.wcs_pix2world(column.ravel(), row.ravel(), 0)
        far = separation_rad(ra, dec, field.ra, field.dec).reshape(row.shape)
        power = beam_named("airy", DISH_M).power(far, np.array(FREQUENCY_HZ))
        seen = np.where(power > 0.2, draw(field, sky, rng) / power, np.nan).astype(np.float32)
        images.append(str(write(tmp_path / f"{epoch:02}.fits", field, seen, start + timedelta(minutes=5 * epoch))))
    ra, dec = np.array(places).T
    names = [f"s{n:02}" for n in range(len(places))]
    pq.write_table(pa.table({"source_id": names, "ra": ra, "dec": dec}), tmp_path / "sources.parquet")
    rows = tmp_path / "night.parquet"
    run("photometry.forced", {"images": images, "positions": str(tmp_path / "sources.parquet"), "out": str(rows)})

    told, _ = run("photometry.variability", {"photometry": [str(rows)], "out": str(tmp_path / "v.parquet")})

    table = {each["source_id"]: each for each in pq.read_table(tmp_path / "v.parquet").to_pylist()}
    assert max(each["epochs"] for each in table.values()) < EPOCHS
    assert told["variable"] == [f"s{varying:02}"]
    assert told["counts"]["steady"] > 50
    scales = np.array([each["scale"] for each in told["epochs"]])
    assert scales / np.median(scales) == pytest.approx(gains / np.median(gains), rel=0.01)
    steady = [table[name] for name in names if table[name]["kind"] == "steady"]
    ratios = np.array([each["weighted_mean_jy"] / peaks[names.index(each["source_id"])] for each in steady])
    assert np.median(np.abs(ratios / np.median(ratios) - 1)) < 0.01
    assert 0.6 < np.median([each["eta"] for each in steady]) < 1.5


def test_epochs_are_linked_by_sources() -> None:
    """Scales that drift slowly are found along a chain of 100 epochs, whose ends share no source; epochs that nothing
    links are each on a scale of their own, and one without a measurement has none.
    """
    rng = np.random.default_rng(SEED)
    epochs = 100
    true = np.exp(0.3 * np.sin(np.arange(epochs) / 20))
    seen = np.abs(np.arange(epochs) - rng.uniform(0, epochs, (300, 1))) < 3
    level = rng.uniform(0.1, 1, (300, 1))
    error = np.broadcast_to(level / 100, seen.shape)
    flux = np.where(seen, level * true * (1 + rng.standard_normal(seen.shape) / 100), np.nan)
    flux[::50] *= 1 + rng.uniform(0, 1, (6, epochs))
    found = linked_scales(flux, error)
    # A step from one epoch to the next is known to 0.2 % or so, and errors add up along the chain.
    assert np.diff(np.log(found)) == pytest.approx(np.diff(np.log(true)), abs=0.02)
    assert found / np.median(found) == pytest.approx(true / np.median(true), rel=0.1)

    flux = np.array([[1.0, 2.0, np.nan, np.nan, np.nan], [np.nan, np.nan, np.nan, 8.0, 4.0]])
    assert linked_scales(flux, np.full((2, 5), 0.1)) == pytest.approx([2 / 3, 4 / 3, np.nan, 4 / 3, 2 / 3], nan_ok=True)
