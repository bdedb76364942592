"""Cut-outs across patches and tracts of a real repository, against the undivided images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.io.fits import Header
from lsst.daf.butler import Butler, DatasetType
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from absurd.tasks.cutout import ButlerConfig, CutoutRequest, LsstDataFetcher, RingsSkyMap
from absurd.tasks.cutout.patches import LegacyPatches, PixelBox
from absurd.tasks.cutout.sources.exposure import Exposure, moved
from absurd.tasks.cutout.sources.formatter import exposure_config
from absurd.tasks.cutout.sphere import separation
from absurd.tasks.cutout.tract import Tract

SKY_MAP = RingsSkyMap(30, 20.0, 0.3, LegacyPatches((100, 100), 12))
NUMBER = 200
TRACT = SKY_MAP.tract(NUMBER)
X, EDGE = 600, SKY_MAP.box.y1


def pixels_of(box: PixelBox) -> Any:
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    return np.column_stack([x.ravel(), y.ravel()]).astype(float)


STARS = TRACT.to_sky(np.array([(X + 3.7, EDGE - 20.3), (X - 8.2, EDGE + 4.0), (X + 12.0, EDGE + 9.5)]))


def observed(tract: Tract, box: PixelBox) -> Any:
    """Stars of 3.5 pixels width at half maximum, 1000 high, on a background of 1000, in flux per pixel."""
    positions = tract.to_sky(pixels_of(box))
    apart = [separation(positions, np.broadcast_to(each, positions.shape)) * 3600 for each in STARS]
    sky = 1000 * (1 + sum(np.exp(-0.5 * (each / 30) ** 2) for each in apart))
    return (sky * tract.areas(positions) / np.radians(20 / 3600) ** 2).reshape(box.shape).astype(np.float32)


def exposure(tract: Tract, box: PixelBox) -> Exposure:
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    planes = {
        "image": observed(tract, box),
        "mask": ((x // 7 + y // 5) % 4).astype(np.int32),
        "variance": (4 + 0.01 * x).astype(np.float32),
    }
    header = moved(Header(tract.header()), (box.x0, box.y0))
    return Exposure(planes, header, (box.x0, box.y0), {"BAD": 0, "SAT": 1})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The patches around the northern edge of a tract, and those of its neighbours there."""
    root = str(tmp_path_factory.mktemp("straddle") / "repository")
    Butler.makeRepo(root, config=exposure_config())
    butler = Butler.from_config(root, writeable=True)
    butler.collections.register("run")
    name = "rings"
    butler.registry.insertDimensionData("instrument", {"name": "camera"})
    butler.registry.insertDimensionData("physical_filter", {"instrument": "camera", "name": "r", "band": "r"})
    butler.registry.insertDimensionData(
        "skymap", {"name": name, "hash": SKY_MAP.sha1, "tract_max": 1000, "patch_nx_max": 20, "patch_ny_max": 20}
    )
    dimensions = ("skymap", "tract", "patch", "band")
    butler.registry.registerDatasetType(
        DatasetType("deepCoadd", dimensions, "FitsExposure", universe=butler.dimensions)
    )
    around = TRACT.to_sky(pixels_of(PixelBox(X - 40, EDGE - 190, X + 40, EDGE + 20))[::40])
    for number in np.unique([*SKY_MAP.tract_of(around), NUMBER]):
        tract = SKY_MAP.tract(int(number))
        butler.registry.insertDimensionData(
            "tract", {"skymap": name, "id": tract.number, "region": polygon(tract.corners(tract.box))}
        )
        boxes = tract.to_pixel(around)
        for patch in np.unique(SKY_MAP.patch_at(boxes)[SKY_MAP.patch_at(boxes) >= 0]).tolist():
            x, y = tract.patch_index(patch)
            box = tract.outer_box(patch)
            butler.registry.insertDimensionData(
                "patch",
                {"skymap": name, "tract": tract.number, "id": patch, "cell_x": x, "cell_y": y}
                | {"region": polygon(tract.corners(box))},
            )
            place = {"skymap": name, "tract": tract.number, "patch": patch, "band": "r"}
            butler.put(exposure(tract, box), "deepCoadd", place, run="run")
    butler.close()
    return root


def polygon(corners: Any) -> ConvexPolygon:
    return ConvexPolygon([UnitVector3d(LonLat.fromDegrees(ra, dec)) for ra, dec in corners.tolist()])


def fetch(repository: str, x: float, y: float, size: tuple[int, int]) -> Any:
    ((ra, dec),) = TRACT.to_sky(np.array([[x, y]])).tolist()
    with LsstDataFetcher(ButlerConfig(repo_path=repository, collections=["run"])) as fetcher:
        request = CutoutRequest(ra, dec, size, planes=("image", "mask", "variance"))
        return next(iter(fetcher.fetch_batch_cutouts([request])))


def box_of(row: Any) -> PixelBox:
    """The box on the grid of the tract, by the headers alone."""
    header = row.cutout().header
    x, y = -round(header["LTV1"]), -round(header["LTV2"])
    ny, nx = row.pixels.shape[-2:]
    return PixelBox(x, y, x + nx, y + ny)


def test_across_patches_the_cut_is_that_of_the_undivided_tract(repository: str) -> None:
    """Four patches: image, mask and variance to the last bit, and the row names the four."""
    row = fetch(repository, X + 1, EDGE - 99, (60, 70))
    box = box_of(row)
    undivided = exposure(TRACT, box)

    assert row.state == "accepted" and row.quality.outside == 0
    for name, plane in undivided.planes.items():
        assert np.array_equal(row.plane(name)[0], plane), name
    assert len(row.all_images) == 4 and {each.tract for each in row.all_images} == {NUMBER}
    assert row.note == "stitched of 4 images"


def test_across_tracts_what_is_beyond_comes_from_the_neighbours(repository: str) -> None:
    """Pixels of the tract are exact; beyond it stars to 1 % of their height, masks of the nearest pixel, no hole."""
    row = fetch(repository, X, EDGE - 85, (200, 50))
    box = box_of(row)
    undivided = exposure(TRACT, box)
    own = np.zeros(box.shape, bool)
    own[: EDGE - box.y0] = True

    assert row.state == "accepted" and row.quality.outside == 0
    assert 0 < own.mean() < 1
    for name, plane in undivided.planes.items():
        assert np.array_equal(row.plane(name)[0][own], plane[own]), name
    image, expected = row.plane("image")[0].astype(float), undivided.planes["image"].astype(float)
    assert np.abs(image - expected).max() < 10
    assert image.sum() == pytest.approx(expected.sum(), rel=1e-4)
    assert set(np.unique(row.plane("mask")[0])) <= {0, 1, 2, 3}
    assert (row.plane("variance")[0][~own] > 0).all()
    assert len({each.tract for each in row.all_images}) > 1
    assert row.images[0].tract == NUMBER
