"""photometry.forced: heights of Gaussians at given places, their errors, blends, limits, and published catalogues."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import ICRS
from astropy.table import Table
from house import ROOT
from radio_skies import WIDTH, Field, add, draw, scattered, write
from single_run import fail, run

from absurd.tasks.photometry.flags import Flag
from absurd.tasks.photometry.forced import measure
from absurd.tasks.photometry.local_noise import _median
from absurd.tasks.photometry.rows import COLUMNS
from absurd.tasks.photometry.shapes import beam_shape, source_shapes, width_pixels
from absurd.tasks.radio.sky_image import open_sky_image
from absurd.tasks.radio.sky_pixels import pixels_to_sky, sky_to_pixels

SEED = 77
FIELD = Field(150.0, -30.0, side=512, cell_arcsec=3.0, noise=0.0003, attenuated=False)
ROUND = np.array([8 * np.log(2) / 25.0, 0.0, 8 * np.log(2) / 25.0])
"""A beam of 5 pixels."""
IMAGES = ROOT.parent / "shared" / "data" / "radio-images"
real = pytest.mark.skipif(not IMAGES.is_dir(), reason="the radio images are not beside the checkout")


@pytest.fixture
def rng() -> np.random.Generator:
    print(f"seed {SEED}")
    return np.random.default_rng(SEED)


def test_unbiased_with_true_errors(rng: np.random.Generator) -> None:
    """Fluxes of 400 sources alone are right to 0.1 %, and scatter by their errors, which tell of smooth noise."""
    places = scattered(rng, FIELD.ra, FIELD.dec, 300, across=0.2, up=0.2, apart=0.012)
    sources = [(ra, dec, float(10 ** rng.uniform(-2.5, -1))) for ra, dec in places]
    pixels = draw(FIELD, sources, rng)
    ra, dec, true = np.array(sources).T
    x, y = FIELD.wcs.wcs_world2pix(ra, dec, 0)

    found = measure(pixels, x, y, ROUND)

    off = (found.flux - true) / found.error
    bright = true > 0.03
    assert abs(np.average(found.flux[bright] / true[bright] - 1, weights=true[bright] ** 2)) < 1e-3
    assert 0.85 < np.std(off) < 1.15
    assert 1.3 < found.scatter < 1.6  # sqrt(2) for noise that the beam has smoothed, and the background's
    assert np.median(found.rms) == pytest.approx(FIELD.noise, rel=0.05)


def test_formulas_one_by_one(rng: np.random.Generator) -> None:
    """Noise, background, flux density and misfit are what the formulas give, worked out again without any loop of
    ours: of points and long sources, in the middle, at an edge and beside blanks.
    """
    pixels = draw(FIELD, [], rng)
    pixels[200:230, 300:330] = np.nan
    x, y = rng.uniform(-2, FIELD.side + 1, (2, 60))
    x[:6], y[:6] = rng.uniform(290, 340, 6), rng.uniform(190, 240, 6)
    turn, ratio = rng.uniform(0, np.pi, 60), rng.uniform(0.1, 1, 60)
    xx, yy = (np.cos(turn) ** 2 + (np.sin(turn) * ratio) ** 2, np.sin(turn) ** 2 + (np.cos(turn) * ratio) ** 2)
    forms = ROUND[0] * np.stack([xx, np.sin(turn) * np.cos(turn) * (1 - ratio**2), yy], axis=1)
    row, column = np.mgrid[-100 : FIELD.side + 100, -100 : FIELD.side + 100]
    wide = np.pad(pixels, 100, constant_values=np.nan)

    for n in range(60):
        found = measure(pixels, x[n : n + 1], y[n : n + 1], ROUND, shapes=forms[n : n + 1], ring=(10.0, 25.0))
        near, up = np.rint(x[n]), np.rint(y[n])
        far = np.hypot(column - near, row - up)
        ring = (far >= 10) & (far <= 25) & ((column - near) % 3 == 0) & ((row - up) % 3 == 0) & np.isfinite(wide)
        values = wide[ring]
        for _ in range(3):
            level = float(np.median(values))
            off = np.abs(values - np.float32(level))
            rms = 1.4826 * float(np.median(off))
            if (off <= np.float32(3 * rms)).all():
                break
            values = values[off <= np.float32(3 * rms)]
        dx, dy = column - x[n], row - y[n]
        form = forms[n, 0] * dx**2 + 2 * forms[n, 1] * dx * dy + forms[n, 2] * dy**2
        height = np.where(form <= 12.5, np.exp(-form / 2), 0)
        there = np.isfinite(wide) & (height > 0)
        if (height[there] ** 2).sum() < 0.5 * (height**2).sum():
            assert Flag.OUTSIDE in Flag(int(found.flags[0]))
            continue
        flux = (height[there] * (wide[there] - level)).sum() / (height[there] ** 2).sum()
        inner = there & (form <= 12.5 / 4)
        misfit = ((wide[inner] - level - flux * height[inner]) ** 2).mean() / rms**2
        told = (found.background[0], found.rms[0], found.flux[0], found.chi_squared[0])
        assert told == pytest.approx((level, rms, flux, misfit), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("count", [16, 17, 200, 201])
def test_medians_are_exact(rng: np.random.Generator, count: int) -> None:
    """Whatever the numbers are, of which many may be the same, and wherever the search begins."""
    for values in (
        rng.standard_normal(count),
        rng.integers(0, 3, count),
        np.full(count, 7.25),
        np.repeat([0.0, 1.0], [count // 2, count - count // 2]),
        10.0 ** rng.uniform(-38, 38, count) * rng.choice([-1, 1], count),
        np.append(rng.standard_normal(count - 1), -3.4e38),
    ):
        numbers = values.astype(np.float32)
        for guess, between in ((0.0, 1e-2), (1e30, 1e-9), (-5.0, 1e20)):
            assert _median(numbers, count, guess, between) == float(np.median(numbers.astype(float)))


def test_blends_are_taken_apart(rng: np.random.Generator) -> None:
    """Neighbours from 0.7 to 2 beams apart come out right together, where each for itself would have the other's flux;
    those in one place are told to be inseparable.
    """
    pixels = draw(FIELD, [], rng)
    x, y, true = [], [], []
    for n, apart in enumerate((0.7, 1.0, 1.5, 2.0) * 10):
        at = 40.3 + 60 * (n % 7), 50.6 + 65 * (n // 7)
        turn = rng.uniform(0, 2 * np.pi)
        for place, peak in ((at, 0.1), ((at[0] + 5 * apart * np.cos(turn), at[1] + 5 * apart * np.sin(turn)), 0.05)):
            add(pixels, place[0], place[1], peak, 5, 5)
            x.append(place[0])
            y.append(place[1])
            true.append(peak)

    found = measure(pixels, np.array(x), np.array(y), ROUND)

    off = (found.flux - true) / found.error
    assert np.abs(off).max() < 5
    assert 0.7 < np.sqrt(np.mean(off**2)) < 1.3
    assert (found.flags == Flag.BLENDED).all()
    assert np.array_equal(found.group[::2], found.group[1::2])
    wider = found.error / found.rms
    assert (wider[::8] > 1.05 * wider[6::8]).all()  # 0.7 beams apart against 2
    same = measure(pixels, np.array([40.3, 40.4]), np.array([50.6, 50.6]), ROUND)
    assert (same.flags == Flag.BLENDED | Flag.INSEPARABLE).all()
    assert np.isnan(same.flux).all()


def test_extended_sources_keep_their_flux(rng: np.random.Generator) -> None:
    """A source three beams long, of a known shape, has its integrated flux density to 2 %."""
    pixels = draw(FIELD, [], rng)
    add(pixels, 250.2, 260.7, 0.05, 15, 6, angle=30)
    total = 0.05 * 2 * np.pi * 15 * 6 / WIDTH**2
    ra, dec = (np.array([float(each)]) for each in FIELD.wcs.wcs_pix2world(250.2, 260.7, 0))
    image = open_image(pixels)
    shapes = source_shapes(image, ra, dec, *(np.array([each]) for each in (45 / 3600, 18 / 3600, 30.0)))

    found = measure(pixels, np.array([250.2]), np.array([260.7]), ROUND, shapes=shapes)

    area = 2 * np.pi / np.sqrt(shapes[0, 0] * shapes[0, 2] - shapes[0, 1] ** 2)
    assert found.flux[0] * area == pytest.approx(total, rel=0.02)


def open_image(pixels: Any, folder: list[Path] = []) -> Any:  # noqa: B006 - one folder for all
    import tempfile

    if not folder:
        folder.append(Path(tempfile.mkdtemp()))
    path = folder[0] / "image.fits"
    path.unlink(missing_ok=True)
    return open_sky_image(write(path, FIELD, pixels))


def test_edges_blanks_and_no_noise(rng: np.random.Generator) -> None:
    """Beyond the image and in blanks there is no flux; beside them there is one, from the pixels that are there."""
    pixels = draw(FIELD, [], rng)
    for x in (100.0, 200.0, 300.0):
        add(pixels, x, 100.0, 0.1, 5, 5)
    pixels[97:104, 90:110] = np.nan
    pixels[:, 202:206] = np.nan
    places = np.array([100.0, 200.0, 300.0, -3.0, np.nan, 1000.0])

    found = measure(pixels, places, np.full(6, 100.0), ROUND)

    assert [Flag(int(each)) for each in found.flags[:3]] == [Flag.OUTSIDE, Flag.BLANK, Flag(0)]
    assert all(Flag.OUTSIDE in Flag(int(each)) for each in found.flags[3:])
    assert np.isnan(found.flux[[0, 3, 4, 5]]).all()
    assert found.flux[1:3] == pytest.approx(0.1, abs=0.003)
    flat = measure(np.zeros((30, 30), np.float32), np.array([15.0]), np.array([15.0]), ROUND)
    assert Flag.NO_NOISE in Flag(int(flat.flags[0]))


def test_rows_with_limits(rng: np.random.Generator, tmp_path: Path) -> None:
    """Each source has a row in each image; what is not detected has a limit above what was measured, and the columns
    are told.
    """
    sources = [(150.0, -30.0, 0.05), (150.1, -30.05, 0.0005)]
    images = [write(tmp_path / f"{n}.fits", FIELD, draw(FIELD, sources, rng)) for n in range(2)]
    catalogue = tmp_path / "sources.csv"
    with catalogue.open("w") as file:
        csv.writer(file).writerows(
            [["source_id", "ra", "dec"], ["bright", 150, -30], ["faint", 150.1, -30.05], ["off", 10, 50]]
        )
    out = tmp_path / "night.parquet"

    result, kinds = run(
        "photometry.forced", {"images": [str(each) for each in images], "positions": str(catalogue), "out": str(out)}
    )

    rows = pq.read_table(out).to_pylist()
    assert kinds == ["photometry"]
    assert (result["rows"], len(rows)) == (6, 6)
    assert list(rows[0]) == list(COLUMNS)
    bright, faint, off = rows[:3]
    assert bright["detected"]
    assert bright["flux_jy"] == pytest.approx(0.05, abs=0.002)
    assert bright["integrated_jy"] == pytest.approx(bright["flux_jy"], rel=1e-3)
    assert bright["upper_limit_jy"] is None
    assert not faint["detected"]
    assert faint["upper_limit_jy"] == pytest.approx(max(faint["flux_jy"], 0) + 3 * faint["error_jy"])
    assert (off["flux_jy"], off["flags"] & 1) == (None, 1)
    assert str(bright["observed"]) == "2026-01-01 00:00:00+00:00"
    assert [each["detected"] for each in result["images"]] == [1, 1]


def test_apertures_sum_what_has_any_shape(rng: np.random.Generator, tmp_path: Path) -> None:
    """Within four widths is all of a source's flux, however wide it is; beyond the image there is none."""
    pixels = draw(FIELD, [], rng)
    add(pixels, 60.3, 60.6, 0.5, 12, 12)
    image = write(tmp_path / "image.fits", FIELD, pixels)
    opened = open_sky_image(str(image))
    ra, dec = pixels_to_sky(opened.wcs, np.array([60.3, 2.0]), np.array([60.6, 2.0]))
    pq.write_table(pa.table({"source_id": ["wide", "edge"], "ra": ra, "dec": dec}), tmp_path / "sources.parquet")
    params = {
        "images": [str(image)],
        "positions": str(tmp_path / "sources.parquet"),
        "out": str(tmp_path / "f.parquet"),
    }

    run("photometry.forced", params | {"aperture_arcsec": 72.0, "ring_arcsec": [75.0, 120.0]})

    assert opened.beam is not None
    wide, edge = pq.read_table(tmp_path / "f.parquet").to_pylist()
    expected = 0.5 * 12**2 * 1.1331 * opened.cell_deg**2 / opened.beam.area_deg2
    assert wide["aperture_jy"] == pytest.approx(expected, rel=0.02)
    assert edge["aperture_jy"] is None


def test_rings_tell_the_background(rng: np.random.Generator) -> None:
    """A narrow one sees what is near, a wide one what is far."""
    pixels = draw(FIELD, [], rng)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    pixels[np.hypot(x - 80, y - 80) < 30] += np.float32(0.01)

    near, far = (
        measure(pixels, np.array([80.0]), np.array([80.0]), ROUND, ring=ring) for ring in ((12.0, 25.0), (35.0, 50.0))
    )

    assert near.background[0] == pytest.approx(0.01, abs=0.001)
    assert far.background[0] == pytest.approx(0.0, abs=0.001)


def test_wrong_catalogues_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """A column that is not there, a source twice, a place that is none, one that would be replaced: the error tells."""
    image = str(write(tmp_path / "i.fits", FIELD, draw(FIELD, [], rng)))
    for text, said in (
        ("id,ra,dek\na,1,2\n", "no column 'dec'"),
        ("source_id,ra,dec\na,1,2\na,1,3\n", "twice"),
        ("source_id,ra,dec\na,1,95\n", "no place on the sky"),
        ("source_id,ra,dec\na,one,9\n", "numbers"),
    ):
        (tmp_path / "c.csv").write_text(text)
        error = fail(
            "photometry.forced",
            {"images": [image], "positions": str(tmp_path / "c.csv"), "out": str(tmp_path / "o.parquet")},
        )
        assert (error["code"], said in error["message"]) == ("visibility_data", True), error
    same = str(tmp_path / "c.parquet")
    error = fail("photometry.forced", {"images": [image], "positions": same, "out": same})
    assert (error["code"], "both read and written" in error["message"]) == ("pipeline_validation", True), error


@real
def test_peaks_of_selavy(tmp_path: Path) -> None:
    """The four components of a published image are within 0.5 % of what Selavy fitted."""
    folder = IMAGES / "vast"
    rows = [
        line.split() for line in (folder / "epoch01.selavy.components.txt").read_text().splitlines() if line[:1] == " "
    ]
    table = Table(rows=[(r[1], float(r[5]), float(r[6])) for r in rows], names=["source_id", "ra", "dec"])
    table.write(tmp_path / "selavy.ecsv", format="ascii.ecsv")
    out = tmp_path / "out.parquet"

    run("photometry.forced", {"images": [str(folder / "epoch01.fits")], "positions": str(tmp_path / "selavy.ecsv"),
                              "out": str(out)})  # fmt: skip

    found = np.array(pq.read_table(out).column("flux_jy").to_pylist()) * 1e3
    assert len(found) == 4
    assert found == pytest.approx([float(r[10]) for r in rows], rel=0.005)


@real
def test_shapes_of_aegean() -> None:
    """Sources of a published catalogue above 10 deviations, fitted together with the shapes it tells, keep one ratio to
    its heights within 3 %; those for which that cannot be are told: blended, or at blanks.
    """
    folder = IMAGES / "aegean"
    image = open_sky_image(folder / "1904-66_SIN.fits")
    assert image.beam is not None
    table = Table.read(folder / "1904_comp.fits")
    ra, dec, major, minor, angle, peak, rms = (
        np.array(table[name], float) for name in ("ra", "dec", "a", "b", "pa", "peak_flux", "local_rms")
    )
    shapes = source_shapes(image, ra, dec, major / 3600, minor / 3600, angle)
    x, y = sky_to_pixels(image.wcs, ra, dec, ICRS())

    found = measure(
        image.pixels(), x, y, beam_shape(image, image.beam), shapes=shapes,
        background=open_sky_image(folder / "1904-66_SIN_bkg.fits").pixels(),
        noise=open_sky_image(folder / "1904-66_SIN_rms.fits").pixels(),
    )  # fmt: skip

    strong = peak > 10 * rms
    ratio = found.flux / peak
    clean = strong & (found.flags == 0)
    print(np.round(ratio[clean], 3), np.round(ratio[strong & ~clean], 3), found.flags[strong & ~clean])
    assert clean.sum() >= 10
    assert np.abs(ratio[clean] / np.median(ratio[clean]) - 1).max() < 0.03
    told = strong & (found.flags & Flag.BLANK == 0)
    assert np.abs(ratio[told] / np.median(ratio[clean]) - 1).max() < 0.03


def test_widths_of_a_form() -> None:
    """A beam of 15 by 10 arcseconds on cells of 2 is 7.5 by 5 pixels."""
    image = open_image(np.zeros((64, 64), np.float32))
    major, minor = width_pixels(beam_shape(image, image.beam))
    assert [major, minor] == pytest.approx([5, 5])
