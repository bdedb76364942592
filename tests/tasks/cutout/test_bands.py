"""Bands as headers, names and requests call them, and what is said where nothing tells them apart."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import BandNotFoundError, ButlerConfig, LsstDataFetcher, find_images
from absurd.tasks.cutout.bands import as_spelled, band_in_headers, by_wavelength
from absurd.tasks.cutout.sources.folder import FolderSource

HERE = np.array([[10.0, 20.0]])


@pytest.mark.parametrize(
    ("cards", "band"),
    [
        ({"FILTER1": "CLEAR1L", "FILTER2": "F814W"}, "F814W"),
        ({"FILTER1": "F606W", "FILTER2": "CLEAR2L"}, "F606W"),
        ({"FILTER1": "POL0V", "FILTER2": "F435W"}, "F435W"),
        ({"FILTER1": "CLEAR1S", "FILTER2": "CLEAR2S"}, None),
        ({"FILTER1": 3, "FILTNAM1": "F555W"}, "F555W"),
        ({"FILTER": "r DECam", "FILTER1": "F606W"}, "r"),
    ],
)
def test_filter_wheels_tell_the_band(cards: dict[str, str | int], band: str | None) -> None:
    """What is a filter in any of them; clear glass, a polariser and a wheel's place are no bands."""
    assert band_in_headers(fits.Header(cards)) == band


def test_the_image_tells_before_the_primary_header() -> None:
    """A wheel of the image itself counts before FILTER of its file."""
    assert band_in_headers(fits.Header({"FILTER1": "F606W"}), fits.Header({"FILTER": "g"})) == "F606W"


@pytest.mark.parametrize(
    "bands",
    [
        ("u", "g", "r", "i", "z", "y", "Y", "J", "H", "K", "w1", "w4", None, "unheard-of"),
        ("HSC-G", "HSC-R2", "HSC-I", "HSC-Z", "HSC-Y"),
        ("u.MP9302", "g.MP9401", "r.MP9601", "i.MP9703", "z.MP9901", "J.WC8101"),
        ("F150LP", "F170W", "F275W", "F435W", "F814W", "F850LP", "F1042M"),
        ("F606W", "F814W", "F090W", "F098M", "F105W", "F160W", "F277W", "F444W", "F560W", "F770W", "F1130W", "F2550W"),
        ("g.00000", "F606W", "HSC-I", "F090W", "F115W", "H", "F200W", "K", "F356W"),
    ],
)
def test_bands_are_from_blue_to_red(bands: tuple[str | None, ...]) -> None:
    """Whatever an observatory calls its filters, by letter or by wavelength, in nm or in 10 nm."""
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    mixed = random.Random(seed).sample(bands, len(bands))
    assert sorted(mixed, key=by_wavelength) == list(bands)


def test_a_letter_means_its_filter_where_it_is_the_only_one() -> None:
    """The name itself comes first, then capitals, then the letter; of two filters neither is meant."""
    assert as_spelled("r", ["HSC-G", "HSC-R", None]) == "HSC-R"
    assert as_spelled("R", ["r.MP9601"]) == "r.MP9601"
    assert as_spelled("hsc-r", ["HSC-R", "r"]) == "HSC-R"
    assert as_spelled("r", ["HSC-R", "R"]) == "R"
    assert as_spelled("r", ["HSC-R", "HSC-R2"]) is None
    assert as_spelled("r", ["F606W", "r-band", "HSC-I"]) is None


def test_images_are_cut_by_the_letter_of_their_filter(tmp_path: Path) -> None:
    """One cut and a batch, in the order that was asked for, and all of them from blue to red."""
    for band in ("HSC-R", "HSC-G", "HSC-I"):
        write_image(tmp_path / f"{band[-1].lower()}.fits", pixels_of(), make_wcs(), filter=band)

    assert [each.band for each in FolderSource(tmp_path).find(HERE)[0]] == ["HSC-G", "HSC-R", "HSC-I"]
    assert [each.band for each in find_images(tmp_path, 10.0, 20.0, ["i", "r"])] == ["HSC-I", "HSC-R"]
    with LsstDataFetcher(ButlerConfig(folder=str(tmp_path))) as fetcher:
        assert fetcher.fetch_cutout(10.0, 20.0, 8, bands=["i", "r"]).bands == ("HSC-I", "HSC-R")
        with pytest.raises(BandNotFoundError, match=r"band z at .*; of the others it has HSC-G"):
            fetcher.fetch_cutout(10.0, 20.0, 8, bands=["z", "g"])
    with pytest.raises(BandNotFoundError, match="it has HSC-G, HSC-R, HSC-I"):
        find_images(tmp_path, 10.0, 20.0, ["z"])


def test_images_of_unknown_band_are_not_left_out_without_a_word(tmp_path: Path) -> None:
    """A row says how many more there were; its own planes, and what is a weight by its name, are none."""
    header = make_wcs().to_header()
    hdus = [fits.PrimaryHDU(pixels_of(), header), fits.ImageHDU(pixels_of(), header, name="BACKGROUND")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    write_image(tmp_path / "a.wht.fits", pixels_of(), make_wcs())
    with LsstDataFetcher(ButlerConfig(folder=str(tmp_path))) as fetcher:
        assert fetcher.fetch_cutout(10.0, 20.0, 8).note == ""
        write_image(tmp_path / "b.fits", pixels_of(), make_wcs())
        assert fetcher.fetch_cutout(10.0, 20.0, 8).note == "1 more image of unknown band left out"
        write_image(tmp_path / "c.fits", pixels_of(), make_wcs())
        write_image(tmp_path / "d.fits", pixels_of(), make_wcs(), band="r")
        assert fetcher.fetch_cutout(10.0, 20.0, 8).note == "2 more images of unknown band left out"
        assert fetcher.fetch_cutout(10.0, 20.0, 8, bands=["r"]).note == ""
