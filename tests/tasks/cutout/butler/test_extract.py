"""A task that cuts out of a repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from lsst.daf.butler import Butler
from scratch_butler import PATCHES, centre_of
from single_run import fail, run

from absurd.tasks.cutout import ButlerConfig, LsstDataFetcher


def test_a_repository_is_a_source(own_repository: str, tmp_path: Path) -> None:
    """Its bands and planes are cut as the fetcher cuts them; a collection that is not there is an error."""
    butler = Butler.from_config(own_repository)
    ra, dec = centre_of(butler, *next(iter(PATCHES)))
    butler.close()
    params = {"ra": ra, "dec": dec, "size": 16, "unit": "pixel", "source": own_repository, "planes": ["image", "mask"]}

    result, kinds = run("cutout.extract", params | {"collections": ["chain"], "out": str(tmp_path / "cut")})

    config = ButlerConfig(repo_path=own_repository, collections=["chain"])
    with LsstDataFetcher(config) as fetcher:
        expected = fetcher.fetch_cutout(ra, dec, 16)
    assert [each["band"] for each in result["cutouts"]] == list(expected.bands) == ["g", "r"]
    for number, each in enumerate(result["cutouts"]):
        with fits.open(each["path"]) as file:
            assert np.array_equal(file[0].data, expected.pixels[number])
            assert "MASK" in file
    assert kinds.count("cutout") == 2
    error = fail("cutout.extract", params | {"collections": ["absent"], "out": str(tmp_path / "x")})
    assert error["code"] == "cutout_collection"
