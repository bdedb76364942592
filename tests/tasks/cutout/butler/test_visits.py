"""Images of single exposures of a real repository, by position."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from lsst.daf.butler import Butler, DatasetType
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d
from scratch_butler import SHAPE, Settings, exposure

from absurd.tasks.cutout import (
    ButlerConfig,
    CutoutRequest,
    DataIdValidationError,
    LsstDataFetcher,
    RippleError,
    extract,
)
from absurd.tasks.cutout.grid import ImageGrid
from absurd.tasks.cutout.sources.butler import ButlerClient
from absurd.tasks.cutout.sources.butler_source import VisitSource

IMAGES = {(11690, 1): ("g", 0.0), (11690, 2): ("g", 0.15), (23868, 1): ("r", 0.05)}
"""Visit and detector: band, and degrees of declination above the first."""


@pytest.fixture
def visits(own_repository: str) -> str:
    """Three images, 0.23 degrees wide and 0.2 high, of two visits, with their regions."""
    butler = Butler.from_config(own_repository, writeable=True)
    kind = DatasetType("calexp", ("instrument", "visit", "detector"), "FitsExposure", universe=butler.dimensions)
    butler.registry.registerDatasetType(kind)
    for seed, ((visit, detector), (band, up)) in enumerate(IMAGES.items()):
        made = exposure((215.0, up), (0, 0), seed, band)
        ny, nx = SHAPE
        corners = np.array([(nx - 0.5, -0.5), (-0.5, -0.5), (-0.5, ny - 0.5), (nx - 0.5, ny - 0.5)])
        vertices = [UnitVector3d(LonLat.fromDegrees(*each)) for each in ImageGrid(made.wcs).to_sky(corners).tolist()]
        place: dict[str, Any] = {"instrument": "HSC", "visit": visit, "detector": detector}
        butler.registry.insertDimensionData("visit_detector_region", place | {"region": ConvexPolygon(vertices)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            butler.put(made, kind, place, run="first")
    butler.close()
    return own_repository


def test_the_exposures_of_a_position(visits: str) -> None:
    """All that hold it, by band, the deepest first; pixels and mask are those of its file; none is none."""
    client = ButlerClient(Settings(repo_path=visits, collections=("chain",)))
    source = VisitSource(client)
    both, one, none = source.find(np.array([(215.0, 0.09), (215.0, -0.03), (214.0, 0.0)]))
    assert [each.band for each in both] == ["g", "g", "r"]
    assert [each.band for each in one] == ["g", "r"] and none == []
    assert both[1] == one[0] and both[0] != one[0]
    assert [each.band for each in source.find(np.array([(215.0, 0.09)]), ["r"])[0]] == ["r"]

    config = ButlerConfig(repo_path=visits, collections=["chain"])
    request = CutoutRequest(215.0, 0.09, 9, planes=("image", "mask"))
    with LsstDataFetcher(config, sources={"visits": source}) as fetcher:
        (row,) = fetcher.fetch_batch_cutouts([request])
    for number, ref in enumerate((both[0], both[2])):
        alone = extract(ref.uri, (215.0, 0.09), 9, unit="pixel", planes=("image", "mask"))
        assert np.array_equal(row.pixels[number], alone.image.pixels)
        assert np.array_equal(row.plane("mask")[number], alone.planes["mask"])
    with pytest.raises(DataIdValidationError, match="not of visits"):
        client.locate_visits((215.0, 0.0), 0.1, dataset_type="deepCoadd")
    source.close()


def test_the_instrument_of_the_configuration(visits: str) -> None:
    """It completes a data ID that has none; of another instrument there is no such image."""
    place = {"visit": 11690, "detector": 1}
    for instrument in ("HSC", "LSSTCam-imSim"):
        config = ButlerConfig(repo_path=visits, collections=["chain"], instrument=instrument)
        with ButlerClient(config) as client:
            if instrument == "HSC":
                assert client.get_exposure(place, dataset_type="calexp").image.shape == SHAPE
            else:
                with pytest.raises(RippleError, match="LSSTCam-imSim"):
                    client.get_exposure(place, dataset_type="calexp")
