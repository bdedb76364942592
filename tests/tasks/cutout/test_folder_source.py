"""A folder as a source: many positions at once, headers read once, and what cannot be used passed over."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import (
    ButlerConfig,
    ImageUnreadableError,
    LsstDataFetcher,
    SourceNotFoundError,
    extract,
    find_images,
)
from absurd.tasks.cutout.errors import PlaneNotFoundError
from absurd.tasks.cutout.geometry import to_pixel
from absurd.tasks.cutout.sources import folder as folder_source
from absurd.tasks.cutout.sources.folder import FolderSource
from absurd.tasks.cutout.sources.footprint import depths, pixels_at


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Overlapping fields at the pole, over RA 0, in galactic axes and upside down, a weight map and a torn file."""
    write_image(tmp_path / "pole.fits", pixels_of((200, 200)), make_wcs(0, 90, scale=30, crpix=(100, 100)), band="g")
    for n, ra in enumerate((0.0, 0.01)):
        write_image(tmp_path / f"wrap{n}.fits", pixels_of((200, 200)), make_wcs(ra, 5, crpix=(100, 100)), band="r")
    write_image(tmp_path / "turned.fits", pixels_of((200, 300)), make_wcs(0.01, 5, angle=33, scale=2), band="i")
    wcs = make_wcs(96.337, -60.19, frame="galactic", scale=1, crpix=(100, 100))
    write_image(tmp_path / "galactic.fits", pixels_of((200, 200)), wcs, band="g")
    write_image(tmp_path / "weight.fits", pixels_of(), make_wcs(), band="r", prodtype="wtmap")
    (tmp_path / "torn.fits").write_bytes((tmp_path / "weight.fits").read_bytes()[:500])
    return tmp_path


def scattered(n: int) -> NDArray[np.float64]:
    """Positions on and around the fields, their seed printed."""
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    wrap = np.stack([random.uniform(-0.1, 0.1, n) % 360, random.uniform(4.9, 5.1, n)], axis=1)
    pole = np.stack([random.uniform(0, 360, n // 2), random.uniform(88, 90, n // 2)], axis=1)
    return np.concatenate([wrap, pole, random.uniform((0, -90), (360, 90), (n // 2, 2))])


def test_many_positions_are_as_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each of many positions the deepest image of each band is what it is for that position alone."""
    source = FolderSource(folder)
    positions = scattered(200)
    found = source.find(positions)
    opened = source.opened
    # each search has a source of its own, which would read seven headers
    monkeypatch.setattr(folder_source, "FolderSource", lambda _: source)
    assert sum(bool(each) for each in found) > 50
    for (ra, dec), refs in zip(positions[::3], found[::3], strict=True):
        best = {ref.band: ref.uri for ref in reversed(refs)}
        try:
            alone = {each.band: str(each.path) for each in find_images(folder, ra, dec)}
        except ImageUnreadableError:  # it is on none of the others, and may be on the torn one
            alone = {}
        assert best == alone
    assert source.opened == opened


def test_pixels_are_those_of_one_position_alone() -> None:
    """Also where a position is behind the projection, or a distortion has no inverse there."""
    header = make_wcs(10, 20).to_header()
    header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 3, "B_ORDER": 3, "A_3_0": 1e-5})
    distorted = fits.Header(header)
    from astropy.wcs import WCS

    random = np.random.default_rng(7)
    near = random.uniform((9.9, 19.9), (10.1, 20.1), (20, 2))
    far = random.uniform((0, -90), (360, 90), (20, 2))
    for wcs in (make_wcs(10, 20), make_wcs(30, -60, frame="galactic"), WCS(distorted)):
        positions = np.concatenate([near, far])
        found = pixels_at(wcs, positions)
        for (ra, dec), pixel in zip(positions, found, strict=True):
            alone = to_pixel(wcs, ra, dec)
            assert (alone is None) == bool(np.isnan(pixel).any())
            assert alone is None or pixel == pytest.approx(alone, abs=1e-6)
        deep = depths(wcs, (30, 40), positions)
        assert ((deep >= 0) <= np.isfinite(found).all(axis=1)).all()


def test_bands_are_in_the_order_asked_and_the_deepest_is_first(folder: Path) -> None:
    """Two fields overlap in r: both are given, the deeper one first."""
    source = FolderSource(folder)
    (refs,) = source.find(np.array([[0.009, 5.0]]), ["i", "R", "z"])
    assert [(each.band, Path(each.uri).name) for each in refs] == [
        ("i", "turned.fits"),
        ("r", "wrap1.fits"),
        ("r", "wrap0.fits"),
    ]
    assert [each.band for each in source.find(np.array([[0.009, 5.0]]))[0]] == ["r", "r", "i"]


def test_headers_are_read_once(folder: Path) -> None:
    """A file is opened again when it has changed, and only that; one that is gone is forgotten."""
    source = FolderSource(folder)
    position = np.array([[0.0, 5.0]])
    before = source.find(position)
    opened = source.opened
    assert opened == 7
    assert source.find(position) == before
    assert source.opened == opened
    path = folder / "wrap0.fits"
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["BAND"] = "y"
    os.utime(path, ns=(1, 1))
    after = source.find(position)
    assert source.opened == opened + 1
    assert {each.band for each in after[0]} == {"i", "r", "y"}
    path.unlink()
    assert "y" not in {each.band for each in source.find(position)[0]}
    assert source.opened == opened + 1


def test_what_cannot_be_used_is_told(folder: Path) -> None:
    """A torn file is passed over with its reason; it counts again when it is whole."""
    source = FolderSource(folder)
    source.find(np.array([[0.0, 5.0]]))
    assert {path.name: type(error) for path, error in source.unusable.items()} == {"torn.fits": ImageUnreadableError}
    write_image(folder / "torn.fits", pixels_of(), make_wcs(200, 5), band="z")
    assert [each.band for each in source.find(np.array([[200.0, 5.0]]))[0]] == ["z"]
    assert source.unusable == {}


def test_what_the_system_keeps_from_being_read_is_looked_at_again(folder: Path) -> None:
    """A file that could not be opened is the same when it can be: it is not remembered as one that cannot be used."""
    source = FolderSource(folder / "wrap0.fits")
    source.images()  # all modules are there
    source.close()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(ImageUnreadableError, match="Too many open files"):
            source.images()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert len(source.images()) == 1
    assert not source.unusable


def test_planes_and_chips_of_one_file(tmp_path: Path) -> None:
    """Mask and variance belong to their image; two chips of one file are two images."""
    header = make_wcs(10, 20).to_header()
    hdus = [
        fits.PrimaryHDU(),
        *(fits.ImageHDU(pixels_of(), header, name=each) for each in ("IMAGE", "MASK", "VARIANCE")),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "coadd_g.fits")
    chips = [fits.ImageHDU(pixels_of(), make_wcs(ra, 20).to_header(), name=f"CCD{n}") for n, ra in enumerate((40, 41))]
    fits.HDUList([fits.PrimaryHDU(), *chips]).writeto(tmp_path / "mosaic_r.fits")
    source = FolderSource(tmp_path)
    coadd, one, two = source.find(np.array([[10.0, 20.0], [40.0, 20.0], [41.0, 20.0]]))
    assert [dict(each.hdus) for each in coadd] == [{"image": 1, "mask": 2, "variance": 3}]
    assert [(each.hdus["image"], each.band) for each in one + two] == [(1, "r"), (2, "r")]


@pytest.mark.parametrize("versions", [True, False])
def test_planes_are_those_of_their_chip(tmp_path: Path, *, versions: bool) -> None:
    """Several chips of one name in a file: planes by EXTVER, or by place where there is none; what lacks is told."""
    hdus = fits.HDUList([fits.PrimaryHDU()])
    for chip, dec in ((1, 2.5), (2, 2.2)):
        header = make_wcs(150.0, dec, crpix=(21, 21)).to_header()
        for name, value in (("SCI", 1), ("ERR", 10), *([("DQ", 100)] if chip == 1 else [])):
            hdus.append(fits.ImageHDU(np.full((41, 41), chip * value, "f4"), header, name=name, ver=chip))
            if not versions:
                hdus[-1].header.remove("EXTVER", ignore_missing=True)
    hdus.writeto(tmp_path / "chips.fits")
    source = FolderSource(tmp_path)

    def cut(dec: float, *planes: str) -> list[float]:
        alone = extract(tmp_path / "chips.fits", (150.0, dec), 5, unit="pixel", planes=planes)
        with LsstDataFetcher(ButlerConfig(folder="-"), sources={"folder": source}) as fetcher:
            many = fetcher.fetch_cutout(150.0, dec, 5, unit="pixel", planes=planes).cutout(None)
        assert all((many.planes[name] == alone.planes[name]).all() for name in planes[1:])
        return [float(alone.image.pixels[2, 2]), *(float(alone.planes[name][2, 2]) for name in planes[1:])]

    assert cut(2.5, "image", "err", "dq") == [1, 10, 100]
    assert cut(2.2, "image", "err") == [2, 20]
    with pytest.raises(PlaneNotFoundError, match="'dq'"):
        extract(tmp_path / "chips.fits", (150.0, 2.2), 5, unit="pixel", planes=("image", "dq"))


def test_a_wcs_of_more_axes_than_the_image(tmp_path: Path) -> None:
    """FITS allows it, as for a plane out of a cube; the first two axes are the image's."""
    header = dict(make_wcs(150.0, 2.5, crpix=(21, 21)).to_header())
    header |= {"WCSAXES": 4, "CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CDELT3": 1e6, "CRPIX3": 1.0, "CUNIT3": "Hz"}
    header |= {"CTYPE4": "STOKES", "CRVAL4": 1.0, "CDELT4": 1.0, "CRPIX4": 1.0}
    fits.PrimaryHDU(np.arange(1681, dtype="f4").reshape(41, 41), fits.Header(header)).writeto(tmp_path / "plane.fits")

    cutout = extract(tmp_path / "plane.fits", (150.0, 2.5), 5, unit="pixel")

    assert (cutout.image.pixels == np.arange(1681).reshape(41, 41)[18:23, 18:23]).all()
    assert np.allclose(cutout.image.centre, (150.0, 2.5), atol=1e-9)


def test_a_mask_is_not_cut_for_its_image(tmp_path: Path) -> None:
    """Where headers call all of them images, names tell; what is there alone is cut all the same."""
    for letter, value in (("d", 1), ("i", 2), ("w", 3)):
        path = tmp_path / f"c4d_170316_062107_oo{letter}_z_ls9.fits"
        write_image(path, np.full((30, 40), value, np.float32), make_wcs(), prodtype="image", band="z")
    source = FolderSource(tmp_path)

    (refs,) = source.find(np.array([[10.0, 20.0]]))
    assert [Path(each.uri).name[18:21] for each in refs] == ["ooi", "ood", "oow"]
    assert [each.path.name[18:21] for each in find_images(tmp_path, 10.0, 20.0)] == ["ooi"]
    Path(refs[0].uri).unlink()
    assert [each.path.name[18:21] for each in find_images(tmp_path, 10.0, 20.0)] == ["ood"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Nor one without images: the source's own errors, whatever the positions."""
    with pytest.raises(SourceNotFoundError, match="there is no file or folder"):
        FolderSource(tmp_path / "absent").find(np.empty((0, 2)))
    with pytest.raises(SourceNotFoundError, match="there is no FITS file"):
        FolderSource(tmp_path).find(np.empty((0, 2)))
