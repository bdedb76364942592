"""Small cut-outs out of the cache: the same, without a file being read, until one changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import ButlerConfig, CutoutRequest, LsstDataFetcher, extract, write_fits
from absurd.tasks.cutout.fits_image import mask_bits
from absurd.tasks.cutout.parsed import forget
from absurd.tasks.cutout.sources.folder import FolderSource

RA, DEC = 150.0, 2.5
SHAPE = (200, 240)
_watching: list[list[str]] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _watching and str(args[0]).endswith(".fits"):
        _watching[-1].append(str(args[0]))


sys.addaudithook(_watch)


@contextmanager
def opened() -> Iterator[list[str]]:
    """The FITS files that the process opens meanwhile."""
    _watching.append([])
    yield _watching[-1]
    _watching.pop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, band in enumerate("gr"):
        write_image(
            tmp_path / f"{band}.fits", pixels_of(SHAPE, seed), make_wcs(RA, DEC, crpix=(120.5, 100.5)), BAND=band
        )
    return tmp_path


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_second_time_no_file_is_read(folder: Path, tmp_path: Path, on_disk: bool) -> None:
    """Pixels and header are the same; from disk in a program that has read nothing but the headers of the folder."""
    config = ButlerConfig(folder=str(folder), cache_folder=str(tmp_path / "kept") if on_disk else None)
    with LsstDataFetcher(config) as fetcher:
        first = fetcher.fetch_cutout(RA, DEC, 64)
        if not on_disk:
            with opened() as read:
                again = fetcher.fetch_cutout(RA, DEC, 64)
            hits = fetcher.cache.statistics().kinds["cutout"].hits
    if on_disk:
        forget()
        source = FolderSource(folder)
        source.images()
        with LsstDataFetcher(config, sources={"folder": source}) as fetcher, opened() as read:
            again = fetcher.fetch_cutout(RA, DEC, 64)
            hits = fetcher.cache.statistics().kinds["cutout"].hits

    assert read == [] and hits == 1
    assert again.bands == ("g", "r") and np.array_equal(first.pixels, again.pixels)
    alone = extract(folder / "r.fits", (RA, DEC), 64, unit="pixel")
    cut = again.cutout("r")
    assert cut.header == first.cutout("r").header == alone.header
    assert (cut.box, cut.pixel_position, cut.source) == (alone.box, alone.pixel_position, "r.fits")
    assert cut.image.wcs.wcs.compare(alone.image.wcs.wcs)


def test_a_point_spread_function_is_of_its_own_kind(tmp_path: Path) -> None:
    """Its plane is kept as "psf": found again with the cut-out, read anew once that kind counts no more."""
    header = make_wcs(RA, DEC, crpix=(120.5, 100.5)).to_header()
    planes = {"IMAGE": pixels_of(SHAPE), "PSF": pixels_of(SHAPE, 1)}
    hdus = [fits.ImageHDU(pixels, header, name=name) for name, pixels in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "r.fits")
    request = CutoutRequest(RA, DEC, 20, planes=("psf", "image"))
    with LsstDataFetcher(ButlerConfig(folder=str(tmp_path))) as fetcher:

        def fetch() -> tuple[bool, list[Any]]:
            with opened() as read:
                (row,) = fetcher.fetch_batch_cutouts([request])
            return bool(read), [row.plane(name) for name in row.planes]

        _, first = fetch()
        again = fetch()
        kinds = fetcher.cache.statistics().kinds
        assert (kinds["psf"].hits, kinds["cutout"].hits) == (1, 1)
        assert kinds["psf"].bytes > first[0].nbytes and kinds["cutout"].bytes < 2 * first[0].nbytes
        fetcher.cache.invalidate_kind("psf")
        anew = fetch()
        last = fetch()

    assert [read for read, _ in (again, anew, last)] == [False, True, False]
    assert all(np.array_equal(each, first) for _, each in (again, anew, last))
    assert np.isin(first[0], planes["PSF"]).all() and np.isin(first[1], planes["IMAGE"]).all()


def test_planes_of_a_written_cutout_keep_their_meaning(tmp_path: Path) -> None:
    """The unit of the variance and the names of the mask's bits are in the file: cut alone, of many, and kept."""
    header, variance, mask = make_wcs(RA, DEC, crpix=(120.5, 100.5)).to_header(), fits.Header(), fits.Header()
    variance["BUNIT"] = "nJy2"
    mask["MP_BAD"], mask["HIERARCH MP_DETECTED_NEGATIVE"] = 0, 6
    hdus = [
        fits.PrimaryHDU(pixels_of(SHAPE), header),
        fits.ImageHDU(np.ones(SHAPE, np.int32), mask, name="MASK"),
        fits.ImageHDU(np.ones(SHAPE, np.float32), variance, name="VARIANCE"),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    planes = ("image", "mask", "variance")
    with LsstDataFetcher(ButlerConfig(folder=str(tmp_path))) as fetcher:
        fetcher.fetch_cutout(RA, DEC, 8)
        cutouts = [fetcher.fetch_cutout(RA, DEC, 8, planes=planes).cutout() for _ in range(2)]
        assert fetcher.cache.statistics().kinds["cutout"].hits == 1
    for cutout in (*cutouts, extract(tmp_path / "a.fits", (RA, DEC), 8, unit="pixel", planes=planes)):
        write_fits(cutout, tmp_path / "cut.fit")
        with fits.open(tmp_path / "cut.fit") as cut:
            assert cut["VARIANCE"].header["BUNIT"] == "nJy2"
            assert mask_bits(cut["MASK"].header) == {"BAD": 0, "DETECTED_NEGATIVE": 6}
            assert cut["MASK"].header["CRPIX1"] == cut[0].header["CRPIX1"]


def test_a_changed_file_is_read_anew(folder: Path) -> None:
    """Even where size and time of content are as before; the other band is cut with it."""
    path = folder / "g.fits"
    with LsstDataFetcher(ButlerConfig(folder=str(folder))) as fetcher:
        before = fetcher.fetch_cutout(RA, DEC, 16)
        told = path.stat()
        write_image(path, pixels_of(SHAPE, 7), make_wcs(RA, DEC, crpix=(120.5, 100.5)), BAND="g")
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns + 1))
        after = fetcher.fetch_cutout(RA, DEC, 16)

    assert np.array_equal(after.pixels[0], extract(path, (RA, DEC), 16, unit="pixel").image.pixels)
    assert not np.array_equal(before.pixels[0], after.pixels[0])
    assert np.array_equal(before.pixels[1], after.pixels[1])


def test_what_is_not_kept(folder: Path) -> None:
    """128 x 128 pixels, what is beyond its image, and everything where there is no room; other boxes are others."""
    asked = [
        CutoutRequest(RA, DEC, 128),
        CutoutRequest(RA, DEC, (16, 250)),
        CutoutRequest(RA, DEC, 16),
        CutoutRequest(RA, DEC, (16, 17)),
        CutoutRequest(RA, DEC + 1e-4, 16),
        CutoutRequest(RA, DEC, 16, bands=("r",)),
    ]
    with LsstDataFetcher(ButlerConfig(folder=str(folder))) as fetcher:
        for _ in range(2):
            rows = list(fetcher.fetch_batch_cutouts(asked))
        kept = fetcher.cache.statistics().kinds["cutout"]
        rows[2].pixels[:] = 0
        again = fetcher.fetch_cutout(RA, DEC, 16)
    with LsstDataFetcher(ButlerConfig(folder=str(folder), cache_size=0)) as fetcher:
        fetcher.fetch_cutout(RA, DEC, 16)
        assert fetcher.cache.statistics().kinds["cutout"].entries == 0

    assert (kept.entries, kept.hits) == (4, 4)
    assert np.array_equal(again.pixels[0], extract(folder / "g.fits", (RA, DEC), 16, unit="pixel").image.pixels)
