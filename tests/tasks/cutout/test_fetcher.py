"""The data fetcher over folders of images: rows in order, failures that stay their own, sources that stand in."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from pyarrow import parquet
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import (
    BandNotFoundError,
    ButlerConfig,
    ButlerConfigError,
    ButlerConnectionError,
    Circle,
    CutoutRequest,
    DataIdValidationError,
    ImageRef,
    ImageUnreadableError,
    InvalidSizeError,
    LsstDataFetcher,
    MemoryAlert,
    ParquetCatalog,
    PlaneNotFoundError,
    PositionOutsideError,
    RippleError,
    SourceNotFoundError,
    Threshold,
    Where,
    batch,
    extract,
    manifest,
    parsed,
)
from absurd.tasks.cutout.images import Source
from absurd.tasks.cutout.products import write_products
from absurd.tasks.cutout.request import Limits
from absurd.tasks.cutout.tensor import read_tensors

RA, DEC = 150.0, 2.5
SHAPE = (60, 80)
MIDDLE = (40.5, 30.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of one place in g, r and i, and one of another place in g."""
    for seed, band in enumerate("gri"):
        write_image(tmp_path / f"here-{band}.fits", pixels_of(SHAPE, seed), make_wcs(RA, DEC, crpix=MIDDLE), BAND=band)
    write_image(tmp_path / "there-g.fits", pixels_of(SHAPE, 9), make_wcs(RA + 10, DEC, crpix=MIDDLE), BAND="g")
    return tmp_path


@pytest.fixture
def config(folder: Path) -> ButlerConfig:
    """A fetcher of that folder that does not wait between tries."""
    return ButlerConfig(folder=str(folder), retry_delay=0.0, batch_size=2)


def test_bands_of_other_pixels_are_not_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A size in arcseconds that bands do not share in pixels is refused; alone each has its own.  One reading each."""
    parsed_files = []
    parse = parsed._parse

    def counted(*args: Any) -> Any:
        parsed_files.append(args)
        return parse(*args)

    monkeypatch.setattr(parsed, "_parse", counted)
    for seed, (band, scale) in enumerate({"g": 0.2, "r": 0.4, "i": 0.2001}.items()):
        header = make_wcs(RA, DEC, crpix=MIDDLE, scale=scale).to_header()
        header["BAND"] = band
        hdus = [fits.PrimaryHDU(pixels_of(SHAPE, seed), header), fits.ImageHDU(np.zeros(SHAPE, np.int16), name="MASK")]
        fits.HDUList(hdus).writeto(tmp_path / f"{band}.fits")
    asked = [("g", "r"), ("r",), ("g", "i")]
    requests = [CutoutRequest(RA, DEC, 8, "arcsec", bands, ("image", "mask")) for bands in asked]
    with LsstDataFetcher(ButlerConfig(folder=str(tmp_path))) as fetcher:
        both, red, alike = fetcher.fetch_batch_cutouts(requests)

    assert isinstance(both.error, InvalidSizeError)
    assert "40 x 40 in g, 20 x 20 in r" in both.reason
    assert "one band at a time" in both.reason
    assert (red.pixels.shape, alike.pixels.shape) == ((1, 20, 20), (2, 40, 40))
    assert len(parsed_files) == 3


def test_a_mask_without_bits_is_the_error_of_its_rows(tmp_path: Path) -> None:
    """A mask of floating point fails the rows on it, with a reason; a mask of integers beside it stays what it is."""
    for ra, kind in ((RA, np.float32), (RA + 10, np.int16)):
        header = make_wcs(ra, DEC, crpix=MIDDLE).to_header()
        hdus = [fits.PrimaryHDU(pixels_of(SHAPE), header), fits.ImageHDU(np.zeros(SHAPE, kind), name="MASK")]
        fits.HDUList(hdus).writeto(tmp_path / f"{kind.__name__}.fits")
    requests = [CutoutRequest(ra, DEC, 8, planes=("image", "mask")) for ra in (RA, RA + 10)]
    with LsstDataFetcher(ButlerConfig(folder=str(tmp_path))) as fetcher:
        bad, good = fetcher.fetch_batch_cutouts(requests)

    assert isinstance(bad.error, PlaneNotFoundError) and "float32, which has no bits" in bad.reason
    assert good.state == "accepted" and good.plane("mask").dtype == np.int16


def test_a_folder_takes_as_long_as_it_takes(folder: Path) -> None:
    """The time-out is for what answers over a network: it ends no reading of a folder's headers."""
    with LsstDataFetcher(ButlerConfig(folder=str(folder), timeout=1e-6, retry_attempts=1)) as fetcher:
        assert fetcher.fetch_cutout(RA, DEC, 8).bands == ("g", "r", "i")
        assert len(fetcher.get_available_data(RA, DEC)) == 3


class Away:
    """A source that does not answer, until it is well and gives what `then` has; it counts how often it was asked."""

    name = "away"

    def __init__(self, then: Source | None = None) -> None:
        self.asked = 0
        self.then = then
        self.is_well = False

    def find(self, positions: NDArray[np.float64], bands: Sequence[str] = ()) -> list[list[ImageRef]]:
        self.asked += 1
        if self.is_well and self.then is not None:
            return self.then.find(positions, bands)
        raise ButlerConnectionError("the repository does not answer")

    def close(self) -> None:
        pass


# One --------------------------------------------------------------------------------------------


def test_one_cutout_is_that_of_the_image(config: ButlerConfig, folder: Path) -> None:
    """All bands from blue to red; pixels, header and WCS are those of a single cut."""
    with LsstDataFetcher(config) as fetcher:
        found = fetcher.fetch_cutout(ra=RA, dec=DEC, size=16)

    assert found.bands == ("g", "r", "i")
    assert found.pixels.shape == (3, 16, 16)
    for number, band in enumerate("gri"):
        alone = extract(folder / f"here-{band}.fits", (RA, DEC), 16, unit="pixel")
        assert np.array_equal(found.pixels[number], alone.image.pixels)
        assert found.cutout(band).header["CRPIX1"] == alone.header["CRPIX1"]
        assert found.images[number].uri == str(folder / f"here-{band}.fits")


def test_arcseconds_and_bands(config: ButlerConfig, folder: Path) -> None:
    """A size in arcseconds is that of the image's pixels; bands come as they were asked for."""
    with LsstDataFetcher(config) as fetcher:
        found = fetcher.fetch_cutout(RA, DEC, 9.0, unit="arcsec", bands=["i", "g"])

    alone = extract(folder / "here-i.fits", (RA, DEC), 9.0, unit="arcsec")
    assert found.bands == ("i", "g")
    assert np.array_equal(found.pixels[0], alone.image.pixels)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"ra": float("nan"), "dec": 0}, DataIdValidationError),
        ({"ra": 400, "dec": 0}, DataIdValidationError),
        ({"ra": "here", "dec": 0}, DataIdValidationError),
        ({"ra": RA, "dec": None}, DataIdValidationError),
        ({"ra": RA, "dec": DEC, "size": 0}, InvalidSizeError),
        ({"ra": RA, "dec": DEC, "size": None}, InvalidSizeError),
        ({"ra": RA, "dec": DEC, "size": (8, 8, 8)}, InvalidSizeError),
        ({"ra": RA, "dec": DEC, "size": 1e6}, InvalidSizeError),
        ({"ra": RA, "dec": DEC, "bands": ["g", "q"]}, BandNotFoundError),
        ({"ra": RA, "dec": -80}, PositionOutsideError),
    ],
)
def test_what_cannot_be_had_is_an_error(config: ButlerConfig, asked: dict[str, Any], error: type[RippleError]) -> None:
    """Each bad request by its own class, with the value in the message."""
    with LsstDataFetcher(config) as fetcher, pytest.raises(error):
        fetcher.fetch_cutout(**asked)


def test_numbers_and_names_may_be_of_any_kind(config: ButlerConfig) -> None:
    """Those of numpy, as they come out of a table, lists, and a text for a single band: the request is the same."""
    plain = CutoutRequest(RA, DEC, 16, bands=("g",))
    given: Any = (np.float64(RA), np.float32(DEC), np.int64(16))
    asked: dict[str, Any] = dict(zip(("ra", "dec", "size"), given, strict=True)) | {"bands": "g", "planes": ["image"]}
    assert CutoutRequest(**asked) == plain
    with LsstDataFetcher(config) as fetcher:
        one, other = fetcher.fetch_cutout(*given, bands="g"), fetcher.fetch_cutout(RA, DEC, (16, 16), bands=["g"])
        assert fetcher.get_available_data(RA, DEC, "g") == fetcher.get_available_data(RA, DEC, ["g"])

    assert one.request == plain and np.array_equal(one.pixels, other.pixels)
    assert repr(one) == "<Fetched: row 0; ra 150.000000, dec +2.500000; accepted; 16 x 16 pixels of image in g>"


def test_an_edge_may_be_refused(config: ButlerConfig) -> None:
    """A box beyond the image is filled with NaN, or refused where that is asked."""
    with LsstDataFetcher(config) as fetcher:
        filled = fetcher.fetch_cutout(RA, DEC, (16, 200), bands=["g"])
        with pytest.raises(PositionOutsideError, match=r"has \d+ pixels beyond its image: ask for a smaller"):
            fetcher.fetch_cutout(RA, DEC, (16, 200), bands=["g"], edge="refuse")

    assert filled.quality is not None
    assert filled.quality.outside == np.isnan(filled.pixels).mean() > 0


# Many -------------------------------------------------------------------------------------------


def requests() -> list[CutoutRequest]:
    """Of every kind: good, of other sizes and bands, off all images, without a band, and one of another image."""
    return [
        CutoutRequest(RA, DEC, 8),
        CutoutRequest(RA, -60.0, 8),
        CutoutRequest(RA + 10, DEC, 8),
        CutoutRequest(RA, DEC, 12, bands=("r",)),
        CutoutRequest(RA + 10, DEC, 8, bands=("g", "r")),
        CutoutRequest(RA, DEC, (16, 200), limits=Limits(outside=0.1)),
        CutoutRequest(RA, DEC, 8, bands=("i", "r", "g")),
    ]


def test_rows_come_in_order_with_what_became_of_them(config: ButlerConfig) -> None:
    """One row for each request, whatever happens to others, and progress for each."""
    told: list[tuple[int, int]] = []
    with LsstDataFetcher(config) as fetcher:
        rows = list(fetcher.fetch_batch_cutouts(requests(), lambda done, total: told.append((done, total))))

    assert [each.row for each in rows] == list(range(7))
    states = ["accepted", "failed", "accepted", "accepted", "failed", "rejected", "accepted"]
    assert [each.state for each in rows] == states
    assert isinstance(rows[1].error, PositionOutsideError)
    assert isinstance(rows[4].error, BandNotFoundError)
    assert "outside" in rows[5].reason
    assert [each.bands for each in rows if not each.error] == [
        ("g", "r", "i"), ("g",), ("r",), ("g", "r", "i"), ("i", "r", "g"),
    ]  # fmt: skip
    assert told == [(number, 7) for number in range(1, 8)]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_how_many_are_cut_at_a_time_changes_nothing(config: ButlerConfig, batch_size: int) -> None:
    """The rows are the same for every batch_size, pixel for pixel."""
    with LsstDataFetcher(config) as one, LsstDataFetcher(replace(config, batch_size=batch_size)) as other:
        pairs = list(zip(one.fetch_batch_cutouts(requests()), other.fetch_batch_cutouts(requests()), strict=True))

    for left, right in pairs:
        assert (left.state, left.reason, left.bands) == (right.state, right.reason, right.bands)
        assert left.error is not None or np.array_equal(left.pixels, right.pixels, equal_nan=True)


def test_less_is_given_where_that_is_enough(config: ButlerConfig) -> None:
    """In reduced mode a request without all its bands is given those that are there, and the row says which are not."""
    with LsstDataFetcher(config) as fetcher:
        row = list(fetcher.fetch_batch_cutouts(requests(), reduced=True))[4]

    assert (row.state, row.bands, row.left_out) == ("accepted", ("g",), ("r",))


def test_a_damaged_file_is_the_error_of_its_rows(config: ButlerConfig, folder: Path) -> None:
    """One that is cut short, and one that vanishes once it was found, fail by name; the others are as without them."""
    there = folder / "there-g.fits"
    whole = there.read_bytes()
    with LsstDataFetcher(config) as fetcher:
        before = list(fetcher.fetch_batch_cutouts(requests()))
        there.write_bytes(whole[:4000])
        torn = list(fetcher.fetch_batch_cutouts(requests()))
        there.write_bytes(whole)
        gone = list(fetcher.fetch_batch_cutouts(requests(), lambda *_: there.unlink(missing_ok=True)))

    for after, kind in ((torn, ImageUnreadableError), (gone, SourceNotFoundError)):
        assert [each.row for each in after if each.state != before[each.row].state] == [2]
        assert type(after[2].error) is kind and "there-g.fits" in after[2].reason
        for left, right in zip(before, after, strict=True):
            assert left.error or right.error or np.array_equal(left.pixels, right.pixels, equal_nan=True)


async def test_asked_without_waiting(config: ButlerConfig, tmp_path: Path) -> None:
    """The asynchronous forms give the same."""
    with LsstDataFetcher(config) as fetcher:
        one = await fetcher.fetch_cutout_async(RA, DEC, 8, bands=["g"])
        many = await fetcher.fetch_batch_cutouts_async(requests())
        there = await fetcher.get_available_data_async(RA, DEC, ["g"])
        assert there == fetcher.get_available_data(RA, DEC, ["g"]) and len(there) == 1
        parquet.write_table(
            pa.table({"ra": [RA, RA + 1], "dec": [DEC, DEC], "mag": [20.0, 21.0]}), tmp_path / "o.parquet"
        )
        options: Any = {"where": [Where("mag", ">", 1)], "catalog": ParquetCatalog(tmp_path / "o.parquet")}
        table = await fetcher.fetch_catalog_async(Circle(RA, DEC, 0.1), ["mag"], **options)
        assert table.equals(fetcher.fetch_catalog(Circle(RA, DEC, 0.1), ["mag"], **options))
        assert table["mag"].to_pylist() == [20.0]
        with pytest.raises(ButlerConfigError, match="no repository is configured"):
            await fetcher.fetch_catalog_async(Circle(RA, DEC, 0.1))

    assert one.pixels.shape == (1, 8, 8)
    assert [each.row for each in many] == list(range(7))


# Where from -------------------------------------------------------------------------------------


def test_what_there_is(config: ButlerConfig, folder: Path) -> None:
    """The images of a position, with band, file and planes."""
    with LsstDataFetcher(config) as fetcher:
        found = fetcher.get_available_data(RA, DEC)

    assert [(each["band"], each["uri"], each["planes"]) for each in found] == [
        (band, str(folder / f"here-{band}.fits"), ["image"]) for band in "gri"
    ]


def test_another_source_stands_in(config: ButlerConfig) -> None:
    """A source that is away is tried as often as configured, then the next answers; after that its breaker is open."""
    config = replace(config, retry_attempts=2, failure_threshold=2, cool_down=1000.0)
    away = Away()
    with LsstDataFetcher(config) as own, LsstDataFetcher(config, sources={"away": away} | own.sources) as fetcher:
        first = fetcher.fetch_cutout(RA, DEC, 8)
        second = fetcher.fetch_cutout(RA, DEC, 8)
        health = fetcher.check_health()

    assert np.array_equal(first.pixels, second.pixels)
    assert away.asked == 2
    assert health.state == "degraded"
    assert any("away" in each.check for each in health.problems)


def test_the_health_of_a_folder_is_looked_at(config: ButlerConfig, folder: Path) -> None:
    """A folder that is gone, or may not be read, is found before anybody asks for a cut-out."""
    with LsstDataFetcher(config) as fetcher:
        before = fetcher.check_health()
        away = folder.rename(folder.with_name("away"))
        without = fetcher.check_health()
        away.rename(folder)
        again = fetcher.check_health()

    assert [each.state for each in (before, without, again)] == ["ok", "failing", "ok"]
    (problem,) = without.problems
    assert problem.check == "connection folder" and str(folder) in problem.message


def test_times_of_recovery_are_told(config: ButlerConfig) -> None:
    """A source that comes back after its breaker opened is counted, with the time it had been away."""
    config = replace(config, retry_attempts=1, failure_threshold=1, cool_down=0.001)
    with LsstDataFetcher(config) as own:
        comes_back = Away(then=own.sources["folder"])
        with LsstDataFetcher(config, sources={"night": comes_back} | own.sources) as fetcher:
            fetcher.fetch_cutout(RA, DEC, 8)
            opened = fetcher.metrics().recoveries
            comes_back.is_well = True
            for _ in range(1000):  # the first once the breaker has cooled down
                fetcher.fetch_cutout(RA, DEC, 8)
                if fetcher.metrics().recoveries["night"].count:
                    break
            closed = fetcher.metrics()

    assert {name: each.count for name, each in opened.items()} == {"night": 0, "folder": 0}
    assert closed.recoveries["night"].count == 1
    assert closed.recoveries["night"].seconds >= config.cool_down
    assert closed.to_json()["recoveries"]["folder"]["count"] == 0


def test_thresholds_and_alerts_are_heard_of(config: ButlerConfig) -> None:
    """A threshold that does not hold degrades the health; a cache that meets its limit of bytes says so once."""
    alerts: list[MemoryAlert] = []
    slow = Threshold("p95", "fetch", most=0.0, after=1)
    config = replace(config, cache_bytes=4000)
    with LsstDataFetcher(config, thresholds=[slow], on_alert=alerts.append) as fetcher:
        before = fetcher.check_health()
        list(fetcher.fetch_batch_cutouts(requests()))
        after = fetcher.check_health()

    assert [each.message for each in before.findings if each.check == "thresholds"] == ["1 thresholds hold"]
    assert ["p95 of fetch is" in each.message for each in after.problems if each.check == "thresholds"] == [True]
    assert [each.what for each in alerts] == ["cache"]


@pytest.mark.parametrize(("operation", "monitored"), [("fetchs", True), ("fetch", False)])
def test_a_threshold_that_is_never_judged_is_refused(config: ButlerConfig, operation: str, monitored: bool) -> None:
    """Of what a fetcher does not measure, or does not measure now."""
    with pytest.raises(ButlerConfigError, match=f"a threshold of {operation} would never be judged"):
        LsstDataFetcher(
            replace(config, enable_performance_monitoring=monitored), thresholds=[Threshold("p95", operation)]
        )


def test_operations_are_measured(config: ButlerConfig) -> None:
    """Fetched rows, their bytes and the calls that cut them are counted, unless that is switched off."""
    with (
        LsstDataFetcher(config) as fetcher,
        LsstDataFetcher(replace(config, enable_performance_monitoring=False)) as off,
    ):
        list(fetcher.fetch_batch_cutouts(requests()))
        list(off.fetch_batch_cutouts(requests()))
        told, nothing = fetcher.metrics(), off.metrics()

    assert (told.operations["fetch"].count, told.operations["fetch"].items) == (4, 7)  # two at a time
    assert told.operations["fetch"].bytes > 0
    assert nothing.count == 0


def test_a_place_must_be_named() -> None:
    """A configuration without any place is refused, with what may be set."""
    with pytest.raises(ButlerConfigError, match="set repo_path, server_url or folder"):
        LsstDataFetcher(ButlerConfig())


# Kept -------------------------------------------------------------------------------------------


def test_what_was_fetched_is_kept(config: ButlerConfig, tmp_path: Path) -> None:
    """A manifest with a row for each request, files with WCS, tensors of one shape, and a page that shows them."""
    out = tmp_path / "out"
    asked = [replace(each, id=f"source {number}/x") for number, each in enumerate(requests())]
    asked.append(CutoutRequest(RA, DEC, 9))
    with LsstDataFetcher(config) as fetcher:
        rows = list(fetcher.fetch_batch_cutouts(asked))
        counts = write_products(rows, out, tensors="none", title="A night")

    told = list(manifest.read(out / "manifest.parquet"))
    assert [each["row"] for each in told] == list(range(8))
    assert counts == {"accepted": 1, "rejected": 5, "failed": 2}
    assert [each["state"] for each in told] == [
        "accepted", "failed", "rejected", "rejected", "failed", "rejected", "rejected", "rejected",
    ]  # fmt: skip
    assert told[1]["code"] == "cutout_outside"
    assert "it has the shape" in told[7]["reason"]
    numbers, pixels, valid = read_tensors(out / "tensors.parquet")
    assert numbers.tolist() == [0]
    assert np.array_equal(pixels[0], rows[0].pixels)
    assert valid.all()
    alone = extract(rows[0].images[1].uri, (RA, DEC), 8, unit="pixel")
    with fits.open(out / "000000_source-0-x_r.fits") as file:
        assert np.array_equal(file[0].data, alone.image.pixels)
        assert file[0].header["CRPIX1"] == alone.header["CRPIX1"]
    page = (out / "contact_sheet.html").read_text()
    assert page.count("<img ") == 6
    assert "A night" in page
    assert not list(out.glob(".*"))


def test_tensors_may_be_a_store(config: ButlerConfig, tmp_path: Path) -> None:
    """By the suffix of the name that is given; the manifest names it."""
    with LsstDataFetcher(config) as fetcher:
        (row,) = fetcher.fetch_batch_cutouts(requests()[:1])
        write_products([row], tmp_path / "out", fits=False, tensors="none", tensor_file="learn.zarr")

    assert [each["path"] for each in manifest.read(tmp_path / "out" / "manifest.parquet")] == ["learn.zarr"]
    assert np.array_equal(read_tensors(tmp_path / "out" / "learn.zarr")[1][0], row.pixels)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_are_as_many_as_asked(config: ButlerConfig, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels are cut in `max_workers` threads; one needs no pool."""
    pools: list[int | None] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
            pools.append(max_workers)
            super().__init__(max_workers, thread_name_prefix)

    monkeypatch.setattr(batch, "ThreadPoolExecutor", Pool)
    with LsstDataFetcher(replace(config, max_workers=workers)) as fetcher:
        list(fetcher.fetch_batch_cutouts(requests()))

    assert set(pools) == ({workers} if workers > 1 else set())
