"""Pictures of images, mosaics and light curves: that they show what is so."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from matplotlib.patches import Ellipse, Polygon
from PIL import Image
from radio_skies import Field, draw, write
from single_run import run

from absurd.tasks.pipeline.plots.draw import draw_all, pictures_of
from absurd.tasks.pipeline.plots.light_curves import LightCurves, draw_light_curves, open_light_curves
from absurd.tasks.pipeline.plots.opening import open_data
from absurd.tasks.pipeline.plots.sky import SkyPicture, draw_footprint, draw_image, draw_residuals, open_picture
from absurd.tasks.radio.errors import DataError, ValidationError

FIELD = Field(10.0, 40.0, side=128, noise=0.002, attenuated=False)
START = datetime(2026, 1, 1, tzinfo=UTC)


def opened(path: Path) -> SkyPicture:
    picture = open_picture(path)
    assert picture is not None
    return picture


def an_image(path: Path, field: Field = FIELD) -> Path:
    """With a source of 1 Jy half a degree to the east, and a beam that lies at an angle."""
    rng = np.random.default_rng(4)
    ra = field.ra + 0.5 / math.cos(math.radians(field.dec))
    write(path, field, draw(field, [(ra, field.dec, 1.0)], rng))
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["BMIN"], hdus[0].header["BPA"] = hdus[0].header["BMAJ"] / 2, 30.0
    return path


# Images -------------------------------------------------------------------------------------------


def test_an_image_has_its_beam_and_its_colours(tmp_path: Path) -> None:
    """East is to the left, in degrees; the beam has its angle from north through east; colours are in mJy/beam."""
    made: Any = draw_image(opened(an_image(tmp_path / "i.fits", replace(FIELD, side=256))), "title")

    axes, bar = made.axes
    left, right = axes.get_xlim()
    assert left > right
    pixels = axes.images[0].get_array()
    _, column = np.unravel_index(int(pixels.argmax()), pixels.shape)
    assert left + (column + 0.5) * (right - left) / pixels.shape[1] == pytest.approx(0.5, abs=0.02)
    assert float(pixels.max()) == pytest.approx(1000, rel=0.05)
    (beam,) = (each for each in axes.patches if isinstance(each, Ellipse))
    times = beam.width / (5 * 48 / 3600)
    assert (beam.height / beam.width, beam.angle) == pytest.approx((0.5, 60.0))
    assert f"240.0″ × 120.0″, 30° (drawn {times:.0f} times as large)" in axes.texts[-1].get_text()
    assert bar.get_ylabel() == "mJy/beam"
    assert [axes.get_xlabel(), axes.get_ylabel()] == [
        f"{side} of the reference (degrees)" for side in ("East", "North")
    ]


def test_no_source_of_a_large_image_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each block of pixels the highest is drawn; blanks are blank, and an image of nothing else says so."""
    monkeypatch.setattr("absurd.tasks.pipeline.plots.sky.MOST_PIXELS", 32)
    pixels = np.zeros((128, 128), np.float32)
    pixels[70, 33] = 5.0
    pixels[:8] = np.nan
    made: Any = draw_image(opened(write(tmp_path / "i.fits", FIELD, pixels)), "title")

    shown = made.axes[0].images[0].get_array()
    assert shown.shape == (32, 32)
    assert float(shown[17, 8]) == 5000
    assert shown.mask[:2].all()
    assert not shown.mask[2:].any()
    empty: Any = draw_image(opened(write(tmp_path / "e.fits", FIELD, np.full((128, 128), np.nan, np.float32))), "title")
    assert "no pixel has a value" in empty.axes[0].texts[-1].get_text()


def test_planes_are_panels(tmp_path: Path) -> None:
    """Each with its own pixels and its frequency."""
    header = fits.getheader(write(tmp_path / "i.fits", FIELD, np.zeros((128, 128), np.float32)))
    cube = np.arange(3, dtype=np.float32)[None, :, None, None] * np.ones((1, 3, 128, 128), np.float32)
    cube[..., 5, 6] += 1
    fits.writeto(tmp_path / "cube.fits", cube, header)

    made: Any = draw_image(opened(tmp_path / "cube.fits"), "title")

    shown = [each for each in made.axes if each.images and each.get_xlabel()]
    assert [float(each.images[0].get_array()[0, 0]) for each in shown] == [0, 1000, 2000]
    assert [each.get_title(loc="left") for each in shown] == ["1405.0 MHz", "1585.0 MHz", "1765.0 MHz"]


def test_residuals_scatter_as_noise_does(tmp_path: Path) -> None:
    """A histogram holds all pixels, in units of their scatter; where the imager left a residual it is of that."""
    path = an_image(tmp_path / "a-image.fits")
    alone: Any = draw_residuals(opened(path), "title")
    rng = np.random.default_rng(2)
    write(tmp_path / "a-residual.fits", FIELD, draw(FIELD, [], rng))
    beside: Any = draw_residuals(opened(path), "title")

    for made, name in ((alone, "a-image.fits"), (beside, "a-residual.fits")):
        assert made.texts[1].get_text().startswith(f"{name}: scatter ")
        counts = made.axes[0].patches[0].get_data().values
        assert counts.sum() == 128 * 128
        told = made.axes[0].get_legend().get_texts()
        assert told[0].get_text().startswith("16,384 pixels, variance 1.0")
    assert "0 beyond 5 deviations" in beside.axes[0].get_legend().get_texts()[2].get_text()
    assert "0 beyond 5 deviations" not in alone.axes[0].get_legend().get_texts()[2].get_text()
    flat: Any = draw_residuals(opened(write(tmp_path / "f.fits", FIELD, np.zeros((128, 128), np.float32))), "title")
    assert flat.axes[0].texts[-1].get_text() == "the pixels do not scatter"


def test_footprints_are_where_tiles_are(tmp_path: Path) -> None:
    """Of tiles on both sides of right ascension 0: outlines around their centres, with name and noise; the histogram of
    a mosaic is over its noise map.
    """
    rng = np.random.default_rng(6)
    fields = [Field(ra, 54.6, side=128, noise=noise) for ra, noise in ((359.4, 0.001), (0.8, 0.002))]
    tiles = [str(write(tmp_path / f"t{n}.fits", each, draw(each, [], rng))) for n, each in enumerate(fields)]
    told, _ = run("imaging.mosaic", {"tiles": tiles, "out": str(tmp_path / "m.fits")})
    picture = opened(tmp_path / "m.fits")

    made: Any = draw_footprint(picture, "title")

    outlines = [each for each in made.axes[0].patches if isinstance(each, Polygon) and not each.get_fill()]
    east = [each.get_xy()[:4, 0].mean() for each in outlines]
    assert east == pytest.approx([-0.7 * math.cos(math.radians(54.6)), 0.7 * math.cos(math.radians(54.6))], abs=0.02)
    assert np.ptp(outlines[0].get_xy()[:, 1]) == pytest.approx(128 * 48 / 3600, rel=0.02)
    assert [str(each.get_label()).partition(",")[0] for each in outlines] == ["1: t0.fits", "2: t1.fits"]
    noises = [float(str(each.get_label()).partition(", ")[2].split()[0]) for each in outlines]
    assert noises == pytest.approx([1e3 * each["noise_jy"] for each in told["tiles"]], rel=0.01)
    over: Any = draw_residuals(picture, "title")
    assert "over the noise map" in over.texts[1].get_text()
    assert list(pictures_of(picture)) == ["image", "residuals", "footprint"]
    assert list(pictures_of(opened(tmp_path / "t0.fits"))) == ["image", "residuals"]


# Light curves -------------------------------------------------------------------------------------


def measured(path: Path, **changes: Any) -> Path:
    """Twenty sources in four epochs; the eighth doubles, and the ninth is seen in one alone."""
    rng = np.random.default_rng(7)
    rows = []
    for epoch in (2, 0, 3, 1):
        for number in range(20):
            flux = 0.02 * (1 + (number == 8) * epoch / 3) + 0.001 * rng.standard_normal()
            seen = number != 9 or epoch == 2
            rows.append(
                {
                    "source_id": f"s{number:02}", "observed": START + timedelta(minutes=5 * epoch),
                    "flux_jy": flux if seen else 0.0004, "error_jy": 0.001, "detected": seen,
                    "upper_limit_jy": None if seen else 0.0034,
                }
            )  # fmt: skip
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.rename_columns([changes.get(each, each) for each in table.column_names]), path)
    return path


def days_of(*epochs: int) -> Any:
    """Days since 1970, as matplotlib counts time."""
    return np.array([(START.timestamp() + 300 * each) / 86_400 for each in epochs])


def test_light_curves_have_errors_and_limits(tmp_path: Path) -> None:
    """In the order of time; limits are arrows at the limit, and what was measured there is a dot."""
    data = open_light_curves(measured(tmp_path / "rows.parquet"), ["s09", "s08"])

    made: Any = draw_light_curves(data, "title")

    assert [each.name for each in data.curves] == ["s09", "s08"]
    assert "η" in made.axes[0].get_title(loc="left")
    bars = made.axes[1].containers[0].lines[0]
    assert bars.get_xdata() == pytest.approx(days_of(0, 1, 2, 3), rel=1e-12)
    assert bars.get_ydata() == pytest.approx([20, 26.7, 33.3, 40], abs=4)
    (limits,) = (each for each in made.axes[0].lines if each.get_marker() == "v")
    assert limits.get_ydata() == pytest.approx([3.4] * 3)
    assert limits.get_xdata() == pytest.approx(days_of(0, 1, 3))
    assert {each.get_ylabel() for each in made.axes[:2]} == {"Flux density (mJy)"}


def test_sources_that_change_most_come_first(tmp_path: Path) -> None:
    """As many as have room; those of the database's file of a night too.  Sources that are not there are told."""
    data = open_light_curves(measured(tmp_path / "rows.parquet"))
    night = open_light_curves(
        measured(tmp_path / "night.parquet", source_id="source", observed="observed_at"), sources=["s03"]
    )

    assert (len(data.curves), data.sources) == (12, 20)
    assert {each.name for each in data.curves[:2]} == {"s08", "s09"}
    assert "20 sources; drawn are 12" in draw_light_curves(data, "title").texts[1].get_text()
    assert [each.name for each in night.curves] == ["s03"]
    with pytest.raises(ValidationError, match="no source 'x'"):
        open_light_curves(tmp_path / "rows.parquet", ["x"])
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="holds no light curves"):
        open_light_curves(tmp_path / "other.parquet")
    assert draw_light_curves(LightCurves((), 0), "title").axes[0].texts[0].get_text() == "no measurements"


# From paths to files ------------------------------------------------------------------------------


def test_all_pictures_of_paths(tmp_path: Path) -> None:
    """Each kind has its file, which is the same for the same data; what is no image is told to be none."""
    image, rows = an_image(tmp_path / "i.fits"), measured(tmp_path / "rows.parquet")
    made = draw_all(image, tmp_path / "one") + draw_all(rows, tmp_path / "one", sources=["s01", "s02"])
    again = draw_all(image, tmp_path / "two", kinds=["image"])

    assert [Path(each).name for each in made] == ["i_image.png", "i_residuals.png", "rows_light_curves.png"]
    for each in made:
        with Image.open(each) as picture:
            assert min(picture.size) > 300
    assert Path(again[0]).read_bytes() == Path(made[0]).read_bytes()
    with pytest.raises(ValidationError, match="take image, residuals"):
        draw_all(image, tmp_path, kinds=["footprint"])
    fits.BinTableHDU.from_columns([fits.Column("A", "D", array=[1.0])]).writeto(tmp_path / "t.fits")
    with pytest.raises(DataError):
        open_data(tmp_path / "t.fits")
