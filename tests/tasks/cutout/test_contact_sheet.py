"""The page that shows the cut-outs of a batch."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pictures
from skies import make_wcs, write_image

from absurd.tasks.cutout import ButlerConfig, CutoutRequest, LsstDataFetcher, write_products
from absurd.tasks.cutout.contact_sheet import thumbnail, write_contact_sheet
from absurd.tasks.cutout.preview import NO_DATA, render_colour
from absurd.tasks.image import Image

GRI = ("g", "r", "i")


def row(number: int, **told: Any) -> dict[str, Any]:
    """A row of a manifest."""
    base = {"row": number, "ra": 1.0, "dec": 2.0, "state": "accepted", "bands": ["g"], "left_out": [], "sources": []}
    return base | {"id": None, "code": None, "reason": None} | told


def colours_of(png: bytes) -> NDArray[np.uint8]:
    """A picture's colours, shape (ny, nx, 3), y up as the image has it."""
    with Pictures.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)[::-1]


def star(*heights: float) -> NDArray[np.float32]:
    """Noise of deviation 1 with one star at (16, 16), a height for each band; shape (bands, 32, 32)."""
    sky = np.random.default_rng(3).normal(size=(len(heights), 32, 32))
    y, x = np.indices((32, 32)) - 16
    shape = np.exp(-(x**2 + y**2) / 8)
    return np.asarray(sky + np.multiply.outer(heights, shape), dtype=np.float32)


def test_a_contact_sheet_shows_each_and_says_why(tmp_path: Path) -> None:
    """Pictures with names, reasons escaped, counts, and no more than a browser can take."""
    field = np.random.default_rng(2).normal(size=(3, 32, 32)).astype(np.float32)
    field[:, :4] = np.nan
    rows = [row(0, id="M <31>", reason=None, ny=32, nx=64), row(1, id=None, state="rejected", reason="dark & cold")]
    rows = [{"code": None, **each} for each in rows]
    rows += [row(2, id="x", state="failed", reason="<gone>", ra=None)]
    pictures = {0: thumbnail(field, GRI, [None] * 3), 1: thumbnail(field[:1], ["g"], [None])}

    write_contact_sheet(tmp_path / "sheet.html", "Night 3", {"accepted": 1, "rejected": 1, "failed": 1}, rows, pictures)

    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 2
    assert all(each in page for each in ("M &lt;31&gt;", "row 1", "dark &amp; cold", "&lt;gone&gt;", "3 requests"))
    assert pictures[0].startswith(b"\x89PNG")
    assert page.count("1.00000° +2.00000°") == 2 and "64 × 32 pixels" in page


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_colours_are_those_of_the_bands_in_any_order(order: Sequence[int]) -> None:
    """What is bright in the reddest band is red, wherever that band stands among those asked for."""
    pixels, bands = star(20, 100, 500)[list(order)], [GRI[each] for each in order]

    red, green, blue = colours_of(thumbnail(pixels, bands, ["nJy"] * 3))[16, 16].tolist()

    assert red > green > blue


def test_bands_beyond_three_leave_the_bluest_out() -> None:
    """Of four bands the three reddest are shown, as in the picture of one cut-out."""
    pixels = star(0, 0, 0, 500)
    for order in ([0, 1, 2, 3], [3, 0, 1, 2], [3, 2, 1, 0]):
        colours = colours_of(thumbnail(pixels[order], ["griz"[each] for each in order], ["nJy"] * 4))
        assert colours[16, 16, 0] > 2 * colours[16, 16, 2]


def test_fewer_bands_than_three_show_the_bluest() -> None:
    """In grey, whatever was asked for first; the other one where it has no value at all."""
    pixels = star(500, 0)
    alone = thumbnail(pixels[:1], ["g"], [None])

    assert thumbnail(pixels, ["g", "r"], [None] * 2) == alone
    assert thumbnail(pixels[::-1], ["r", "g"], [None] * 2) == alone
    pixels[0] = np.nan
    assert thumbnail(pixels, ["g", "r"], [None] * 2) == thumbnail(pixels[1:], ["r"], [None])


def test_bands_of_one_unit_keep_the_colour_of_a_lone_star() -> None:
    """As in the picture of one cut-out: with units that differ, or none, the star itself sets what is white."""
    pixels = star(50, 100, 500)
    for units in (["nJy", "nJy", "nJy"], ["nJy", "nJy", "adu"], [None, None, None]):
        images = [Image(band, make_wcs(), unit) for band, unit in zip(pixels, units, strict=True)]
        large = np.asarray(render_colour(images[::-1]))[::-1]
        step = large.shape[0] // 32
        centre = colours_of(thumbnail(pixels, GRI, units))[16, 16]
        assert centre.tolist() == large[16 * step, 16 * step].tolist()
        assert (int(centre[0]) > 2 * int(centre[2])) == (units == ["nJy"] * 3)


def test_a_band_without_values_leaves_the_others_shown() -> None:
    """Only where all three have none is the picture the blue of no data."""
    pixels = star(100, 100, 100)
    pixels[1] = np.nan
    pixels[0, :, :4] = np.nan
    pixels[:, :, 28:] = np.nan

    colours = colours_of(thumbnail(pixels, GRI, ["nJy"] * 3))

    empty = (colours == NO_DATA[0]).all(axis=-1)
    assert empty[:, 28:].all()
    assert not empty[:, :28].any()
    assert colours[16, 16, [0, 2]].min() > 2 * colours[16, 16, 1]


def test_a_long_id_is_cut_short_and_told_in_full(tmp_path: Path) -> None:
    """It takes no more room than others, nor makes its neighbours longer; the pointer over it shows all of it."""
    name = 'a "long" id ' * 40
    picture = {0: thumbnail(star(1), ["g"], [None])}

    write_contact_sheet(tmp_path / "sheet.html", "One", {"accepted": 1}, [row(0, id=name)], picture)

    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert f'<b title="{name.replace(chr(34), "&quot;")}">' in page
    assert re.search(r"figcaption b \{[^}]*-webkit-line-clamp: 2", page)
    assert re.search(r"\.grid \{[^}]*align-items: start", page)


def test_a_batch_shows_its_bands_with_their_units(tmp_path: Path) -> None:
    """Asked for from red to blue or from blue to red, a row has the same picture, that of bands in one unit."""
    pixels = star(50, 100, 500)
    (tmp_path / "sky").mkdir()
    for band, each in zip(GRI, pixels, strict=True):
        write_image(tmp_path / "sky" / f"{band}.fits", each, make_wcs(crpix=(17, 17)), band=band, bunit="nJy")
    asked = [CutoutRequest(10.0, 20.0, 24, bands=bands, unit="pixel") for bands in (GRI, GRI[::-1])]

    with LsstDataFetcher(ButlerConfig(folder=str(tmp_path / "sky"))) as fetcher:
        write_products(fetcher.fetch_batch_cutouts(asked), tmp_path / "out", fits=False)

    page = (tmp_path / "out" / "contact_sheet.html").read_text(encoding="utf-8")
    one, other = (base64.b64decode(each) for each in re.findall(r"base64,([^\"]+)", page))
    assert one == other
    assert one == thumbnail(pixels[:, 4:28, 4:28], GRI, ["nJy"] * 3)
