"""Sources in turn, row by row, and less than all where that is enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import (
    BandNotFoundError,
    ButlerConfig,
    CutoutRequest,
    FolderSource,
    ImageUnreadableError,
    InvalidSizeError,
    LsstDataFetcher,
    PlaneNotFoundError,
    extract,
)

RA, DEC = 150.0, 2.5
SHAPE = (60, 80)
CONFIG = ButlerConfig(folder="-", retry_delay=0.0, batch_size=3)


@pytest.fixture
def fetcher(tmp_path: Path) -> LsstDataFetcher:
    """`near` has g and r of one place, `far` has g, r and i of it with other pixels, and g of another place."""
    for seed, (folder, band, ra) in enumerate(
        [("near", "g", RA), ("near", "r", RA), *(("far", band, RA) for band in "gri"), ("far", "g", RA + 10)]
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / f"{ra:g}-{band}.fits"
        write_image(path, pixels_of(SHAPE, seed), make_wcs(ra, DEC, crpix=(40.5, 30.5)), BAND=band)
    return LsstDataFetcher(CONFIG, sources={name: FolderSource(tmp_path / name) for name in ("near", "far")})


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def test_each_row_is_asked_of_the_next_source_where_one_cannot_serve_it(
    fetcher: LsstDataFetcher, tmp_path: Path
) -> None:
    """Not covered, without a band, unreadable: that row alone is another source's, and says so; order is kept."""
    requests = [
        CutoutRequest(RA, DEC, 8, bands=("r",)),
        CutoutRequest(RA + 10, DEC, 8),
        CutoutRequest(RA, DEC, 8, bands=("g", "i")),
        CutoutRequest(RA, DEC, 8, bands=("g",)),
        CutoutRequest(RA, -60.0, 8),
    ]
    truncate(tmp_path / "near" / "150-g.fits")
    with fetcher:
        rows = list(fetcher.fetch_batch_cutouts(requests))

    assert [each.source for each in rows] == ["near", "far", "far", "far", "far"]
    assert [each.state for each in rows] == ["accepted"] * 4 + ["failed"]
    assert [each.row for each in rows] == [0, 1, 2, 3, 4]
    assert rows[0].note == "" and rows[1].note.startswith("far answered in place of near (ra 160")
    assert "150-g.fits" in rows[3].note
    assert "near: ra 150" in rows[4].reason and "far: ra 150" in rows[4].reason
    for row, band in ((rows[0], "near/150-r"), (rows[1], "far/160-g"), (rows[3], "far/150-g")):
        alone = extract(tmp_path / f"{band}.fits", (row.request.ra, DEC), 8, unit="pixel")
        assert np.array_equal(row.pixels[0], alone.image.pixels)


def test_what_is_broken_is_told_before_what_is_not_there(fetcher: LsstDataFetcher, tmp_path: Path) -> None:
    """Of a row that no source can serve: the error of the file, with what every source said; a wrong size is one's."""
    truncate(tmp_path / "far" / "160-g.fits")
    with fetcher:
        broken, wrong = fetcher.fetch_batch_cutouts(
            [CutoutRequest(RA + 10, DEC, 8, bands=("g",)), CutoutRequest(RA, DEC, 0.001)]
        )

    assert isinstance(broken.error, ImageUnreadableError)
    assert set(broken.error.details["errors"]) == {"near", "far"}
    assert isinstance(wrong.error, InvalidSizeError) and wrong.source == "near"


def test_reduced_is_the_most_that_any_source_has(fetcher: LsstDataFetcher) -> None:
    """Bands that no source has are left out, of the source with most of the others; without `reduced` it fails."""
    request = CutoutRequest(RA, DEC, 8, bands=("g", "i", "z"))
    with fetcher:
        (row,) = fetcher.fetch_batch_cutouts([request], reduced=True)
        (strict,) = fetcher.fetch_batch_cutouts([request])
        (whole,) = fetcher.fetch_batch_cutouts([replace(request, bands=("g",))], reduced=True)

    assert (row.source, row.bands, row.left_out) == ("far", ("g", "i"), ("z",))
    assert "without band z (the source has no image in it)" in row.note
    assert isinstance(strict.error, BandNotFoundError)
    assert (whole.source, whole.note) == ("near", "")


def test_planes_are_left_out_before_bands(tmp_path: Path) -> None:
    """A mask that one band lacks goes from all bands; the row says which and why.  The image is needed."""
    wcs = make_wcs(RA, DEC, crpix=(40.5, 30.5))
    for band in "gr":
        header = wcs.to_header()
        header["BAND"] = band
        hdus = [fits.PrimaryHDU(pixels_of(SHAPE), header), fits.ImageHDU(np.ones(SHAPE, np.int16), name="MASK")]
        fits.HDUList(hdus[: 2 if band == "g" else 1]).writeto(tmp_path / f"{band}.fits")
    request = CutoutRequest(RA, DEC, 8, planes=("mask", "image"))
    with LsstDataFetcher(replace(CONFIG, folder=str(tmp_path))) as fetcher:
        (row,) = fetcher.fetch_batch_cutouts([request], reduced=True)
        (strict,) = fetcher.fetch_batch_cutouts([request])

    assert (row.bands, row.planes, row.left_out) == (("g", "r"), ("image",), ("mask",))
    assert row.note.startswith("without plane mask (") and "in band r" in row.note
    assert np.array_equal(row.cutout("r").image.pixels, row.pixels[1]) and np.isfinite(row.pixels).all()
    with pytest.raises(PlaneNotFoundError, match="it has image"):
        row.plane("mask")
    assert isinstance(strict.error, PlaneNotFoundError)
