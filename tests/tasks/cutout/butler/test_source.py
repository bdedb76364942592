"""Images of a real Butler by position: tracts, patches and files, for many positions at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler, DatasetRef, DatasetType, FileDataset
from lsst.sphgeom import LonLat, UnitVector3d
from numpy.typing import NDArray
from scratch_butler import PATCHES, SKYMAP, Settings, centre_of
from statements import statements

from absurd.tasks.cutout import extract
from absurd.tasks.cutout.errors import ImageUnreadableError, SourceNotFoundError
from absurd.tasks.cutout.sources.butler import ButlerClient
from absurd.tasks.cutout.sources.butler_source import ButlerSource


def source_of(repository: str, *collections: str, **options: Any) -> ButlerSource:
    settings = Settings(repo_path=repository, collections=collections or ("chain",))
    return ButlerSource(ButlerClient(settings), **options)


@pytest.fixture
def centres(repository: str) -> dict[tuple[int, int], tuple[float, float]]:
    """The middle of each patch."""
    butler = Butler.from_config(repository)
    found = {patch: centre_of(butler, *patch) for patch in PATCHES}
    butler.close()
    return found


def scattered(centres: dict[tuple[int, int], tuple[float, float]], n: int) -> NDArray[np.float64]:
    """Positions around the patches, half of them outside."""
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    middles = np.array(list(centres.values()))[random.integers(0, len(centres), n)]
    return middles + random.uniform(-0.15, 0.15, (n, 2))


def test_each_position_has_the_images_of_its_patch(
    repository: str, centres: dict[tuple[int, int], tuple[float, float]]
) -> None:
    """In the order of the positions, bands from blue to red or as wanted; none where there is no patch."""
    (first, second), nowhere = PATCHES, (5.0, -70.0)
    positions = np.array([centres[second], nowhere, centres[first], centres[second]])
    source = source_of(repository)
    found = source.find(positions)
    assert [[each.band for each in refs] for refs in found] == [["g", "r"], [], ["g", "r"], ["g", "r"]]
    assert {(each.tract, each.patch) for each in found[0]} == {second}
    assert found[0] == found[3]
    assert "/first/" in found[2][0].uri
    assert "/second/" in found[2][1].uri
    assert dict(found[0][0].hdus) == {"image": 1, "mask": 2, "variance": 3}
    assert [[each.band for each in refs] for refs in source.find(positions, ["r", "z"])] == [["r"], [], ["r"], ["r"]]
    assert source.find(np.empty((0, 2))) == []
    source.close()


def test_tract_and_patch_are_those_of_the_regions(
    repository: str, centres: dict[tuple[int, int], tuple[float, float]]
) -> None:
    """Position by position what lsst-sphgeom says of the regions in the registry."""
    source = source_of(repository)
    positions = scattered(centres, 500)
    tracts, patches = source.client.get_skymap().owning(*positions.T)
    butler = Butler.from_config(repository)
    with butler.query() as query:
        records = list(query.where(skymap=SKYMAP).dimension_records("patch"))
    butler.close()
    for (ra, dec), tract, patch in zip(positions, tracts, patches, strict=True):
        point = UnitVector3d(LonLat.fromDegrees(ra % 360, dec))
        holding = {(each.tract, each.id) for each in records if each.region.contains(point)}
        assert ({(int(tract), int(patch))} if patch >= 0 else set()) == holding
    assert 0 < (patches >= 0).sum() < 500
    source.close()


def test_the_number_of_queries_does_not_grow_with_positions(
    repository: str, centres: dict[tuple[int, int], tuple[float, float]]
) -> None:
    """Two thousand positions are as many statements as two; the second time no header is read."""
    source = source_of(repository)
    source.find(np.array(list(centres.values())))
    with statements() as few:
        source.find(np.array(list(centres.values())))
    with statements() as many:
        found = source.find(scattered(centres, 2000))
    assert len(many) <= len(few)
    assert len({each.uri for refs in found for each in refs}) == 4
    source.close()


def test_a_cut_of_what_was_found(repository: str, centres: dict[tuple[int, int], tuple[float, float]]) -> None:
    """A reference is enough to cut: the position is in the middle of the pixels that the file has there."""
    source = source_of(repository)
    (ref, _), *_ = source.find(np.array([centres[9615, 14]]))
    cut = extract(ref.uri, centres[9615, 14], 9, unit="pixel", planes=["image", "mask"])
    with ButlerClient(Settings(repo_path=repository)) as client:
        whole = client.get_exposure({"tract": 9615, "patch": 14, "band": "g"})
    x, y = cut.box.origin
    assert np.array_equal(cut.image.pixels, whole.image[y : y + 9, x : x + 9])
    assert np.array_equal(cut.planes["mask"], whole.mask[y : y + 9, x : x + 9])
    source.close()


class OneTract:
    """A sky map that has one tract and one patch."""

    def owning(self, ra: Any, _dec: Any) -> tuple[Any, Any]:
        return np.full(len(ra), 9813), np.full(len(ra), 72)

    def overlapping(self, ra: Any, _dec: Any) -> tuple[Any, Any, Any]:
        return np.arange(len(ra)), np.full(len(ra), 9813), np.full(len(ra), 72)


def test_another_sky_map_may_tell(repository: str) -> None:
    """What tells tract and patch is asked instead of the registry."""
    source = source_of(repository, sky_map=OneTract())
    assert [each.band for each in source.find(np.array([[0.0, 0.0]]))[0]] == ["g", "r"]
    source.close()


def test_a_torn_file_is_its_own_positions_error(own_repository: str) -> None:
    """Others have their images; where it is cut, the error says what is wrong with it."""
    butler = Butler.from_config(own_repository)
    centres = [centre_of(butler, *patch) for patch in PATCHES]
    butler.close()
    source = source_of(own_repository)
    before = source.find(np.array(centres))
    path = Path(before[0][0].uri)
    with fits.open(path) as hdus:
        end = hdus[1].fileinfo()["datLoc"] + 1000
    path.write_bytes(path.read_bytes()[:end])
    torn = source.find(np.array(centres))
    with pytest.raises(ImageUnreadableError, match="truncated"):
        extract(torn[0][0].uri, centres[0], 9, unit="pixel")
    path.unlink()
    gone = source.find(np.array(centres))
    with pytest.raises(SourceNotFoundError, match="there is no file"):
        extract(gone[0][0].uri, centres[0], 9, unit="pixel")
    for found in (torn, gone):
        assert found[1] == before[1]
        assert [each.band for each in found[0]] == ["g", "r"]
        assert found[0][0] != before[0][0]
    source.close()


def test_images_of_the_pipelines_are_read_without_afw(own_repository: str, tmp_path: Path) -> None:
    """A dataset of the stock class ExposureF, its file as afw writes it, that `Butler.get` cannot read here."""
    image = np.arange(20 * 30, dtype=np.float32).reshape(20, 30)
    header = fits.Header([("LTV1", -500.0), ("LTV2", -700.0), ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN")])
    header.update({"CRVAL1": 10.0, "CRVAL2": 2.0, "CRPIX1": 5.0, "CRPIX2": 6.0, "CDELT1": -1e-3, "CDELT2": 1e-3})
    header.update({"CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRPIX1A": 1.0, "CRPIX2A": 1.0, "CRVAL1A": 500.0})
    mask = header.copy()
    mask.update({"MP_BAD": 0, "HIERARCH MP_DETECTED_NEGATIVE": 6})
    file = tmp_path / "calexp.fits"
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.CompImageHDU(image, header, name="IMAGE", compression_type="RICE_1", quantize_level=0.0),
            fits.CompImageHDU(np.full((20, 30), 64, np.int32), mask, name="MASK", compression_type="GZIP_1"),
            fits.CompImageHDU(image + 1, header, name="VARIANCE", compression_type="GZIP_1", quantize_level=0.0),
            fits.BinTableHDU.from_columns([fits.Column("x", "J", array=np.arange(3))], name="ARCHIVE_INDEX"),
        ]
    ).writeto(file)
    butler = Butler.from_config(own_repository, writeable=True)
    kind = DatasetType(
        "deepCoadd_calexp", ("skymap", "tract", "patch", "band"), "ExposureF", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(kind)
    data_id = butler.registry.expandDataId(skymap=SKYMAP, tract=9615, patch=14, band="g")
    ref = DatasetRef(kind, data_id, run="first")
    butler.ingest(FileDataset(str(file), [ref]), transfer="direct")
    with pytest.raises(ImportError, match="afw"):
        butler.get(ref)
    butler.close()
    with ButlerClient(Settings(repo_path=own_repository)) as client:
        found = client.get_exposure(
            {"tract": 9615, "patch": 14, "band": "g"}, (510, 705, 514, 708), dataset_type="deepCoadd_calexp"
        )
    assert np.array_equal(found.image, image[5:8, 10:14])
    assert np.array_equal(found.variance, image[5:8, 10:14] + 1)
    assert found.mask.tolist() == [[64] * 4] * 3
    assert found.mask_value("DETECTED_NEGATIVE") == 64
    assert (found.header["CRPIX1"], found.header["CRPIX1A"], found.header["LTV1"]) == (-5.0, -9.0, -510.0)
