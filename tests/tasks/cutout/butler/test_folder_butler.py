"""The Butler of `absurd.testing`: a folder that is asked as a real repository, and answers as that does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler
from lsst.daf.butler.formatters.parquet import astropy_to_arrow
from scratch_butler import PATCHES, SKYMAP, Settings, centre_of, object_table

from absurd.tasks.cutout.errors import ButlerConnectionError, CollectionError, RippleError
from absurd.tasks.cutout.sources.butler import ButlerClient
from absurd.tasks.cutout.sources.butler_source import ButlerSource
from absurd.testing.folder_butler import FolderButler, square


@pytest.fixture
def pair(pristine: str, tmp_path: Path) -> tuple[ButlerClient, FolderButler]:
    """A client of a real repository, and a folder with the same datasets."""
    client = ButlerClient(Settings(repo_path=pristine))
    folder = FolderButler(tmp_path / "folder", ["chain"])
    for run in ("first", "second"):
        with ButlerClient(Settings(repo_path=pristine, collections=(run,))) as one:
            for tract, patch in PATCHES:
                for data_id in one.query_available_datasets(tract, patch).get("deepCoadd", []):
                    folder.put(one.get_exposure(data_id), "deepCoadd", run, **data_id)
    butler = Butler.from_config(pristine)
    for tract, patch in PATCHES:
        table = astropy_to_arrow(object_table(tract, patch, centre_of(butler, tract, patch)))
        folder.put(table, "objectTable", "first", skymap=SKYMAP, tract=tract, patch=patch)
        if tract == 9615:
            whole = client.get_catalog(tract, None, "objectTable_tract")
            folder.put(whole, "objectTable_tract", "first", skymap=SKYMAP, tract=tract)
        folder.add_patch(tract, patch, square(*centre_of(butler, tract, patch), 0.19))
    butler.close()
    folder.chain("chain", ["first", "second"])
    return client, folder


def test_it_answers_as_a_real_one(pair: tuple[ButlerClient, FolderButler]) -> None:
    """Availability, images, boxes, planes and catalogues, through chains."""
    client, folder = pair
    data_id = {"skymap": SKYMAP, "tract": 9615, "patch": 14, "band": "g"}
    box = (19910, 3920, 19917, 3925)
    assert folder.test_connection() is client.test_connection() is True
    assert set(folder.list_collections()) < set(client.list_collections())
    for patch in (*PATCHES, (9615, 15)):
        assert folder.query_available_datasets(*patch) == client.query_available_datasets(*patch)
    assert folder.dataset_type("image") == client.dataset_type("image")
    for one, other in (
        (client.get_exposure(data_id), folder.get_exposure(data_id)),
        (client.get_exposure(data_id, box), folder.get_exposure(data_id, box)),
    ):
        assert (one.box, dict(one.mask_bits)) == (other.box, dict(other.mask_bits))
        for plane in ("image", "mask", "variance"):
            assert np.array_equal(one.planes[plane], other.planes[plane])
        assert one.wcs.wcs.compare(other.wcs.wcs)
    assert folder.get_catalog(9813, 72).equals(client.get_catalog(9813, 72))
    for number in (14, 15, None):
        table = folder.get_catalog(9615, number, "objectTable_tract", ["flux"])
        assert table.equals(client.get_catalog(9615, number, "objectTable_tract", ["flux"]))
    found, real = folder.locate(PATCHES), client.locate(PATCHES)
    assert {key: sorted(str(each.band) for each in some) for key, some in found.items()} == {
        key: sorted(str(each.band) for each in some) for key, some in real.items()
    }
    with fits.open(found[9615, 14][0].uri) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "MASK", "VARIANCE"]
    client.cleanup()


def test_its_errors_are_those_of_a_real_one(pair: tuple[ButlerClient, FolderButler]) -> None:
    """Each wrong call is the same kind of error at both."""
    client, folder = pair
    data_id = {"skymap": SKYMAP, "tract": 9615, "patch": 14, "band": "g"}
    calls: list[Callable[[Any], object]] = [
        lambda butler: butler.get_exposure(data_id | {"band": "z"}),
        lambda butler: butler.get_exposure({"tract": 9615}),
        lambda butler: butler.get_exposure(data_id | {"visit": 5}),
        lambda butler: butler.get_exposure(data_id, (0, 0, 5, 5)),
        lambda butler: butler.get_exposure(data_id, (1, 2, 3)),
        lambda butler: butler.get_exposure(data_id, planes=("psf",)),
        lambda butler: butler.get_catalog(9615, 15),
        lambda butler: butler.get_catalog(9615, 14, "object", ["mag"]),
        lambda butler: butler.dataset_type("source"),
    ]
    for call in calls:
        kinds = []
        for butler in (client, folder):
            with pytest.raises(RippleError) as caught:
                call(butler)
            kinds.append(type(caught.value))
        assert kinds[0] is kinds[1]
    with pytest.raises(CollectionError, match="has no collection absent; there are chain, first, second"):
        FolderButler(folder.folder, ["absent"]).test_connection()
    client.cleanup()


def test_a_source_over_it(pair: tuple[ButlerClient, FolderButler]) -> None:
    """Positions find the same patches and bands as in the real repository."""
    client, folder = pair
    butler = Butler.from_config(client.place)
    positions = np.array([*(centre_of(butler, *patch) for patch in PATCHES), (5.0, -70.0)])
    butler.close()
    for bands in ((), ("r",)):
        one, other = (ButlerSource(each).find(positions, bands) for each in (client, folder))
        assert [[(each.tract, each.patch, each.band) for each in refs] for refs in one] == [
            [(each.tract, each.patch, each.band) for each in refs] for refs in other
        ]
    client.cleanup()


def test_nothing_of_lsst_is_needed(pair: tuple[ButlerClient, FolderButler]) -> None:
    """Where lsst cannot be imported, a source over the folder finds and reads as before."""
    code = f"""
import sys
sys.modules["lsst"] = None
import numpy as np
from absurd.tasks.cutout import ButlerSource
from absurd.testing.folder_butler import FolderButler
butler = FolderButler({str(pair[1].folder)!r}, ["chain"])
sky_map = butler.get_skymap()
(refs,) = ButlerSource(butler).find(np.array([[216.1096, 0.1838]]))
print([ref.band for ref in refs], butler.get_catalog(9615, 14).num_rows, butler.get_exposure(
    {{"tract": 9615, "patch": 14, "band": "g"}}, (19900, 3900, 19903, 3902)).image.shape)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "['g', 'r'] 5 (2, 3)\n"), result.stderr


def test_it_can_be_away(tmp_path: Path) -> None:
    """For tests of what a program does then; calls are counted."""
    folder = FolderButler(tmp_path / "none", ["a"])
    assert folder.test_connection() is False
    folder.chain("a", [])
    assert folder.test_connection() is True
    folder.away = True
    with pytest.raises(ButlerConnectionError, match="does not answer"):
        folder.locate([(1, 2)])
    assert folder.calls == {"test_connection": 2, "dataset_type": 1}
