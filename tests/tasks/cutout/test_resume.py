"""A batch again in the same folder: what counts of an earlier run, and what is cut anew."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from range_server import serve
from skies import make_wcs, no_index, write_image

from absurd.tasks.artifact import own_name
from absurd.tasks.cutout import (
    ButlerConfig,
    FolderSource,
    ImageRef,
    LsstDataFetcher,
    cutting,
    fetch,
    in_turn,
    manifest,
    plan,
)
from absurd.tasks.cutout.cutting import cut_here
from absurd.tasks.cutout.params import BatchParams, Listed
from absurd.tasks.cutout.part import fits_names

SIDE = 120


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchParams:
    """One position near the edge of one image, with another image beside it on the same grid."""
    monkeypatch.chdir(tmp_path)
    Path("pair").mkdir()
    for name, shift, value in (("a", 0, 1.0), ("b", SIDE, 2.0)):
        wcs = make_wcs(10.0, 20.0, crpix=(SIDE / 2 - shift, SIDE / 2))
        write_image(Path("pair") / f"{name}.fits", np.full((SIDE, SIDE), value, np.float32), wcs, BAND="r")
    ra, dec = make_wcs(10.0, 20.0, crpix=(SIDE / 2, SIDE / 2)).all_pix2world([[SIDE - 4, SIDE / 2]], 0)[0]
    where = str(tmp_path / "pair")
    return BatchParams(positions=[(float(ra), float(dec))], source=where, size=16, unit="pixel", out="out")


def rows_of(params: BatchParams) -> list[dict[str, Any]]:
    """The manifest."""
    return list(manifest.read(Path(params.out) / "manifest.parquet"))


def values(params: BatchParams) -> list[float]:
    """The pixel values of the first row's file."""
    pixels = fits.getdata(Path(params.out) / rows_of(params)[0]["path"])
    return sorted(set(pixels[np.isfinite(pixels)].tolist()))


def test_a_file_of_another_run_does_not_count(pair: BatchParams) -> None:
    """Size 16, then 20, then 16 in one folder: the files are those of the last run, as its manifest says."""
    for size in (16, 20, 16):
        assert cut_here(pair.model_copy(update={"size": size}), no_index).cut == 1
        assert fits.getdata(Path(pair.out) / rows_of(pair)[0]["path"]).shape == (size, size)
    assert cut_here(pair, no_index).cut == 0


def test_what_is_beside_an_image_is_looked_at(pair: BatchParams) -> None:
    """A neighbour that goes or comes makes the part be cut again; without a change it is kept."""
    cut_here(pair, no_index)
    assert values(pair) == [1, 2]
    neighbour = Path("pair/b.fits")
    content = neighbour.read_bytes()

    neighbour.unlink()
    assert [cut_here(pair, no_index).cut for _ in range(2)] == [1, 0]
    assert values(pair) == [1]

    neighbour.write_bytes(content)
    assert [cut_here(pair, no_index).cut for _ in range(2)] == [1, 0]
    assert values(pair) == [1, 2]


def test_a_failure_that_may_pass_is_not_kept(pair: BatchParams) -> None:
    """A file that was away when the part was cut is tried again; a position on no image is not."""
    (planned,) = cutting.plan(pair, no_index).parts
    Path("pair/a.fits").rename("a.fits")
    cutting.cut_part(pair, planned.name, no_index)
    Path("a.fits").rename("pair/a.fits")
    assert [cut_here(pair, no_index).cut for _ in range(2)] == [1, 0]
    assert values(pair) == [1, 2]

    nowhere = pair.model_copy(update={"positions": [(50.0, -20.0)]})
    assert [cut_here(nowhere, no_index).cut for _ in range(2)] == [1, 0]


def test_what_a_source_gave_that_stood_in_is_not_kept(pair: BatchParams) -> None:
    """The first source is away when the part is cut: once it is back, the row is its."""
    Path("other").mkdir()
    Path("other/a.fits").write_bytes(Path("pair/a.fits").read_bytes())
    params = pair.model_copy(update={"source": ["pair", "other"]})
    (planned,) = cutting.plan(params, no_index).parts
    Path("pair").rename("away")
    cutting.cut_part(params, planned.name, no_index)
    Path("away").rename("pair")
    cutting._fetchers.close()

    assert [cut_here(params, no_index).cut for _ in range(2)] == [1, 0]
    assert rows_of(params)[0]["note"] == "stitched of 2 images"


def test_what_a_killed_process_left_under_the_same_number_goes(pair: BatchParams) -> None:
    """Half a file in the folder aside of a process with this one's number, at which nobody is, becomes no product."""
    (planned,) = cutting.plan(pair, no_index).parts
    left = Path(pair.out) / plan.PARTS / own_name(f"{planned.name}.arrow", "fits")
    left.mkdir()
    (left / "000009_r.fits").write_bytes(b"half")

    assert cut_here(pair, no_index).accepted == 1
    assert [each.name for each in Path(pair.out).glob("*.fits")] == ["000000_r.fits"]


def test_bands_of_the_same_plain_name_have_files_of_their_own() -> None:
    """Signs that no file's name should have are replaced; then the band's number tells two apart."""
    assert fits_names(3, "a b", ["g'", "g*", None]) == [
        "000003_a-b_g-.fits", "000003_a-b_g--1.fits", "000003_a-b_2.fits",
    ]  # fmt: skip


def test_own_sizes_count_for_what_is_held(pair: BatchParams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a size of their own are cut one by one where two are more than may be held at once."""
    assert isinstance(pair.positions, list)
    first = pair.positions[0]
    assert isinstance(first, tuple)
    ra, dec = first
    held: list[int] = []

    def counting(find: Any, requests: Any, **options: Any) -> Any:
        held.append(len(requests))
        return fetch.fetch_chunk(find, requests, **options)

    monkeypatch.setattr(in_turn, "fetch_chunk", counting)
    monkeypatch.setattr(cutting, "CHUNK", 4 * 30**2)
    listed = [Listed(ra=ra, dec=dec, size=size) for size in (30, 30, 15, 15, 15, 15, 15)]
    cut_here(pair.model_copy(update={"positions": listed, "fits": False}), no_index)

    assert held == [1, 1, 4, 1]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"bands": ["r", "z"]}, "cutout_band_not_found"),
        ({"planes": ["image", "mask"]}, "cutout_plane_not_found"),
        ({"edge": "refuse", "size": 200.0}, "cutout_outside"),
    ],
)
def test_what_is_refused_for_good_is_not_cut_again(pair: BatchParams, change: dict[str, Any], code: str) -> None:
    """A band or a plane that is not there, a box beyond all images: until an image is another, or one is new."""
    params = pair.model_copy(update=change)
    assert [cut_here(params, no_index).cut for _ in range(3)] == [1, 0, 0]
    assert [each["code"] for each in rows_of(params)] == [code]

    os.utime("pair/a.fits", ns=(1, 1))
    assert [cut_here(params, no_index).cut for _ in range(2)] == [1, 0]


def test_a_box_that_was_refused_is_cut_once_its_neighbour_is_there(pair: BatchParams) -> None:
    """With `edge` refuse, an image that comes to lie beside the own makes it whole, and one that goes does not."""
    params = pair.model_copy(update={"edge": "refuse"})
    Path("pair/b.fits").rename("b.fits")
    assert [cut_here(params, no_index).failed for _ in range(2)] == [1, 1]
    assert cut_here(params, no_index).cut == 0

    Path("b.fits").rename("pair/b.fits")
    assert [(each.cut, each.accepted) for each in (cut_here(params, no_index), cut_here(params, no_index))] == [
        (1, 1),
        (0, 1),
    ]
    assert values(params) == [1, 2]

    Path("pair/b.fits").unlink()
    assert [(each.cut, each.failed) for each in (cut_here(params, no_index), cut_here(params, no_index))] == [
        (1, 1),
        (0, 1),
    ]


def test_parts_of_other_plans_are_not_kept(pair: BatchParams) -> None:
    """However often options and images change, there is one part, with what belongs to it."""
    for size in (16, 20):
        for time in (1, 2):
            os.utime("pair/a.fits", ns=(time, time))
            params = pair.model_copy(update={"size": size, "tensors": "none"})
            assert cut_here(params, no_index).cut == 1
    (planned,) = cutting.plan(params, no_index).parts
    left = {each.name for each in (Path("out") / plan.PARTS).iterdir()} - {"lock", "holder.json"}
    assert left == {f"{planned.name}.arrow", f"{planned.name}.requests.arrow"}
    assert cut_here(params, no_index).cut == 0


def test_parts_go_once_they_are_of_no_use(pair: BatchParams) -> None:
    """Where that is wished, and not before every row is as good as it can be; then all is cut anew."""
    assert isinstance(pair.positions, list)
    listed = [*pair.positions, (50.0, -20.0), (400.0, 0.0)]
    params = pair.model_copy(update={"keep_parts": False, "positions": listed})
    kept = cutting.plan(params, no_index)
    Path("pair/a.fits").rename("a.fits")
    for each in kept.parts:
        cutting.cut_part(params, each.name, no_index)
    assert not cutting.is_done(params, kept)
    Path("a.fits").rename("pair/a.fits")

    result = cut_here(params, no_index)
    assert (result.accepted, result.failed) == (1, 2)
    assert not (Path("out") / plan.PARTS).exists()
    assert values(params) == [1, 2]
    assert cut_here(params, no_index).cut == 3
    assert cut_here(params.model_copy(update={"keep_parts": True}), no_index).cut == 3
    assert cut_here(params, no_index).cut == 0
    assert not (Path("out") / plan.PARTS).exists()


class Registry:
    """A source that knows images by names that do not change with their files, as a repository does."""

    name = "registry"

    def __init__(self, *addresses: str) -> None:
        self._refs = [ImageRef(each, "r", {"image": 0}, 1, number, "id") for number, each in enumerate(addresses)]

    def find(self, positions: Any, bands: Any = ()) -> list[list[ImageRef]]:
        """The image of a position, by its right ascension: the second is to the east of the first, at lower x."""
        edge = make_wcs(10.0, 20.0, crpix=(SIDE / 2, SIDE / 2)).all_pix2world([[SIDE - 0.5, SIDE / 2]], 0)[0][0]
        return [[self._refs[int(ra < edge)]] for ra, _ in positions]

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_remote_image_that_has_changed_is_cut_again(
    pair: BatchParams, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also one beside the image of the position: what its server says of its version counts, whoever names it."""
    with serve(Path("pair")) as served:
        source = Registry(f"{served.address}/a.fits", f"{served.address}/b.fits")
        fetcher = LsstDataFetcher(ButlerConfig(folder="-", cache_size=0), sources={"registry": source})
        monkeypatch.setattr(cutting, "fetcher_of", lambda *_: nullcontext(fetcher))
        assert [cut_here(pair, no_index).cut for _ in range(2)] == [1, 0]
        assert values(pair) == [1, 2]

        os.utime(f"pair/{name}.fits", ns=(1, 1))
        assert [cut_here(pair, no_index).cut for _ in range(2)] == [1, 0]
        (Path("pair") / f"{name}.fits").rename("away.fits")
        assert [cut_here(pair, no_index).cut for _ in range(2)] == [1, 1]
        assert rows_of(pair)[0]["code"] == "cutout_source_not_found"
        Path("away.fits").rename(f"pair/{name}.fits")
        assert [cut_here(pair, no_index).cut for _ in range(2)] == [1, 0]
    assert cut_here(pair, no_index).cut == 0  # its server is away, which says nothing of the image


def test_sizes_in_arcseconds_are_those_of_the_images(pair: BatchParams, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held at once is told by the pixels that the images have, and finding these is asked for all rows."""
    assert isinstance(pair.positions, list)
    asked: list[int] = []
    held: list[int] = []
    find = FolderSource.find

    def finding(self: FolderSource, positions: Any, bands: Any = ()) -> Any:
        asked.append(len(positions))
        return find(self, positions, bands)

    def counting(find: Any, requests: Any, **options: Any) -> Any:
        held.append(len(requests))
        return fetch.fetch_chunk(find, requests, **options)

    monkeypatch.setattr(in_turn, "fetch_chunk", counting)
    monkeypatch.setattr(FolderSource, "find", finding)
    monkeypatch.setattr(cutting, "CHUNK", 4 * 4 * 20**2)
    wcs = make_wcs(10.0, 20.0, crpix=(SIDE / 2, SIDE / 2))  # of half an arcsecond a pixel
    positions = [tuple(each) for each in wcs.all_pix2world([[50 + i, 50] for i in range(10)], 0).tolist()]
    params = pair.model_copy(update={"positions": positions, "size": 10, "unit": "arcsec", "fits": False})
    assert cut_here(params, no_index).accepted == 10

    assert held == [4, 4, 2]
    assert asked == [10, 10]  # of the plan, of the part
