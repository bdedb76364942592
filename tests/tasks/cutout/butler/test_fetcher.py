"""The data fetcher over a real repository: the seed's example, catalogues, and a folder that stands in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lsst.daf.butler import Butler
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d
from scratch_butler import PATCHES, SKYMAP, centre_of, exposure
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import (
    ButlerConfig,
    ButlerConnectionError,
    Circle,
    CollectionError,
    CoordinateConverter,
    CutoutRequest,
    LsstDataFetcher,
    extract,
    sky_map_named,
)

CORNERS = ((0.1, -0.1), (0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1))
"""Of a patch, from its middle, in degrees."""


@pytest.fixture
def centre(repository: str) -> tuple[float, float]:
    """The middle of the first patch."""
    butler = Butler.from_config(repository)
    found = centre_of(butler, *next(iter(PATCHES)))
    butler.close()
    return found


def test_the_example_runs_as_written(own_repository: str) -> None:
    """But for its path: its collection, its position and its size, in a repository with an image of that patch."""
    place, collection = (150.0, 2.5), "2.2i/runs/DP0.2"
    tract, number = CoordinateConverter(sky_map_named(SKYMAP)).radec_to_tract_patch(*place)
    butler = Butler.from_config(own_repository, writeable=True)
    region = ConvexPolygon([UnitVector3d(LonLat.fromDegrees(place[0] + x, place[1] + y)) for x, y in CORNERS])
    cell = {"cell_x": number % 9, "cell_y": number // 9, "region": region}
    butler.registry.insertDimensionData("patch", {"skymap": SKYMAP, "tract": tract, "id": number, **cell})
    butler.collections.register(collection)
    image = exposure(place, (300, 100), 42)
    butler.put(image, "deepCoadd", skymap=SKYMAP, tract=tract, patch=number, band="g", run=collection)
    butler.close()

    config = ButlerConfig(
        repo_path=own_repository,
        collections=["2.2i/runs/DP0.2"],
        cache_size=500,
    )

    with LsstDataFetcher(config) as fetcher:
        cutout = fetcher.fetch_cutout(ra=150.0, dec=2.5, size=64)

    assert (cutout.bands, cutout.pixels.shape) == (("g",), (1, 64, 64))
    assert (cutout.images[0].tract, cutout.images[0].patch) == (tract, number)
    box = cutout.box()
    assert np.array_equal(cutout.pixels[0][box.in_box], image.planes["image"][box.on_image])
    at = cutout.cutout().image.wcs.world_to_pixel_values(*place)
    assert np.allclose(at, (31.5, 31.5), atol=1.0)


def test_the_example_of_the_design(repository: str, centre: tuple[float, float]) -> None:
    """A repository, collections, a position and a size: pixels and WCS of the patch's images, first found first."""
    ra, dec = centre
    config = ButlerConfig(repo_path=repository, collections=["chain"], cache_size=500)

    with LsstDataFetcher(config) as fetcher:
        cutout = fetcher.fetch_cutout(ra=ra, dec=dec, size=64)
        planes = fetcher.fetch_cutout(ra, dec, 16, bands=["r"], planes=["image", "mask", "variance"])
        there = fetcher.get_available_data(ra, dec)

    assert cutout.bands == ("g", "r")
    assert "/first/" in cutout.images[0].uri
    assert [(each["band"], each["tract"], each["patch"]) for each in there] == [
        ("g", *next(iter(PATCHES))), ("r", *next(iter(PATCHES))),
    ]  # fmt: skip
    for number, image in enumerate(cutout.images):
        alone = extract(image.uri, (ra, dec), 64, unit="pixel", hdu=image.hdus["image"])
        assert np.array_equal(cutout.pixels[number], alone.image.pixels)
        assert cutout.cutout(cutout.bands[number]).header["CRPIX1"] == alone.header["CRPIX1"]
    assert planes.plane("mask").dtype.kind == "i"
    assert planes.plane("variance").shape == (1, 16, 16)


def test_rows_of_patches_and_of_nowhere(repository: str, centre: tuple[float, float]) -> None:
    """Positions on the patch and off the sky map's patches each have their row, in order."""
    config = ButlerConfig(repo_path=repository, collections=["chain"], batch_size=2)
    requests = [CutoutRequest(*centre, 8), CutoutRequest(5.0, -70.0, 8), CutoutRequest(*centre, 8, bands=("z",))]

    with LsstDataFetcher(config) as fetcher:
        rows = list(fetcher.fetch_batch_cutouts(requests))

    assert [each.state for each in rows] == ["accepted", "failed", "failed"]
    assert "on no image" in rows[1].reason
    assert "band z" in rows[2].reason


def test_catalogues_by_region(repository: str, centre: tuple[float, float]) -> None:
    """The objects in a circle, of the repository's own catalogue."""
    config = ButlerConfig(repo_path=repository, collections=["chain"])
    with LsstDataFetcher(config) as fetcher:
        table = fetcher.fetch_catalog(Circle(*centre, 0.015), ["objectId", "flux"])

    assert table.num_rows == 2
    assert table.column_names == ["objectId", "flux"]


def test_a_folder_stands_in_for_a_repository_that_is_away(tmp_path: Path, centre: tuple[float, float]) -> None:
    """A repository that cannot be opened is passed over where a folder is named as well, and the health says so."""
    wcs = make_wcs(*centre, crpix=(40.5, 30.5))
    write_image(tmp_path / "g.fits", pixels_of((60, 80)), wcs, BAND="g")
    config = ButlerConfig(
        repo_path=str(tmp_path / "nowhere"), folder=str(tmp_path), retry_attempts=1, failure_threshold=1
    )

    with LsstDataFetcher(config) as fetcher:
        found = fetcher.fetch_cutout(*centre, 16)
        health = fetcher.check_health()

    assert found.bands == ("g",)
    assert health.state != "ok"


def test_a_collection_that_is_not_there(repository: str, centre: tuple[float, float]) -> None:
    """It is named, with those that are, and so in the row of each request."""
    config = ButlerConfig(repo_path=repository, collections=["nothing"])
    with LsstDataFetcher(config) as fetcher:
        with pytest.raises(CollectionError, match="nothing"):
            fetcher.fetch_cutout(*centre, 8)
        rows = list(fetcher.fetch_batch_cutouts([CutoutRequest(*centre, 8)] * 2))
    assert [(each.state, type(each.error)) for each in rows] == [("failed", CollectionError)] * 2


def test_a_repository_that_is_away_is_the_error_of_its_rows(
    own_repository: str, centre: tuple[float, float], tmp_path: Path
) -> None:
    """While it is: those that are asked for before and after are served by the same fetcher, in their order."""
    config = ButlerConfig(repo_path=own_repository, collections=["chain"], retry_attempts=1, batch_size=1, cache_size=0)
    told = []
    with LsstDataFetcher(config) as fetcher:
        rows = fetcher.fetch_batch_cutouts(CutoutRequest(*centre, 8) for _ in range(3))
        for place in (None, (own_repository, tmp_path / "moved"), (tmp_path / "moved", own_repository)):
            if place is not None:
                shutil.move(*place)
                fetcher.close()
            row = next(rows)
            told.append((row.row, row.state, type(row.error)))

    assert told == [(0, "accepted", type(None)), (1, "failed", ButlerConnectionError), (2, "accepted", type(None))]
