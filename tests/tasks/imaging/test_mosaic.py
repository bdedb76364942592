"""imaging.mosaic: flux densities, noise, blanks and edges of what is combined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from radio_skies import DISH_M, Field, Source, draw, scattered, write
from scipy.ndimage import map_coordinates
from single_run import fail, run, run_with_products

from absurd.tasks.imaging.mosaicking.build import made_before, tiles_of
from absurd.tasks.imaging.mosaicking.combine import combine
from absurd.tasks.imaging.mosaicking.grid import _tangent_plane, circular_mean, make_grid
from absurd.tasks.imaging.mosaicking.params import TileParams
from absurd.tasks.imaging.mosaicking.resample import pixel_map
from absurd.tasks.imaging.mosaicking.tile import tile_of
from absurd.tasks.photometry.forced import measure
from absurd.tasks.photometry.shapes import beam_shape, beam_shapes
from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.errors import MosaickingError
from absurd.tasks.radio.robust import robust_rms
from absurd.tasks.radio.sky_image import SkyImage, open_sky_image
from absurd.tasks.radio.sky_pixels import pixels_to_sky, separation_rad

SEED = 51
BEAM = beam_named("airy", DISH_M)
FIELDS = tuple(
    Field(ra % 360, 54.6, noise=noise, slant=(0.02, slant))
    for ra, noise, slant in (
        (356.5, 0.0005, 0.3),
        (358.6, 0.001, 0.31),
        (0.7, 0.0005, 0.3),
        (2.8, 0.0008, 0.29),
        (4.9, 0.0005, 0.3),
    )
)
"""Tiles on both sides of right ascension 0, of different noise, on slanted planes."""


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    places = scattered(rng, 0.7, 54.6, 60, across=3, up=1, apart=0.2)
    return [(ra, dec, float(10 ** rng.uniform(-1.7, -0.7))) for ra, dec in places]


@pytest.fixture(scope="module")
def tiles(sources: list[Source], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(SEED + 1)
    return [write(folder / f"{n}.fits", each, draw(each, sources, rng)) for n, each in enumerate(FIELDS)]


def mosaic(tiles: list[Any], out: Path, **params: Any) -> dict[str, Any]:
    result, kinds = run("imaging.mosaic", {"tiles": tiles, "out": str(out)} | params)
    assert kinds == ["mosaic", "noise_map"]
    return result


def fluxes(image: SkyImage, sources: list[Source]) -> tuple[Any, Any, Any]:
    """Measured, true, and their errors."""
    assert image.beam is not None
    ra, dec, true = np.array(sources).T
    x, y = image.wcs.wcs_world2pix(ra, dec, 0)
    found = measure(image.pixels(), x, y, beam_shape(image, image.beam), shapes=beam_shapes(image, image.beam, ra, dec))
    return found.flux, true, found.error


def test_injected_fluxes_and_noise(tiles: list[Path], sources: list[Source], tmp_path: Path) -> None:
    """Flux densities are those that were injected, within their errors; the noise map tells how pixels scatter; tiles
    on both sides of right ascension 0 become one mosaic, with a header that tells beam, frequency and times.
    """
    out = tmp_path / "new" / "night.fits"

    told = mosaic([str(each) for each in tiles], out)

    image, noise = open_sky_image(told["path"]), open_sky_image(told["noise_path"])
    found, true, error = fluxes(image, sources)
    assert np.isfinite(found).all()
    off = (found - true) / error
    assert abs(np.median(found / true - 1)) < 0.002
    assert 0.6 < np.mean(off**2) < 1.5  # of 60
    assert 0.9 < told["chi_squared"] < 1.1
    assert told["warnings"] == []
    assert image.shape == tuple(told["shape"])
    assert image.shape[1] < 1100
    assert abs(told["centre"][0] - 0.7) < 0.05
    assert image.frequency_hz == 1.405e9
    assert image.beam is not None
    assert image.beam.major_deg == pytest.approx(5 * 48 / 3600)
    assert image.header["TELESCOP"] == "DSA-110"
    assert [each["noise_jy"] for each in told["tiles"]] == pytest.approx([each.noise for each in FIELDS], rel=0.05)
    x, y = (int(each) for each in image.wcs.wcs_world2pix(0.7, 54.6, 0))
    assert noise.pixels()[y, x] == pytest.approx(told["lowest_noise_jy"], rel=0.2)
    with fits.open(told["path"]) as hdus:
        hdus.verify("exception")


def test_beam_and_noise_are_those_of_each_tile(tiles: list[Path], tmp_path: Path) -> None:
    """Where one tile alone is, the noise is its own over its own beam; where two meet, weights are beam^2 / noise^2."""
    told = mosaic([str(tiles[0]), {"image": str(tiles[1]), "noise": 0.004}], tmp_path / "two.fits")

    image, noise = open_sky_image(told["path"]), open_sky_image(told["noise_path"]).pixels()
    made = [tile_of(str(tiles[0]), BEAM), tile_of(str(tiles[1]), BEAM, noise=0.004)]
    for place in ((354.8, 54.6), (357.55, 54.9), (0.4, 54.2)):
        x, y = (int(each) for each in np.rint(image.wcs.wcs_world2pix(*place, 0)))
        ra, dec = image.wcs.wcs_pix2world(x, y, 0)
        weight = 0.0
        for tile, field in zip(made, FIELDS, strict=False):
            power = BEAM.power(separation_rad(ra, dec, field.ra, field.dec), np.array(1.405e9))
            weight += float(power) ** 2 / tile.noise_jy**2 if power >= 0.1 else 0
        assert noise[y, x] == pytest.approx(weight**-0.5, rel=1e-3)


def test_the_row_of_a_mosaic(tiles: list[Path], tmp_path: Path) -> None:
    """It tells where it is, when its tiles were observed, its noise, and which tiles it was made of."""
    out = str(tmp_path / "m.fits")
    result, (product,) = run_with_products("imaging.mosaic", {"tiles": [str(each) for each in tiles], "out": out})

    assert (product["kind"], product["row"]["path"]) == ("mosaic", out)
    row = product["row"]
    assert (row["ra"], row["declination"]) == pytest.approx((result["centre"][0] % 360, result["centre"][1]))
    assert row["rms_jy"] == result["median_noise_jy"]
    assert row["beam_major_arcsec"] == pytest.approx(5 * 48)
    assert (row["observed_from"], row["telescope"]) == ("2026-01-01T00:00:00+00:00", "DSA-110")
    assert row["inputs"] == [{"path": str(each), "role": "tile"} for each in tiles]
    assert row["facts"]["paths"] == {"noise": result["noise_path"]}


def test_blanks_do_not_count(tiles: list[Path], sources: list[Source], tmp_path: Path) -> None:
    """Blanked pixels of a tile are filled by its neighbour, and blank where there is none; they are never zeros."""
    with fits.open(tiles[0]) as hdus:
        hdus[0].data[..., 100:200, :] = np.nan
        hdus.writeto(tmp_path / "blank.fits")
    told = mosaic([str(tmp_path / "blank.fits"), str(tiles[1])], tmp_path / "m.fits")
    alone = mosaic([str(tiles[1])], tmp_path / "alone.fits", ra=told["centre"][0], dec=told["centre"][1],
                   nx=told["shape"][1], ny=told["shape"][0])  # fmt: skip

    both, noise = (open_sky_image(told[key]).pixels() for key in ("path", "noise_path"))
    image = open_sky_image(alone["path"])
    assert image.shape == both.shape
    x, y = (int(each) for each in image.wcs.wcs_world2pix(356.4, 54.6, 0))  # blank in the one, seen by the other
    shift_x, shift_y = np.rint(image.wcs.wcs.crpix - open_sky_image(told["path"]).wcs.wcs.crpix).astype(int)
    assert both[y - shift_y, x - shift_x] == pytest.approx(image.pixels()[y, x], abs=2e-3)
    x, y = (int(each) for each in open_sky_image(told["path"]).wcs.wcs_world2pix(354.9, 54.6, 0))
    assert np.isnan(both[y, x])
    assert np.isnan(noise[y, x])


def test_same_bits_whatever_the_threads(tiles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tiles give the same files, with one thread or three, in large blocks or small ones."""
    made = [tile_of(str(each), BEAM) for each in tiles]
    for threads in (1, 3):
        combine(made, tmp_path / f"{threads}.fits", tmp_path / f"{threads}n.fits", threads=threads)
    assert (tmp_path / "1.fits").read_bytes() == (tmp_path / "3.fits").read_bytes()
    monkeypatch.setattr("absurd.tasks.imaging.mosaicking.combine._BLOCK", 128)
    combine(made, tmp_path / "small.fits", tmp_path / "smalln.fits")
    assert (tmp_path / "1.fits").read_bytes() == (tmp_path / "small.fits").read_bytes()


def test_corrected_tiles_give_the_same_mosaic(tiles: list[Path], tmp_path: Path) -> None:
    """Tiles that are divided by their beam, told as an image, weigh as those that are not."""
    tile = tile_of(str(tiles[0]), BEAM)
    field = FIELDS[0]

    y, x = (each.ravel().astype(float) for each in np.mgrid[: field.side, : field.side])
    far = separation_rad(*pixels_to_sky(tile.image.wcs, x, y), field.ra, field.dec)
    power = BEAM.power(far, np.array(1.405e9)).reshape(field.side, field.side).astype(np.float32)
    write(tmp_path / "pb.fits", field, power)
    corrected = tile.image.pixels() / np.maximum(power, 1e-3)
    write(tmp_path / "corrected.fits", field, corrected.astype(np.float32))
    noise = write(tmp_path / "rms.fits", field, np.full_like(power, 0.001))
    plain = mosaic([{"image": str(tiles[0]), "noise": 0.001}], tmp_path / "plain.fits", pblimit=0.3)

    told = {"image": str(tmp_path / "corrected.fits"), "beam": str(tmp_path / "pb.fits"), "noise": str(noise)}
    found = mosaic([told | {"corrected": True}], tmp_path / "found.fits", pblimit=0.3)

    one, other = (open_sky_image(each["path"]).pixels() for each in (plain, found))
    assert one.shape == other.shape
    assert np.nanmax(np.abs(one - other)) < 1e-3 * np.nanmax(one)


def test_weights_by_the_beam_alone(tiles: list[Path], sources: list[Source], tmp_path: Path) -> None:
    """With pbweight a noisy tile counts as much as a quiet one: fluxes are the same, and there is more noise."""
    told = [{"image": str(each), "noise": noise} for each, noise in zip(tiles[:2], (0.0005, 0.001), strict=True)]

    optimal = mosaic(told, tmp_path / "optimal.fits")
    alike = mosaic(told, tmp_path / "alike.fits", weighting="pbweight")

    scatter = [robust_rms(open_sky_image(each["path"]).pixels()) for each in (optimal, alike)]
    assert alike["lowest_noise_jy"] > optimal["lowest_noise_jy"]
    assert scatter[1] > scatter[0]


def test_tiles_are_what_tasks_before_have_made(tiles: list[Path]) -> None:
    """Images that results tell of, each once and with its beam, in the order of names; others count for nothing."""
    made = {"paths": {"image": str(tiles[0]), "pb": "pb.fits", "pbcor": "pbcor.fits"}}
    other = {"paths": {"image": str(tiles[1])}}

    before = made_before([other, made, made, {"path": "gains"}, None, {"paths": {"png": "a.png"}}])

    assert tiles_of(before) == [
        TileParams(image=str(tiles[0]), beam="pb.fits"),
        TileParams(image=str(tiles[1])),
    ]
    with pytest.raises(MosaickingError, match="no task before has made an image"):
        tiles_of([])


@pytest.mark.parametrize(("cell", "step"), [(12.0, 32), (48.0, 16), (300.0, 4)])
def test_positions_between_exact_ones(cell: float, step: int) -> None:
    """At every pixel they are within the hundredth of a pixel that was promised, on a slanted and turned plane too."""
    field = Field(352.0, 60.0, cell_arcsec=cell, slant=(0.02, 0.31))
    like = Field(0.7, 54.6, cell_arcsec=cell)
    target = _tangent_plane(like.wcs, (like.ra, like.dec), cell / 3600)
    target.wcs.crpix = target.wcs_world2pix(field.ra, field.dec, 0)
    target.wcs.crpix = 1 + field.side / 2 - target.wcs.crpix  # the field in the middle
    where = pixel_map(target, field.wcs, range(field.side), range(field.side))

    assert where.step == step
    node_x, node_y = where.nodes(range(field.side), range(field.side))
    y, x = (each.ravel().astype(float) for each in np.mgrid[: field.side, : field.side])
    exact = where.exact(x, y)
    for nodes, wanted in zip((node_x, node_y), exact, strict=True):
        found = map_coordinates(nodes, (y / step, x / step), order=1)
        assert np.abs(found - wanted).max() < 0.01


def test_a_plane_of_cubes(tiles: list[Path], tmp_path: Path) -> None:
    """A mosaic of a plane of cubes is that of images with these pixels; which plane it is has to be told."""
    cubes = []
    for n, each in enumerate(tiles[:2]):
        with fits.open(each) as hdus:
            pixels = np.squeeze(hdus[0].data)
            cube = fits.PrimaryHDU(np.stack([np.zeros_like(pixels), pixels])[None], hdus[0].header)
        cube.header["CRVAL3"] -= cube.header["CDELT3"]  # the second plane has the image's frequency
        cube.writeto(tmp_path / f"cube{n}.fits")
        cubes.append(str(tmp_path / f"cube{n}.fits"))

    found = mosaic(cubes, tmp_path / "plane.fits", plane=1)

    plain = mosaic([str(each) for each in tiles[:2]], tmp_path / "plain.fits")
    one, other = (open_sky_image(each["path"]).pixels() for each in (found, plain))
    assert np.array_equal(one, other, equal_nan=True)
    refused = {None: "several planes", 2: "there is no plane 2"}
    for plane, said in refused.items():
        error = fail("imaging.mosaic", {"tiles": cubes, "out": str(tmp_path / "no.fits"), "plane": plane})
        assert (error["code"], said in error["message"]) == ("visibility_data", True), error


def test_mean_of_right_ascensions_is_circular() -> None:
    """350, 5 and 10 degrees have their mean near 1.7, not 121.7."""
    assert circular_mean((350, 5, 10), (0, 0, 0))[0] == pytest.approx(1.69, abs=0.05)


def test_what_cannot_be_combined_is_refused(tiles: list[Path], tmp_path: Path) -> None:
    """Wrong units, no such file, several planes, tiles without a value or that would be replaced: the error says so."""
    with fits.open(tiles[0]) as hdus:
        kelvin, empty = hdus[0].copy(), hdus[0].copy()
    kelvin.header["BUNIT"] = "K"
    kelvin.writeto(tmp_path / "kelvin.fits")
    empty.data[:] = np.nan
    empty.writeto(tmp_path / "empty.fits")
    fits.writeto(tmp_path / "cube.fits", np.zeros((2, 1, 9, 9), np.float32), empty.header)
    out = str(tmp_path / "out.fits")
    for name, code, said in (
        ("kelvin.fits", "visibility_data", "Jy/beam"),
        ("none.fits", "visibility_data", "cannot be read"),
        ("cube.fits", "visibility_data", "several planes"),
        ("empty.fits", "pipeline_validation", "not positive"),
    ):
        error = fail("imaging.mosaic", {"tiles": [str(tmp_path / name)], "out": out})
        assert (error["code"], said in error["message"]) == (code, True), error
    for name, beam in (("out.fits", None), ("kelvin.fits", "out-noise.fits")):
        tile = {"image": str(tmp_path / name), "beam": beam and str(tmp_path / beam)}
        error = fail("imaging.mosaic", {"tiles": [tile], "out": out})
        assert (error["code"], "both read and written" in error["message"]) == ("pipeline_validation", True), error
    assert not Path(out).exists()
    error = fail("imaging.mosaic", {"tiles": [{"image": str(tmp_path / "empty.fits"), "noise": 0.001}], "out": out})
    assert error["code"] == "mosaicking_failed"


def test_tiles_around_the_sky_have_no_plane(tiles: list[Path], tmp_path: Path) -> None:
    """Tiles 135 degrees apart are refused: a tangent plane does not reach so far."""
    far = replace(FIELDS[0], ra=176.0, dec=-10.0)
    write(tmp_path / "far.fits", far, draw(far, [], np.random.default_rng(1)))
    with pytest.raises(MosaickingError, match="make several mosaics"):
        make_grid([tile_of(str(each), BEAM) for each in (tiles[0], tmp_path / "far.fits")], least_gain=0.1)
