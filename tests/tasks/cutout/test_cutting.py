"""A batch in parts: what it keeps, in which order, what is cut again, and what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from skies import make_wcs, no_index, pixels_of, write_image

from absurd.tasks.cutout import ButlerConfig, LsstDataFetcher, cutting, extract, manifest, parsed, plan
from absurd.tasks.cutout.cutting import cut_here
from absurd.tasks.cutout.params import BatchParams
from absurd.tasks.cutout.products import write_products
from absurd.tasks.cutout.tensor import read_tensors

SIDE = 120
SPREAD = 0.4 * SIDE * 0.5 / 3600
"""Degrees from the middle of an image within which boxes are on it."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of different places."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        wcs = make_wcs(10.0 + number, 20.0, crpix=(SIDE / 2, SIDE / 2))
        write_image(folder / f"{number}.fits", pixels_of((SIDE, SIDE), number), wcs, BAND="r")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Forty positions on the three images in no order, and some that are none."""
    random = np.random.default_rng(3)
    lines = ["id,ra,dec,size"]
    for number in range(40):
        ra, dec = 10 + random.integers(3) + random.uniform(-SPREAD, SPREAD), 20 + random.uniform(-SPREAD, SPREAD)
        lines.append(f"s {number},{ra},{dec},")
    lines[5:5] = ["a,400,20,", "b,nan,20,", "c,10,20,0", "d,50,-20,", "e,ten,20,"]
    path = tmp_path / "positions.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def params(images: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchParams:
    """A batch of all of it, in parts of at most ten."""
    monkeypatch.setattr(plan, "ROWS_OF_A_PART", 10)
    return BatchParams(
        positions=str(table),
        source=str(images),
        size=16,
        unit="pixel",
        fits=False,
        tensors="none",
        out=str(tmp_path / "out"),
    )


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The positions of all requests that are cut."""
    asked: list[tuple[float, float]] = []
    fetch = LsstDataFetcher.fetch_batch_cutouts

    def counting(self: LsstDataFetcher, requests: Any, *rest: Any, **options: Any) -> Any:
        asked.extend((each.ra, each.dec) for each in requests)
        return fetch(self, requests, *rest, **options)

    monkeypatch.setattr(LsstDataFetcher, "fetch_batch_cutouts", counting)
    return asked


def rows_of(params: BatchParams) -> list[dict[str, Any]]:
    """The manifest."""
    return list(manifest.read(Path(params.out) / "manifest.parquet"))


def test_every_request_has_its_row(params: BatchParams, images: Path) -> None:
    """In the order of the table, whatever the parts; bad ones with their reasons; files and tensors are the pixels."""
    result = cut_here(params.model_copy(update={"fits": True}), no_index)

    rows, out = rows_of(params), Path(params.out)
    assert [each["row"] for each in rows] == list(range(45))
    assert (result.rows, result.accepted, result.rejected, result.failed) == (45, 40, 0, 5)
    assert [(each["id"], each["code"]) for each in rows[4:9]] == [
        ("a", "cutout_position_invalid"), ("b", "cutout_position_invalid"), ("c", "cutout_size_invalid"),
        ("d", "cutout_outside"), ("e", "cutout_request_invalid"),
    ]  # fmt: skip
    assert "'ten'" in rows[8]["reason"]
    numbers, pixels, _ = read_tensors(out / "tensors.parquet")
    good = [each for each in rows if each["state"] == "accepted"]
    assert numbers.tolist() == [each["row"] for each in good]
    assert [each["tensor"] for each in good] == list(range(40))
    for each in good:
        source = images / f"{round(each['ra']) - 10}.fits"
        alone = extract(source, (each["ra"], each["dec"]), 16, unit="pixel")
        assert np.array_equal(pixels[each["tensor"], 0], alone.image.pixels)
        name = f"{each['row']:06d}_{each['id'].replace(' ', '-')}_r.fits"
        with fits.open(out / name) as file:
            assert np.array_equal(file[0].data, alone.image.pixels)
            assert file[0].header["CRPIX1"] == alone.header["CRPIX1"]
    assert len(list(out.glob("*.fits"))) == 40


def test_the_library_keeps_the_same(params: BatchParams, images: Path, tmp_path: Path) -> None:
    """`write_products` of rows that are fetched in one go gives the rows of a batch in parts."""
    cut_here(params, no_index)
    fetched = tmp_path / "fetched"
    with LsstDataFetcher(ButlerConfig(folder=str(images))) as fetcher:
        good = [each for each in rows_of(params) if each["code"] in (None, "cutout_outside")]
        requests = [params.request(each["ra"], each["dec"], 16, each["id"]) for each in good]
        write_products(fetcher.fetch_batch_cutouts(requests), fetched, fits=False, tensors="none")

    def same(each: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in each.items() if name != "row"}

    assert [same(each) for each in manifest.read(fetched / "manifest.parquet")] == [same(each) for each in good]
    for one, other in zip(
        read_tensors(fetched / "tensors.parquet")[1:],
        read_tensors(Path(params.out) / "tensors.parquet")[1:],
        strict=True,
    ):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:6000]), "1.fits"),
        (lambda path: path.write_bytes(b"no FITS at all"), "1.fits cannot be read"),
    ],
)
def test_one_unreadable_file_is_the_failure_of_its_rows(
    params: BatchParams, images: Path, tmp_path: Path, harm: Callable[[Path], object], reason: str
) -> None:
    """Its rows tell the reason; the others are as in a batch without it, and in their order."""
    before = params.model_copy(update={"out": str(tmp_path / "before")})
    cut_here(before, no_index)
    harm(images / "1.fits")

    result = cut_here(params, no_index)

    whole, rows = rows_of(before), rows_of(params)
    hurt = [each["row"] for each in whole if each["state"] == "accepted" and round(each["ra"]) == 11]
    assert [each["row"] for each in rows if each["state"] == "failed"] == sorted([*range(4, 9), *hurt])
    assert result.failed == 5 + len(hurt)
    assert all(reason in rows[each]["reason"] for each in hurt)
    assert {rows[each]["code"] for each in hurt} == {"cutout_image_unreadable"}
    numbers, pixels, _ = read_tensors(Path(params.out) / "tensors.parquet")
    left, expected, _ = read_tensors(tmp_path / "before" / "tensors.parquet")
    others = ~np.isin(left, hurt)
    assert numbers.tolist() == left[others].tolist()
    assert np.array_equal(pixels, expected[others])
    apart = {
        "tensor": None,
        "code": None,
        "reason": None,
        "note": None,
    }  # these tell of the file where it may have more
    for each in rows:
        if each["row"] not in hurt:
            assert each | apart == whole[each["row"]] | apart


def test_each_file_may_be_a_source(params: BatchParams, images: Path, tmp_path: Path) -> None:
    """Three files named one by one give what their folder gives; one that is unreadable is the failure of its rows."""
    cut_here(params, no_index)
    listed = [str(images / f"{number}.fits") for number in range(3)]
    apart = params.model_copy(update={"source": listed, "out": str(tmp_path / "apart")})
    cut_here(apart, no_index)
    states = [(each["state"], each["sources"]) for each in rows_of(params)]
    assert [(each["state"], each["sources"]) for each in rows_of(apart)] == states

    (images / "1.fits").write_bytes(b"no FITS at all")
    cut_here(apart, no_index)

    for (state, sources), row in zip(states, rows_of(apart), strict=True):
        hurt = sources == listed[1:2]
        assert (row["state"], row["sources"]) == (("failed", []) if hurt else (state, sources))
        assert not hurt or "1.fits" in row["reason"]


def test_a_file_that_vanishes_once_the_batch_was_divided(params: BatchParams, images: Path) -> None:
    """Its rows have failed and name it, also where it was the only one; all others are as without that."""
    cut_here(params, no_index)
    before = rows_of(params)
    planned = cutting.plan(params.model_copy(update={"out": params.out + "-gone"}), no_index)
    (images / "1.fits").unlink()
    params.out += "-gone"
    for each in planned.parts:
        cutting.cut_part(params, each.name, no_index)
    cutting.fan_in(params, planned, cut=45)

    gone = f"{images / '1.fits'} was there when the batch was divided, and is gone"
    for now, then in zip(rows_of(params), before, strict=True):
        hurt = then["sources"] == [str(images / "1.fits")]
        assert now["state"] == ("failed" if hurt else then["state"])
        assert (now["code"], gone in (now["reason"] or "")) == (
            ("cutout_source_not_found", True) if hurt else (then["code"], False)
        )


def test_what_is_there_is_not_cut_again(params: BatchParams, images: Path, cut: list[Any]) -> None:
    """A second run cuts nothing; then what is of a file that has changed, or whose product is gone, and no more."""
    params.fits = True
    first = cut_here(params, no_index)
    rows, out = rows_of(params), Path(params.out)
    assert (len(cut), first.cut) == (41, 45)  # four of the rows are no requests
    cut.clear()

    second = cut_here(params, no_index)
    assert (cut, second.cut) == ([], 0)
    assert rows_of(params) == rows

    os.utime(images / "2.fits", ns=(1, 1))
    parsed.forget()
    cut_here(params, no_index)
    assert len(cut) < 30
    assert {round(ra) for ra, _ in cut} >= {12}
    assert sum(round(each["ra"]) == 12 for each in rows if each["state"] == "accepted") <= len(cut)
    cut.clear()

    next(out.glob("*.fits")).unlink()
    cut_here(params, no_index)
    assert 0 < len(cut) <= 10
    assert rows_of(params) == rows


def test_other_options_are_another_batch(params: BatchParams, cut: list[Any]) -> None:
    """What was cut with another size does not count."""
    cut_here(params, no_index)
    cut.clear()

    cut_here(params.model_copy(update={"size": 17.0}), no_index)

    assert len(cut) == 41
    assert {each["nx"] for each in rows_of(params) if each["state"] == "accepted"} == {17}


def test_tensors_are_of_one_shape(params: BatchParams, table: Path) -> None:
    """That of the first accepted in the order of the table; others are rejected, and keep their files."""
    table.write_text("ra,dec,size\n10,20,8\n11,20,16\n12,20,8\n10,20,\n")

    result = cut_here(params.model_copy(update={"fits": True}), no_index)

    rows = rows_of(params)
    assert [each["state"] for each in rows] == ["accepted", "rejected", "accepted", "rejected"]
    assert rows[1]["reason"] == "it has the shape and bands (1, 16, 16) r, others have (1, 8, 8) r"
    assert rows[1]["path"] == "000001_r.fits"
    assert (result.accepted, result.rejected) == (2, 2)
    assert read_tensors(Path(params.out) / "tensors.parquet")[0].tolist() == [0, 2]


def test_a_part_that_is_lost_is_failed_rows(params: BatchParams) -> None:
    """The reason is in each row; a later run cuts what is missing."""
    planned = cutting.plan(params, no_index)
    for each in planned.parts[1:]:
        cutting.cut_part(params, each.name, no_index)

    result = cutting.fan_in(params, planned, cut=0, lost={planned.parts[0].name: "the disk is full"})

    lost = {each.row for each in plan.read_requests(Path(params.out) / plan.PARTS, planned.parts[0].name)}
    rows = rows_of(params)
    assert {each["row"] for each in rows if "the disk is full" in (each["reason"] or "")} == lost
    assert result.rows == 45
    assert cut_here(params, no_index).failed == 5


def test_a_part_is_of_one_image_where_that_has_enough(params: BatchParams) -> None:
    """Requests on the same image are together; parts are never larger than they may be, and each request is in one."""
    planned = cutting.plan(params, no_index)

    held = [
        [each.row for each in plan.read_requests(Path(params.out) / plan.PARTS, part.name)] for part in planned.parts
    ]
    assert sorted(row for part in held for row in part) == list(range(45))
    assert max(map(len, held)) <= 10
    cut_here(params, no_index)
    rows = rows_of(params)
    alone = [part for part in held if len({tuple(rows[row]["sources"]) for row in part}) == 1]
    assert len(alone) >= 2


def test_no_position_is_a_batch_too(params: BatchParams, table: Path) -> None:
    """An empty table gives an empty manifest."""
    table.write_text("ra,dec\n")

    assert cut_here(params, no_index).rows == 0
    assert rows_of(params) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": []}, "there is no source"),
        ({"source": {"folder": "x", "token": "t"}}, "a token must not stand in params"),
        ({"source": {"foldr": "x"}}, "source has no field foldr"),
        ({"size": 0}, "greater than 0"),
        ({"planes": ["variance"]}, "FITS files and tensors need image too"),
        ({"limits": {"outside": 2}}, "less than or equal to 1"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused(params: BatchParams, change: dict[str, Any], message: str) -> None:
    """Before anything is cut, by the field."""
    with pytest.raises(ValueError, match=message):
        BatchParams(**params.model_dump() | change)
