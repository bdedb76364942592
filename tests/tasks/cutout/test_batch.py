"""Many cut-outs at once: agreement with astropy's Cutout2D and with one cut at a time, whatever the file holds."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D, NoOverlapError
from astropy.wcs import WCS, DistortionLookupTable, Sip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import ImageRef, compiled, extract, parsed, write_fits
from absurd.tasks.cutout.batch import cut_batch, cut_stream
from absurd.tasks.cutout.errors import DataIdValidationError, InvalidSizeError
from absurd.tasks.cutout.fits_image import open_image
from absurd.tasks.cutout.geometry import to_pixel
from absurd.tasks.cutout.targets import Targets
from absurd.tasks.cutout.world import same_wcs, to_pixels

KERNELS = ("compiled", "numpy") if compiled.library() else ("numpy",)
PLANES = ("image", "mask", "bits", "unsigned", "double")
METHODS = {"no dither": -1, "dither 1": 1, "dither 2": 2}


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the kernels in C, and without a compiler."""
    if request.param == "numpy":
        monkeypatch.setattr(compiled, "library", lambda: None)
    parsed.forget()
    yield request.param
    parsed.forget()


def sky(shape: tuple[int, int] = (130, 190), seed: int = 0) -> NDArray[np.float32]:
    """Noise with what compression takes special care of: NaN here and there, whole rows of it, and zeros."""
    pixels = pixels_of(shape, seed)
    pixels[10:20, 30:50] = np.nan
    pixels[61] = np.nan
    pixels[70:75, 5:90] = 0
    return pixels


def write_planes(path: Path, wcs: WCS, tile: tuple[int, int] | None, method: int = 1, *, seed: int = 0) -> Path:
    """Image, mask of 32 bits, mask of 8, unsigned of 16 and double precision; in RICE_1 if there are tiles."""
    pixels = sky(seed=seed)
    bits = np.random.default_rng(seed + 1).integers(0, 1 << 31, pixels.shape)
    planes = {
        "IMAGE": pixels,
        "MASK": (bits & (bits >> 3) & 0xFFFFF).astype(np.int32) - 7,
        "BITS": (bits & 0xFF).astype(np.uint8),
        "UNSIGNED": (bits & 0xFFFF).astype(np.uint16),
        "DOUBLE": pixels.astype(np.float64) * 1e-3,
    }
    hdus: list[Any] = [fits.PrimaryHDU()]
    for name, plane in planes.items():
        header = wcs.to_header(relax=True)
        if tile is None:
            hdus.append(fits.ImageHDU(plane, header, name=name))
        else:
            hdus.append(
                fits.CompImageHDU(
                    plane,
                    header,
                    name=name,
                    compression_type="RICE_1",
                    tile_shape=tile,
                    quantize_method=method,
                    dither_seed=9_998 + seed,
                )
            )
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def around(wcs: WCS, n: int, seed: int, shape: tuple[int, int] = (130, 190), margin: float = 25) -> NDArray[np.float64]:
    """Positions on an image, and a little beyond."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-margin, shape[1] + margin, n), rng.uniform(-margin, shape[0] + margin, n)
    there = wcs.pixel_to_world(x, y).icrs
    return np.column_stack([there.ra.deg, there.dec.deg])


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, in type too; a NaN is a NaN."""
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


@given(
    ra=st.sampled_from([0.0, 1e-4, 10.0, 180.0, 359.9999]),
    dec=st.sampled_from([-90.0, -89.9999, -45.0, 0.0, 60.0, 89.9999, 90.0]),
    angle=st.floats(0, 360),
    flip=st.booleans(),
    projection=st.sampled_from(["TAN", "SIN", "ZEA", "STG", "ARC", "CAR", "AIT"]),
    frame=st.sampled_from(["ICRS", "FK5", "FK4", "galactic"]),
    stored=st.sampled_from([None, "RICE"]),
    tile=st.sampled_from([(1, 40), (64, 64), (7, 11), (30, 40)]),
    method=st.sampled_from(sorted(METHODS)),
    offsets=st.lists(st.tuples(st.floats(-45, 45), st.floats(-45, 45)), min_size=1, max_size=6),
    size=st.tuples(st.integers(1, 45), st.integers(1, 45)),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_equals_cutout2d(
    kernels: str,
    tmp_path: Path,
    ra: float,
    dec: float,
    angle: float,
    flip: bool,
    projection: str,
    frame: str,
    stored: str | None,
    tile: tuple[int, int],
    method: str,
    offsets: list[tuple[float, float]],
    size: tuple[int, int],
) -> None:
    """Anywhere, rotated, mirrored, compressed, over the edge or beyond: same pixels, same box, same sky, as errors."""
    wcs = make_wcs(ra, dec, angle=angle, flip=flip, projection=projection, frame=frame)
    pixels = pixels_of()
    pixels[3, 4] = np.nan
    mask = (np.arange(1200, dtype=np.int32) ** 2).reshape(30, 40)
    hdus = [fits.PrimaryHDU()]
    for name, plane in (("IMAGE", pixels), ("MASK", mask)):
        header = wcs.to_header(relax=True)
        if stored:
            how = {"tile_shape": tile, "quantize_method": METHODS[method], "dither_seed": 17}
            hdus.append(fits.CompImageHDU(plane, header, name=name, compression_type="RICE_1", **how))
        else:
            hdus.append(fits.ImageHDU(plane, header, name=name))
    path = tmp_path / "image.fits"
    fits.HDUList(hdus).writeto(path, overwrite=True)
    parsed.forget()  # what was written within a tick of the clock and has the same size looks like the same file
    positions = [wcs.pixel_to_world(20 + dx, 15 + dy).icrs for dx, dy in offsets]
    asked = np.array([(each.ra.deg, each.dec.deg) for each in positions] + [((ra + 180) % 360, -dec)])

    batch = cut_batch(Targets.on(asked, [ImageRef(str(path), "r", {})]), size, ("image", "mask"))

    with fits.open(path) as opened:
        theirs_of, theirs_pixels, theirs_mask = WCS(opened[1].header), opened[1].data, opened[2].data
    for i, position in enumerate(asked):
        try:
            centre = SkyCoord(*position, unit="deg")
            theirs = Cutout2D(theirs_pixels, centre, size, theirs_of, mode="partial", copy=True)
            masked = Cutout2D(theirs_mask, centre, size, theirs_of, mode="partial", copy=True, fill_value=0)
        except (NoOverlapError, ValueError):  # the latter for what is nowhere on the image's sky
            assert batch.errors[i, 0].code == "cutout_outside"
            assert np.isnan(batch.pixels["image"][i, 0]).all()
            continue
        ours = batch.cutout(i, 0)
        assert np.array_equal(ours.image.pixels, theirs.data, equal_nan=True)
        assert np.array_equal(ours.planes["mask"], masked.data)
        assert ours.box.clipped_origin == theirs.origin_original
        assert ours.box.n_outside == batch.n_outside[i, 0]
        assert ours.image.wcs.wcs.crpix == pytest.approx(theirs.wcs.wcs.crpix, abs=1e-9)
        corners = np.array([(0, 0), (size[1] - 1, size[0] - 1), (3.3, 1.7)])
        there, here = ours.image.wcs.pixel_to_world(*corners.T), theirs.wcs.pixel_to_world(*corners.T)
        known = np.isfinite(here.spherical.lon.deg)
        assert there[known].separation(here[known]).max() < 1 * u.microarcsecond if known.any() else True


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tile", [(1, 190), (64, 64), (37, 91), (130, 190)])
def test_tiles_are_decoded_as_by_astropy(kernels: str, tmp_path: Path, tile: tuple[int, int], method: str) -> None:
    """Integers of 8, 16 and 32 bits and floats of both precisions, dithered or not, with tiles that stayed lossless."""
    path = write_planes(tmp_path / "tiles.fits", make_wcs(), tile, METHODS[method])
    asked = around(make_wcs(), 30, seed=3)

    batch = cut_batch(Targets.on(asked, [ImageRef(str(path), "r", {})]), (33, 48), PLANES)

    with fits.open(path) as hdus:
        n_cut = 0
        for plane in PLANES:
            whole = hdus[plane.upper()].data
            values = batch.pixels[plane]
            assert values.dtype == whole.dtype.newbyteorder("=")
            for i in range(len(asked)):
                if (i, 0) in batch.errors:
                    continue
                box = batch.cutout(i, 0).box
                n_cut += 1
                assert np.array_equal(values[i, 0][box.in_box], whole[box.on_image], equal_nan=whole.dtype.kind == "f")
                outside = np.ones(box.shape, bool)
                outside[box.in_box] = False
                beyond = values[i, 0][outside]
                assert (np.isnan(beyond) if whole.dtype.kind == "f" else beyond == 0).all()
    assert n_cut > 50


@pytest.mark.skipif("compiled" not in KERNELS, reason="the kernels in C were not built")
def test_numbers_of_dithering_last_as_long_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that makes them too takes their place in the cache, and not their memory."""
    path = write_planes(tmp_path / "tiles.fits", make_wcs(), (64, 64))
    built, gone = compiled.library(), []

    class Library:
        absurd_randoms, absurd_gather = built.absurd_randoms, built.absurd_gather

        def absurd_rice(self, boxes: Any, tiles: Any, randoms: int) -> int:
            made = compiled._randoms()
            assert made.ctypes.data == randoms
            held = weakref.ref(made)
            del made
            compiled._randoms.cache_clear()
            gone.append(held() is None)
            return int(built.absurd_rice(boxes, tiles, randoms))

    monkeypatch.setattr(compiled, "library", Library)
    cut_batch(Targets.on(around(make_wcs(), 5, seed=3), [ImageRef(str(path), "r", {})]), (33, 48), PLANES, threads=1)

    assert gone and not any(gone)


@pytest.mark.parametrize("compression", ["GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"])
def test_any_other_compression_is_left_to_astropy(kernels: str, tmp_path: Path, compression: str) -> None:
    """What the kernels do not know gives the same pixels, more slowly."""
    pixels = np.abs(np.nan_to_num(sky())).astype(np.int16)
    how = {"tile_shape": (26, 38)} if compression == "HCOMPRESS_1" else {}
    hdu = fits.CompImageHDU(pixels, make_wcs().to_header(), compression_type=compression, **how)
    path = tmp_path / "other.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)

    _agrees_with_single_cuts(path, around(make_wcs(), 8, seed=5), (21, 34))


def test_hcompress_is_read_by_many_threads(tmp_path: Path) -> None:
    """Each gets its pixels: left to itself, four threads got errors most of the time, and now and then wrong pixels."""
    pixels = np.random.default_rng(1).integers(0, 500, (400, 400)).astype(np.int16)
    hdu = fits.CompImageHDU(pixels, make_wcs().to_header(), compression_type="HCOMPRESS_1", tile_shape=(50, 50))
    path = tmp_path / "packed.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    section = (slice(0, 400), slice(0, 400))

    def read(_: int) -> NDArray[Any]:
        with open_image(path) as image:
            return image.read(section)

    first = read(0)
    with ThreadPoolExecutor(4) as threads:
        assert all(np.array_equal(each, first) for each in threads.map(read, range(24)))


@pytest.mark.parametrize("tiles", [None, (16, 50)])
@pytest.mark.parametrize(
    ("dtype", "cards"),
    [
        ("u1", {}),
        ("u1", {"BZERO": -128}),
        ("i2", {}),
        ("i2", {"BSCALE": 0.1, "BZERO": 32.7}),
        ("i2", {"BZERO": 32768}),
        ("i2", {"BLANK": 100}),
        ("i2", {"BLANK": 100, "BSCALE": 0.25}),
        ("i4", {"BSCALE": 1e-3, "BZERO": -5}),
        ("i4", {"BZERO": 2147483648}),
        ("i4", {"BLANK": 100}),
        ("f4", {"BSCALE": 3.3, "BZERO": 1.1}),
        ("f8", {"BSCALE": 3.3}),
        ("i8", {}),
    ],
)
def test_numbers_mean_what_astropy_says(
    kernels: str, tmp_path: Path, tiles: tuple[int, int] | None, dtype: str, cards: dict[str, float]
) -> None:
    """BSCALE, BZERO, BLANK and unsigned integers, plain and in tiles, to the last bit, as image and as plane."""
    if tiles and dtype == "i8":
        tiles = None
    stored = np.nan_to_num(sky()).astype(dtype)
    header = make_wcs().to_header()
    path = tmp_path / "numbers.fits"
    made = fits.CompImageHDU(stored, header, tile_shape=tiles) if tiles else fits.ImageHDU(stored, header)
    other = fits.CompImageHDU(stored, header, tile_shape=tiles) if tiles else fits.ImageHDU(stored, header)
    other.name = "WEIGHT"
    fits.HDUList([fits.PrimaryHDU(), made, other]).writeto(path)
    with fits.open(path, mode="update", do_not_scale_image_data=True, disable_image_compression=True) as hdus:
        for hdu in hdus[1:]:
            hdu.header.update(cards)

    _agrees_with_single_cuts(path, around(make_wcs(), 6, seed=5), (21, 34), ("image", "weight"))


def _agrees_with_single_cuts(
    path: Path, asked: NDArray[np.float64], size: tuple[int, int], planes: tuple[str, ...] = ("image",)
) -> None:
    batch = cut_batch(Targets.on(asked, [ImageRef(str(path), "r", {})]), size, planes)
    assert len(batch.errors) < len(asked)
    for i, position in enumerate(asked):
        if (i, 0) in batch.errors:
            with pytest.raises(type(batch.errors[i, 0])) as caught:
                extract(path, tuple(position), size, unit="pixel", planes=planes)
            assert str(batch.errors[i, 0]) == str(caught.value)
            continue
        one = extract(path, tuple(position), size, unit="pixel", planes=planes)
        ours = batch.cutout(i, 0)
        assert ours.box == one.box
        assert ours.pixel_position == one.pixel_position
        assert ours.header.tostring() == one.header.tostring()
        assert same(ours.image.pixels, one.image.pixels)
        assert all(same(ours.planes[name], one.planes[name]) for name in one.planes)


def test_bands_of_different_files(kernels: str, tmp_path: Path) -> None:
    """Each band is cut from its own image, on its own grid; single and double precision meet in double."""
    wcs_of = {"g": make_wcs(), "r": make_wcs(), "i": make_wcs(angle=30, scale=0.7)}
    refs = []
    for seed, (band, wcs) in enumerate(wcs_of.items()):
        pixels = sky(seed=seed).astype(np.float64 if band == "i" else np.float32)
        refs.append(ImageRef(str(write_image(tmp_path / f"{band}.fits", pixels, wcs)), band, {"image": 0}))
    asked = around(wcs_of["g"], 20, seed=1, margin=-20)

    batch = cut_batch(Targets.on(asked, refs), (16, 16))

    assert batch.pixels["image"].dtype == np.float64
    for place, ref in enumerate(refs):
        for i in range(len(asked)):
            if (i, place) not in batch.errors:
                one = extract(ref.uri, tuple(asked[i]), 16, unit="pixel")
                assert np.array_equal(batch.pixels["image"][i, place], one.image.pixels, equal_nan=True)
                assert batch.cutout(i, place).band == ref.band


def test_found_images_become_targets(tmp_path: Path) -> None:
    """Of what a source found the first image of each band is taken; where a band is missing, that is its error."""
    refs = {band: ImageRef(str(tmp_path / f"{band}.fits"), band[0], {"image": 0}) for band in ("g1", "g2", "r1")}
    found = [[refs["g2"], refs["g1"], refs["r1"]], [refs["r1"]], []]

    targets = Targets.of(np.array([(10.0, 20.0)] * 3), found, ("r", "g", "z"))
    everything = Targets.of(np.array([(10.0, 20.0)] * 3), found)

    named = [[targets.images[place].uri[-7:-5] if place >= 0 else None for place in row] for row in targets.which]
    assert named == [["r1", "g2", None], ["r1", None, None], [None, None, None]]
    assert everything.bands == ("g", "r")
    assert cut_batch(targets, (4, 4)).errors[1, 1].code == "cutout_band_not_found"


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # of astropy, which is asked one by one
@pytest.mark.parametrize("distortion", ["SIP", "lookup"])
def test_distortions_are_inverted_as_one_by_one(distortion: str) -> None:
    """To the last bit, also beside positions for which there is no inverse."""
    wcs = make_wcs(crpix=(95.5, 65.5), scale=30.0)
    distorted = wcs.deepcopy()
    if distortion == "SIP":
        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], a[1, 1], b[0, 2] = 2e-4, -1e-4, 3e-4
        distorted.sip = Sip(a, b, None, None, wcs.wcs.crpix)
        distorted.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    else:
        bumps = np.random.default_rng(1).uniform(-2, 2, (5, 5)).astype(np.float32)
        distorted.cpdis1 = DistortionLookupTable(bumps, (1.0, 1.0), (1.0, 1.0), (48.0, 33.0))
    rng = np.random.default_rng(2)
    anywhere = np.column_stack([rng.uniform(0, 360, 60), rng.uniform(-90, 90, 60)])
    asked = np.concatenate([around(wcs, 60, seed=1), anywhere])

    found = to_pixels(distorted, asked)

    assert distorted.has_distortion
    alone = [to_pixel(distorted, *position) for position in asked.tolist()]
    assert [None if np.isnan(x) else (x, y) for x, y in found.tolist()] == alone
    assert None in alone
    assert len(set(alone)) > 60


def test_a_stream_gives_each_position_once(kernels: str, tmp_path: Path) -> None:
    """Whatever the size of the chunks, batches hold each position once, and what one batch of all holds for it."""
    wcs = make_wcs()
    first = ImageRef(str(write_planes(tmp_path / "a.fits", wcs, (16, 50))), "r", {})
    second = ImageRef(str(write_planes(tmp_path / "b.fits", wcs, None, seed=1)), "r", {})
    asked = around(wcs, 41, seed=2)
    which = (np.arange(41)[:, None] % 3 - 1).astype(np.int32)  # the first, the second, none
    targets = Targets(asked, [first, second], which, ("r",))
    whole = cut_batch(targets, (12, 9), ("image", "mask"))

    for chunk, most in ((1, 1), (12 * 9 * 4 * 2 * 7, 7), (1 << 30, 41)):
        seen: list[int] = []
        for batch in cut_stream(targets, (12, 9), ("image", "mask"), chunk=chunk):
            assert len(batch) <= most
            for place, row in enumerate(batch.rows):
                seen.append(int(row))
                assert ((place, 0) in batch.errors) == ((row, 0) in whole.errors)
                assert np.array_equal(batch.origins[place], whole.origins[row])
                assert all(same(batch.pixels[name][place], whole.pixels[name][row]) for name in whole.pixels)
        assert sorted(seen) == list(range(41))


def test_a_cutout_of_a_batch_is_written_as_fits(kernels: str, tmp_path: Path) -> None:
    """The file has the pixels, and each keeps its place on the sky."""
    wcs = make_wcs(0.0, 20.0, angle=12)
    path = write_planes(tmp_path / "a.fits", wcs, (16, 50))
    asked = around(wcs, 3, seed=2, margin=0)
    batch = cut_batch(Targets.on(asked, [ImageRef(str(path), "r", {})]), (12, 9), ("image", "mask"))

    for i in range(3):
        write_fits(batch.cutout(i, 0), tmp_path / f"{i}.fits")
        with fits.open(tmp_path / f"{i}.fits") as hdus:
            assert np.array_equal(hdus[0].data, batch.pixels["image"][i, 0], equal_nan=True)
            assert np.array_equal(hdus["MASK"].data, batch.pixels["mask"][i, 0])
            x, y = WCS(hdus[0].header).world_to_pixel(SkyCoord(*asked[i], unit="deg"))
        assert (x, y) == pytest.approx(tuple(batch.pixel_positions[i, 0] - batch.origins[i, 0]), abs=1e-6)


def test_headers_are_read_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    """The same file is parsed once; another of the same name is another file; not more are kept than is said."""
    path = write_image(tmp_path / "a.fits", pixels_of(), make_wcs())
    ref = ImageRef(str(path), "r", {"image": 0})
    first = parsed.parse(ref, ("image",))
    assert parsed.parse(ref, ("image",)) is first

    write_image(path, pixels_of((31, 40)), make_wcs())
    second = parsed.parse(ref, ("image",))
    assert (first.shape, second.shape) == ((30, 40), (31, 40))
    for n in range(1, parsed.MOST_FILES + 1):
        parsed.parse(ref, ("image", *[f"plane {each}" for each in range(n)]))
    assert parsed.parse(ref, ("image",)) is not second


def test_the_same_wcs_is_known_as_such() -> None:
    """What changes no pixel does not count; a frame or a number does."""
    one, other = make_wcs(), make_wcs()
    other.wcs.dateobs = "2026-01-01T00:00:00"
    assert same_wcs(one, other)
    assert not same_wcs(one, make_wcs(ra=10.0 + 1e-12))
    assert not same_wcs(make_wcs(frame="FK5"), make_wcs(frame="ICRS"))
    assert not same_wcs(one, make_wcs(projection="SIN"))


@pytest.mark.parametrize(("size", "planes"), [((0, 5), ("image",)), ((math.inf, 5), ("image",))])
def test_a_wrong_size_is_told_before_any_file_is_read(size: Any, planes: tuple[str, ...]) -> None:
    """It is wrong for all positions, so it is an error of the call."""
    with pytest.raises(InvalidSizeError):
        cut_batch(Targets.on(np.zeros((1, 2)), [ImageRef("/nowhere.fits", "r", {})]), size, planes)


def test_a_wrong_call_is_told() -> None:
    """No planes, planes twice, and arrays that do not belong together."""
    targets = Targets.on(np.zeros((1, 2)), [ImageRef("/nowhere.fits", "r", {})])
    for planes in ((), ("image", "image")):
        with pytest.raises(DataIdValidationError, match="planes are"):
            cut_batch(targets, (4, 4), planes)
    with pytest.raises(DataIdValidationError, match="must be"):
        Targets(np.zeros((3, 2)), [], np.zeros((2, 1), np.int32), ("r",))
    with pytest.raises(DataIdValidationError, match=r"must be \(n, 2\)"):
        Targets.on(np.zeros(4), [])
