"""photometry.detect: completeness, false sources, places, neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from house import ROOT
from radio_skies import WIDTH, Field, add, draw, scattered, write
from single_run import fail, run

from absurd.tasks.catalog.cross_match import cross_match
from absurd.tasks.catalog.positions import position_name
from absurd.tasks.photometry.detect import background_and_noise, detect

SEED = 31
IMAGES = ROOT.parent / "shared" / "data" / "radio-images"
FIELD = Field(359.95, 40.0, side=512, cell_arcsec=3.0, noise=0.0003, attenuated=False)
ROUND = np.array([8 * np.log(2) / 25.0, 0.0, 8 * np.log(2) / 25.0])


def test_all_bright_sources_and_no_false_one(tmp_path: Path) -> None:
    """All of 200 sources above 8 deviations are found across right ascension 0, with their places and flux densities;
    nothing else is, and forced photometry takes the catalogue.
    """
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    places = scattered(rng, FIELD.ra, FIELD.dec, 200, across=0.2, up=0.2, apart=0.012)
    sources = [(ra, dec, float(10 ** rng.uniform(-2.4, -1))) for ra, dec in places]
    image = str(write(tmp_path / "image.fits", FIELD, draw(FIELD, sources, rng)))
    out = tmp_path / "sources.parquet"

    told, kinds = run("photometry.detect", {"image": image, "out": str(out)})

    found = pq.read_table(out)
    ra, dec, flux, error = (found.column(name).to_numpy() for name in ("ra", "dec", "flux_jy", "error_jy"))
    true_ra, true_dec, true = np.array(sources).T
    match = cross_match(true_ra, true_dec, ra, dec, 6.0)
    assert kinds == ["catalogue"]
    assert told["sources"] == found.num_rows
    assert len(match.first) == 200
    assert found.num_rows <= 201  # 5 deviations of noise are one in a million beams
    assert told["median_rms_jy"] == pytest.approx(FIELD.noise, rel=0.1)
    off = (flux[match.second] - true[match.first]) / error[match.second]
    assert np.std(off) < 1.4
    assert np.abs(match.offset_arcsec(true_ra, true_dec, ra, dec)).max() < 0.1
    assert np.median(match.separation_arcsec) < 1.0
    rows, _ = run("photometry.forced", {"images": [image], "positions": str(out), "out": str(tmp_path / "f.parquet")})
    assert rows["images"][0]["detected"] >= 195


def test_islands_sum_extended_sources() -> None:
    """The pixels of a source three beams wide sum up to its flux density within 2 %."""
    print(f"seed {SEED}")
    pixels = draw(FIELD, [], np.random.default_rng(SEED))
    add(pixels, 200.3, 210.4, 1.0, 15, 15)

    found = detect(pixels, ROUND)

    assert found.island_flux[0] == pytest.approx(15**2 / 5**2, rel=0.02)
    assert found.island_pixels[0] > 500
    assert pixels.sum() > 0.9 * 2 * np.pi * 15**2 / WIDTH**2


def test_what_is_wider_than_the_beam_is_looked_for(tmp_path: Path) -> None:
    """With a width of its own a source has the height of a Gaussian of that width."""
    print(f"seed {SEED}")
    pixels = draw(FIELD, [], np.random.default_rng(SEED))
    add(pixels, 200.3, 210.4, 1.0, 15, 15)
    image = str(write(tmp_path / "image.fits", FIELD, pixels))
    out = str(tmp_path / "sources.parquet")

    run("photometry.detect", {"image": image, "out": out, "fwhm_pixels": 15})

    assert pq.read_table(out).column("flux_jy")[0].as_py() == pytest.approx(1.0, rel=0.01)


def test_background_and_noise_are_local() -> None:
    """A level and a noise that change over the image are followed; blanks have no sources."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    slope = np.linspace(1, 3, 512, dtype=np.float32)
    pixels = draw(FIELD, [], rng) * slope + 0.001 * slope
    pixels[:100, :100] = np.nan

    level, noise = background_and_noise(pixels.astype(np.float32), 80)

    assert level[300, 50] == pytest.approx(0.001 * slope[50], abs=1.5e-4)
    assert noise[300, 450] == pytest.approx(FIELD.noise * slope[450], rel=0.15)
    assert not len(detect(pixels.astype(np.float32), ROUND, detection_sigma=6).x)


def test_names_by_position() -> None:
    """Names tell hours and degrees, rounded without sixties."""
    assert position_name(359.999999, -0.00001) == "J000000.00-000000.0"
    assert position_name(150.0, -29.97778) == "J100000.00-295840.0"


def test_engines_that_are_not_there(tmp_path: Path) -> None:
    """Without PyBDSF the task fails, and says how to get it."""
    image = str(write(tmp_path / "i.fits", FIELD, draw(FIELD, [], np.random.default_rng(1))))
    params = {"image": image, "out": str(tmp_path / "o.parquet"), "engine": "pybdsf"}

    error = fail("photometry.detect", params | {"python": str(tmp_path / "nowhere")})

    assert (error["code"], "cannot be run" in error["message"]) == ("pipeline_dependency", True)


@pytest.mark.skipif(not IMAGES.is_dir(), reason="the radio images are not beside the checkout")
def test_published_images(tmp_path: Path) -> None:
    """Of a published image the four components of Selavy are found, and no other source; of another one nearly all that
    Aegean found above 10 deviations and that are no blends.
    """
    out = tmp_path / "vast.parquet"
    run("photometry.detect", {"image": str(IMAGES / "vast" / "epoch01.fits"), "out": str(out), "detection_sigma": 6})
    found = pq.read_table(out)
    text = (IMAGES / "vast" / "epoch01.selavy.components.txt").read_text()
    rows = np.array([line.split()[5:7] for line in text.splitlines() if line[:1] == " "], dtype=float)
    match = cross_match(rows[:, 0], rows[:, 1], found.column("ra").to_numpy(), found.column("dec").to_numpy(), 1.0)
    assert (len(match.first), found.num_rows) == (4, 4)

    out = tmp_path / "aegean.parquet"
    run("photometry.detect", {"image": str(IMAGES / "aegean" / "1904-66_SIN.fits"), "out": str(out)})
    found = pq.read_table(out)
    table = Table.read(IMAGES / "aegean" / "1904_comp.fits")
    strong = np.array(table["peak_flux"] > 10 * table["local_rms"])
    ra, dec = (np.array(table[name], float)[strong] for name in ("ra", "dec"))
    match = cross_match(ra, dec, found.column("ra").to_numpy(), found.column("dec").to_numpy(), 240.0)
    assert len(match.first) >= 0.85 * strong.sum()
