"""Files that cannot be read, and sources that are away: what rows, tasks and manifests say, and what is cut again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from memory_port import MemoryPort, claim_of
from numpy.typing import NDArray
from range_server import serve
from skies import make_wcs, no_index, pixels_of, write_image

from absurd.context import RunContext, run_here
from absurd.executor import load_modules, registry
from absurd.offspring import Ending
from absurd.outcome import Completed, Failed, Suspended
from absurd.retry import RetryPolicy
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.cutout import (
    BandNotFoundError,
    ButlerConfig,
    ButlerConfigError,
    ButlerConnectionError,
    CutoutRequest,
    FolderSource,
    ImageRef,
    ImageUnreadableError,
    LsstDataFetcher,
    PositionOutsideError,
    SourceNotFoundError,
    cutting,
    executors,
    find_images,
    manifest,
    ranged,
)
from absurd.tasks.cutout.cutting import cut_here
from absurd.tasks.cutout.params import BatchParams
from absurd.tasks.cutout.sources.remote import RemoteSource
from absurd.workers.runs.execution import Defaults, run_sync

load_modules(list(EXECUTOR_MODULES), shipped=False)

RA, DEC = 150.0, 2.5
CONFIG = ButlerConfig(folder="-", retry_attempts=1, retry_delay=0.0)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between attempts."""
    monkeypatch.setenv("RIPPLE_RETRY_DELAY", "0")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One place in g, r and i, and another in g."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, band in enumerate("gri"):
        write_image(folder / f"{band}.fits", pixels_of(seed=seed), make_wcs(RA, DEC), BAND=band)
    write_image(folder / "there.fits", pixels_of(), make_wcs(RA + 10, DEC), BAND="g")
    return folder


def tear(path: Path) -> None:
    """Leave the beginning of a header: the file is another from now on."""
    path.write_bytes(path.read_bytes()[:500])


def lock(path: Path) -> None:
    """Have the system refuse to open it, whoever asks: a link that leads to itself."""
    path.rename(path.with_suffix(".away"))
    path.symlink_to(path.name)


def unlock(path: Path) -> None:
    """Have it as it was."""
    path.with_suffix(".away").rename(path)


def fetch(source: Any, *requests: CutoutRequest, config: ButlerConfig = CONFIG, **options: Any) -> list[Any]:
    with LsstDataFetcher(config, sources={"it": source}) as fetcher:
        return list(fetcher.fetch_batch_cutouts(requests, **options))


# Rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("harm", "passing"), [(tear, False), (lock, True)])
def test_a_row_tells_of_files_that_may_have_more_of_it(
    images: Path, harm: Callable[[Path], None], *, passing: bool
) -> None:
    """All bands there are may be more; bands that were named and are there are all.  A right or a disk may pass."""
    harm(images / "r.fits")
    every, two, red, nowhere, off = fetch(
        FolderSource(images),
        CutoutRequest(RA, DEC, 8),
        CutoutRequest(RA, DEC, 8, bands=("g", "i")),
        CutoutRequest(RA, DEC, 8, bands=("g", "r")),
        CutoutRequest(RA, -DEC, 8),
        CutoutRequest(RA, DEC, 90, bands=("g",)),
    )

    assert (every.state, every.bands, every.passing) == ("accepted", ("g", "i"), passing)
    assert every.note.startswith("there may be more: r.fits cannot be read")
    assert (two.state, two.note, two.passing) == ("accepted", "", False)
    for row, kind, words in ((red, BandNotFoundError, "no image in band r"), (nowhere, PositionOutsideError, "on no")):
        assert type(row.error) is ImageUnreadableError and isinstance(row.error.__cause__, kind)
        assert words in row.reason and "r.fits cannot be read" in row.reason
        assert row.passing is passing
    assert (off.state, list(off.unread)) == ("accepted", [str(images / "r.fits")])  # for what is beyond g.fits

    with pytest.raises(ImageUnreadableError, match=r"no image in band 'r'.*r.fits cannot be read"):
        find_images(images, RA, DEC, ["r"])


def test_less_than_all_says_what_may_be_there(images: Path) -> None:
    """In reduced mode the band is left out, and the row says that a file may have it."""
    tear(images / "r.fits")
    (row,) = fetch(FolderSource(images), CutoutRequest(RA, DEC, 8, bands=("g", "r")), reduced=True)

    assert (row.bands, row.left_out) == (("g",), ("r",))
    assert "without band r" in row.note and "there may be more: r.fits cannot be read" in row.note


def test_the_next_source_is_asked_for_what_cannot_be_read(images: Path, tmp_path: Path) -> None:
    """A band in a file that is locked is had of another source; the row would be the first's another time."""
    shutil.copytree(images, tmp_path / "copy")
    lock(images / "r.fits")
    sources = {"one": FolderSource(images), "two": FolderSource(tmp_path / "copy")}
    with LsstDataFetcher(CONFIG, sources=sources) as fetcher:
        found = fetcher.fetch_cutout(RA, DEC, 8, bands=["r"])

    assert (found.source, found.passing) == ("two", True)
    assert "r.fits cannot be read" in found.note


def test_a_folder_in_the_folder_that_is_closed_is_told(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as a file that cannot be read; where nothing can be looked at, the folder itself is away."""
    refused: set[Path] = set()
    closed = images / "closed"
    closed.mkdir()
    shutil.move(images / "r.fits", closed)
    scandir = os.scandir

    def scanned(path: Any) -> Any:
        if path in refused:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scanned)
    refused = {closed}
    source = FolderSource(images)
    (row,) = fetch(source, CutoutRequest(RA, DEC, 8))
    assert (row.bands, row.note) == (("g", "i"), "there may be more: closed cannot be read: Permission denied")
    refused = {images}
    (row,) = fetch(source, CutoutRequest(RA, DEC, 8))
    assert isinstance(row.error, ButlerConnectionError) and row.reason == f"{images} cannot be read: Permission denied"
    refused = set()
    (row,) = fetch(source, CutoutRequest(RA, DEC, 8))
    assert (row.bands, row.note) == (("g", "r", "i"), "")


def test_an_address_that_is_silent_for_a_moment_is_asked_again(images: Path) -> None:
    """One 503 among several addresses costs another round and no band; without another attempt, the row tells."""
    with serve(images) as served:
        addresses = [f"{served.address}/{band}.fits" for band in "gr"]
        for attempts in (2, 1):
            config = replace(CONFIG, retry_attempts=attempts)
            with LsstDataFetcher(config, sources={"it": RemoteSource(addresses)}) as fetcher:
                ranged._block.cache_clear()
                served.busy = 1
                found = fetcher.fetch_cutout(RA, DEC, 8)
                assert served.busy == 0
            assert len(found.bands) == attempts
            assert (found.note == "", found.passing) == (attempts == 2, attempts == 1)
            assert attempts == 2 or "HTTP status 503" in found.note


class Counted(RemoteSource):
    """One that counts how often its addresses are asked."""

    rounds = 0

    def images(self) -> Any:
        self.rounds += 1
        return super().images()


def test_an_address_that_stays_silent_is_asked_once_each_time(images: Path) -> None:
    """Pauses and further attempts are spent on it once, not before each of many requests."""
    with serve(images) as served:
        source = Counted([f"{served.address}/g.fits", "http://127.0.0.1:9/r.fits"])
        config = replace(CONFIG, retry_attempts=3, batch_size=1)
        with LsstDataFetcher(config, sources={"it": source}) as fetcher:
            rows = list(fetcher.fetch_batch_cutouts(CutoutRequest(RA, DEC, 8) for _ in range(4)))

    assert [each.bands for each in rows] == [("g",)] * 4
    assert all(each.passing and "127.0.0.1:9/r.fits cannot be read" in each.note for each in rows)
    assert source.rounds == 3 + 3


def test_a_file_at_an_address_that_is_mended_is_no_longer_told_of(images: Path) -> None:
    """What was wrong with a former version of it is forgotten."""
    whole = (images / "r.fits").read_bytes()
    tear(images / "r.fits")
    with serve(images) as served:
        source = RemoteSource([f"{served.address}/{band}.fits" for band in "gr"])
        (before,) = fetch(source, CutoutRequest(RA, DEC, 8))
        found = []
        with LsstDataFetcher(CONFIG, sources={"it": source}) as fetcher:
            for content in (whole[:500], whole):
                (images / "r.fits").write_bytes(content)
                os.utime(images / "r.fits", ns=(len(content), len(content)))
                found.append(fetcher.fetch_cutout(RA, DEC, 8))

    assert [each.bands for each in (before, *found)] == [("g",), ("g",), ("g", "r")]
    assert ["r.fits" in each.note for each in (before, *found)] == [True, True, False]


# Sources that are away ----------------------------------------------------------------------------


class Fails:
    """A source that gives an error as often as that is said, and then what a folder has."""

    name = "fails"

    def __init__(self, error: Exception, times: int, folder: Path) -> None:
        self.error, self.left, self.then = error, times, FolderSource(folder)

    def find(self, positions: NDArray[np.float64], bands: Sequence[str] = ()) -> list[list[ImageRef]]:
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return self.then.find(positions, bands)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("error", [ButlerConnectionError("it is down"), SourceNotFoundError("it is not there")])
def test_a_source_that_is_away_is_the_error_of_its_rows(images: Path, error: Exception) -> None:
    """Of those it was asked for while it was: the rows after that are served, and each has its number."""
    requests = (CutoutRequest(RA, DEC, 8) for _ in range(4))
    source = Fails(error, 2, images)
    rows = fetch(source, *requests, config=replace(CONFIG, batch_size=1))

    assert [(each.row, each.state) for each in rows] == [(0, "failed"), (1, "failed"), (2, "accepted"), (3, "accepted")]
    assert [each.error for each in rows[:2]] == [error] * 2
    assert all(each.unanswered and each.passing and each.source == "it" for each in rows[:2])


def test_a_wrong_configuration_is_raised(images: Path) -> None:
    """So is what a source's own program does wrong: it would be the same for every row."""
    for error in (ButlerConfigError("token_file cannot be read"), ZeroDivisionError("a bug")):
        with pytest.raises(type(error)):
            fetch(Fails(error, 1, images), CutoutRequest(RA, DEC, 8))


def test_a_file_without_wcs_beside_others_is_passed_over(images: Path) -> None:
    """As a source of its own it keeps nobody from the next; alone, it is the error of the rows."""
    from astropy.io import fits

    fits.PrimaryHDU(pixels_of()).writeto(images / "flat.fits")
    flat, good = FolderSource(images / "flat.fits"), FolderSource(images / "g.fits")
    with LsstDataFetcher(CONFIG, sources={"flat": flat, "good": good}) as fetcher:
        found = fetcher.fetch_cutout(RA, DEC, 8)
        assert len(fetcher.find_images(np.array([[RA, DEC]]))[0]) == 1
    (row,) = fetch(flat, CutoutRequest(RA, DEC, 8))

    assert (found.source, found.passing) == ("good", False)
    assert row.error is not None and row.error.code == "cutout_no_wcs"


# Batches ------------------------------------------------------------------------------------------


@pytest.fixture
def params(images: Path, tmp_path: Path) -> BatchParams:
    """The two places, as many bands as there are, one part."""
    out = str(tmp_path / "out")
    return BatchParams(positions=[(RA, DEC), (RA + 10, DEC)], source=str(images), size=8, unit="pixel", out=out)


def rows_of(params: BatchParams) -> list[dict[str, Any]]:
    """The manifest."""
    return list(manifest.read(Path(params.out) / "manifest.parquet"))


def test_a_damaged_file_is_in_the_manifest_until_it_is_mended(params: BatchParams, images: Path) -> None:
    """Nothing is cut again while it stays damaged; once it is whole all rows are, also those it has nothing of."""
    whole = (images / "r.fits").read_bytes()
    tear(images / "r.fits")
    assert [cut_here(params, no_index).cut for _ in range(2)] == [2, 0]
    assert [each["bands"] for each in rows_of(params)] == [["g", "i"], ["g"]]
    assert all("there may be more: r.fits cannot be read" in each["note"] for each in rows_of(params))

    (images / "r.fits").write_bytes(whole)
    assert [cut_here(params, no_index).cut for _ in range(2)] == [2, 0]
    assert [(each["bands"], each["note"]) for each in rows_of(params)] == [(["g", "r", "i"], None), (["g"], None)]


@pytest.mark.parametrize("harm", [lock, lambda path: path.rename(path.with_suffix(".away"))])
def test_a_band_that_was_away_is_cut_once_it_is_back(
    params: BatchParams, images: Path, harm: Callable[[Path], object]
) -> None:
    """Locked or gone while the part is cut: the row is accepted without it, says so, and does not stay so."""
    planned = cutting.plan(params, no_index)
    harm(images / "r.fits")
    cutting.cut_part(params, planned.parts[0].name, no_index)
    cutting.fan_in(params, planned, cut=2)
    unlock(images / "r.fits")
    without, _ = rows_of(params)
    assert without["bands"] == ["g", "i"] and "r.fits" in without["note"]

    assert [cut_here(params, no_index).cut for _ in range(2)] == [2, 0]
    assert [each["bands"] for each in rows_of(params)] == [["g", "r", "i"], ["g"]]


def test_a_batch_whose_source_is_away_has_its_rows(params: BatchParams, images: Path) -> None:
    """With the reason; the same batch again, once the source is back, cuts them."""
    images.rename(images.with_name("away"))
    result = cut_here(params, no_index)
    told = rows_of(params)
    images.with_name("away").rename(images)

    assert (result.rows, result.failed) == (2, 2)
    assert [(each["row"], each["code"]) for each in told] == [
        (0, "cutout_source_not_found"),
        (1, "cutout_source_not_found"),
    ]
    assert all(each["reason"] == f"there is no file or folder {images}" for each in told)
    assert [cut_here(params, no_index).cut for _ in range(2)] == [2, 0]
    assert [each["state"] for each in rows_of(params)] == ["accepted", "accepted"]


# Tasks --------------------------------------------------------------------------------------------


def start(name: str, params: dict[str, Any], port: MemoryPort, **fields: Any) -> Any:
    """One run of a task, and its outcome."""
    claim = claim_of(name, params, **fields)
    return run_sync(RunContext(claim, port, run_here), claim, registry.require(name), Defaults(RetryPolicy(), None))


def test_a_batch_waits_for_its_source_then_has_failed_rows(params: BatchParams, images: Path) -> None:
    """It is divided again after each pause, its part is tried again; of the last attempt the rows stay."""
    lock(images / "g.fits")  # named alone, it is a source that is away
    asked = params.model_dump(mode="json", exclude_unset=True) | {"source": str(images / "g.fits")}
    port = MemoryPort()
    task_id = claim_of("x").task_id
    for pause in executors.PAUSES:
        asleep = start("cutout.batch", asked, port, task_id=task_id)
        assert isinstance(asleep, Suspended) and not asleep.spawns
        port.advance(pause + 1)
    suspended = start("cutout.batch", asked, port, task_id=task_id)
    assert isinstance(suspended, Suspended)
    (spawn,) = suspended.spawns
    port.checkpoints[task_id][spawn["checkpoint"]] = spawn["id"]

    alone = MemoryPort()
    alone.endings[task_id] = Ending(task_id, "cutout.batch", "sleeping", None, None)
    failed = start("cutout.part", json.loads(spawn["params"]), alone)
    assert isinstance(failed, Failed) and failed.delay is not None
    part = UUID(spawn["id"])
    port.endings[part] = Ending(part, "cutout.part", "failed", None, failed.error)
    done = start("cutout.batch", asked, port, task_id=task_id)

    assert isinstance(done, Completed)
    path = next(each.attempt_path for each in done.artifacts if each.kind == "manifest")
    told = list(manifest.read(path))
    assert [each["state"] for each in told] == ["failed", "failed"]
    assert all("its part of the batch" not in each["reason"] and "g.fits" in each["reason"] for each in told)


def test_a_task_whose_band_is_in_a_file_that_cannot_be_read_is_tried_again(images: Path, tmp_path: Path) -> None:
    """For the file may be readable then; without named bands the result says that there may be more."""
    lock(images / "r.fits")
    asked = {"ra": RA, "dec": DEC, "size": 8, "unit": "pixel", "source": str(images), "out": str(tmp_path / "o")}

    failed = start("cutout.extract", asked | {"bands": ["r"]}, MemoryPort())
    assert isinstance(failed, Failed) and failed.delay is not None
    assert "r.fits cannot be read" in failed.error["message"]
    off = start("cutout.extract", asked | {"dec": -DEC}, MemoryPort())
    assert isinstance(off, Failed) and off.delay is not None
    done = start("cutout.extract", asked, MemoryPort())
    assert isinstance(done, Completed) and "there may be more: r.fits cannot be read" in str(done.result)
