"""Indexes of images: what a scan puts in is found as the folder itself is searched, and changes are followed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupting import Workers
from single_run import fail, run
from skies import make_wcs, pixels_of, write_image

from absurd import SyncAbsurdClient, database_sync
from absurd.tasks.cutout import (
    ButlerConfig,
    ButlerConnectionError,
    CutoutRequest,
    DataIdValidationError,
    FolderSource,
    IndexSource,
    LsstDataFetcher,
    SourceNotFoundError,
    executors,
    manifest,
)
from absurd.tasks.cutout.cutting import cut_here
from absurd.tasks.cutout.described import images_of, observed, wcs_of_text
from absurd.tasks.cutout.params import BatchParams
from absurd.tasks.cutout.scan import FILES_AT_ONCE, Scanned, scan
from absurd.tasks.cutout.tensor import read_tensors

CENTRES = [(0.0, 5.0), (0.0, 90.0), (96.3, -60.2), (10.0, 20.0), (40.0, -20.0), (41.0, -20.0), (200.0, -89.99)]
"""Where the images of `sky` are."""
PATIENCE = 300
"""Seconds until something has to have happened, on a machine that does a lot beside."""


@pytest.fixture(scope="module")
def client(module_database_url: str) -> Iterator[SyncAbsurdClient]:
    with SyncAbsurdClient(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fields over RA 0 and at both poles, turned, in galactic axes, distorted, packed, mosaics and planes."""
    folder = tmp_path_factory.mktemp("sky")
    small = pixels_of((40, 60))
    write_image(folder / "pole.fits", small, make_wcs(0, 90, scale=90, crpix=(30, 20)), band="g")
    write_image(folder / "south_r.fits", small, make_wcs(200, -89.99, scale=9, crpix=(30, 20)))
    for n, (ra, band) in enumerate(((0.0, "r"), (0.01, "R"), (359.99, "F200W"))):
        write_image(folder / f"wrap{n}_{band}.fits", small, make_wcs(ra, 5, scale=4, crpix=(30, 20), angle=33 * n))
    write_image(folder / "i.fits", small, make_wcs(0, 5, scale=3, crpix=(30, 20)), filter="i DECam")
    wcs = make_wcs(96.337, -60.19, frame="galactic", scale=9, crpix=(30, 20))
    write_image(folder / "galactic.fits", small, wcs, band="g")
    write_image(folder / "weight.fits", small, make_wcs(), band="r", prodtype="wtmap")
    (folder / "torn.fits").write_bytes((folder / "weight.fits").read_bytes()[:500])
    for kind in ("sip", "lookup"):
        distorted(folder / f"{kind}_g.fits", kind)
    chips = [
        fits.CompImageHDU(small, make_wcs(ra, -20, scale=9).to_header(), name=f"CCD{n}")
        for n, ra in enumerate((40, 41))
    ]
    (folder / "deep").mkdir()
    fits.HDUList([fits.PrimaryHDU(), *chips]).writeto(folder / "deep" / "mosaic_r.fits.fz")
    planes = [fits.ImageHDU(small, make_wcs(10, 20).to_header(), name=name) for name in ("IMAGE", "MASK", "VARIANCE")]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(folder / "deep" / "coadd.fits")
    cube = fits.PrimaryHDU(small[None], make_wcs(10, 20).to_header())
    cube.header["BAND"] = "y"
    cube.writeto(folder / "cube.fits")
    (folder / "deep" / "cube.fits.gz").write_bytes(gzip.compress((folder / "cube.fits").read_bytes()))
    return folder


def distorted(path: Path, kind: str) -> None:
    """An image at (10, 20) with SIP polynomials, or with lookup tables in the file."""
    header = make_wcs(10, 20, scale=9, crpix=(30, 20)).to_header()
    hdus: list[Any] = [fits.PrimaryHDU(pixels_of((40, 60)), header)]
    header = hdus[0].header
    if kind == "sip":
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
        header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 3e-3, "A_1_1": -1e-4, "B_0_2": 2e-4})
    else:
        for axis in (1, 2):
            header[f"CPDIS{axis}"] = "LOOKUP"
            for key, value in (("EXTVER", float(axis)), ("NAXES", 2.0), ("AXIS.1", 1.0), ("AXIS.2", 2.0)):
                header.append((f"DP{axis}", f"{key}: {value}"), end=True)
            table = fits.ImageHDU(np.full((11, 11), 2.5, np.float32), name="WCSDVARR", ver=axis)
            table.header.update(
                {"CRPIX1": 1.0, "CRPIX2": 1.0, "CRVAL1": 1.0, "CRVAL2": 1.0, "CDELT1": 10.0, "CDELT2": 10.0}
            )
            hdus.append(table)
    fits.HDUList(hdus).writeto(path)


def source_of(client: SyncAbsurdClient, index: str, **options: Any) -> IndexSource:
    return IndexSource(partial(client.find_images, index, **options))


def images(client: SyncAbsurdClient, index: str) -> list[dict[str, Any]]:
    """All images of an index, without what they are asked by."""
    everywhere = [(ra, dec) for ra in range(0, 360, 90) for dec in range(-90, 91, 90)] + CENTRES
    found = client.find_images(index, everywhere)
    return [{name: value for name, value in each.items() if name != "positions"} for each in found]


# Asked ------------------------------------------------------------------------------------------


def test_a_source_stays_connected(
    client: SyncAbsurdClient, module_database_url: str, sky: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection for all look-ups of all threads, another when it is lost, none once the source is closed; asked
    whether it answers it tells so, and that there is no such index.
    """
    scan(client, "kept", [str(sky)])
    monkeypatch.setenv("ABSURD_DATABASE_URL", module_database_url)
    opened: list[psycopg.Connection[Any]] = []

    def counting(url: str, **options: Any) -> psycopg.Connection[Any]:
        opened.append(connect(url, **options))
        return opened[-1]

    connect = database_sync.connect
    monkeypatch.setattr(database_sync, "connect", counting)
    source = executors._indexed("kept")
    assert source.test_connection()
    asked = np.array([[10.0, 20.0], [0.0, 5.0]])
    with ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(lambda _: source.find(asked), range(12))
    assert all(first) and all(each == first for each in others)
    assert len(opened) == 1

    with psycopg.connect(module_database_url, autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(%s)", [opened[0].info.backend_pid])
    assert source.find(asked) == first
    assert len(opened) == 2

    source.close()
    assert all(each.closed for each in opened)
    assert source.find(asked) == first
    source.close()
    assert len(opened) == 3 and opened[-1].closed

    unknown = executors._indexed("unknown")
    with pytest.raises(SourceNotFoundError):
        unknown.test_connection()
    unknown.close()


# Found ------------------------------------------------------------------------------------------

OFFSET = st.floats(-0.25, 0.25, width=32)
NEAR = st.tuples(st.sampled_from(CENTRES), OFFSET, OFFSET, st.booleans()).map(
    lambda t: ((t[0][0] + t[1] * (600 if t[3] else 1)) % 360, max(-90.0, min(90.0, t[0][1] + t[2])))
)
ANYWHERE = st.tuples(st.floats(0, 360, width=32), st.floats(-90, 90, width=32))
BANDS = st.lists(st.sampled_from(["g", "r", "R", "i", "Y", "F200W", "f200w", "z"]), max_size=4, unique=True)


@pytest.fixture(scope="module")
def both(client: SyncAbsurdClient, sky: Path) -> tuple[FolderSource, IndexSource]:
    """The folder, and an index of it."""
    found = scan(client, "sky", [str(sky)])
    assert (found.files, found.read, found.images, found.unusable) == (15, 15, 14, 1)
    return FolderSource(sky), source_of(client, "sky")


@settings(max_examples=40, deadline=None, print_blob=True)
@given(positions=st.lists(NEAR | ANYWHERE, min_size=1, max_size=30), bands=BANDS)
def test_answers_are_those_of_the_folder(
    both: tuple[FolderSource, IndexSource], positions: list[tuple[float, float]], bands: list[str]
) -> None:
    """Whatever is asked: the same images with the same bands, planes and versions, in the same order."""
    folder, index = both
    asked = np.array(positions, dtype=np.float64)

    assert index.find(asked, bands) == folder.find(asked, bands)


def test_positions_that_are_none_have_no_image(both: tuple[FolderSource, IndexSource]) -> None:
    """NaN and what is beyond the poles are passed over; a right ascension of 360 or more is turned back."""
    _, index = both
    asked = np.array([[np.nan, 5], [0, 95], [360, 5], [720.001, 5], [np.inf, 0]])

    found = index.find(asked, ["i"])

    assert [len(each) for each in found] == [0, 0, 1, 1, 0]
    assert index.find(np.empty((0, 2))) == []


def test_what_an_index_holds(sky: Path) -> None:
    """The cards of the WCS, which give it back, or none where it needs tables; and bounds that hold its corners."""
    (plain,), (sip,), (table,) = (images_of(sky / name) for name in ("galactic.fits", "sip_g.fits", "lookup_g.fits"))

    assert table["wcs"] is None
    assert (plain["band"], plain["band_told"], sip["band"], sip["band_told"]) == ("g", True, "g", False)
    for each in (plain, sip):
        lines = each["wcs"].splitlines()
        assert any(line.startswith("CRVAL1") for line in lines)
        assert not any(line.startswith(("SIMPLE", "BITPIX", "BAND")) for line in lines)
        west, low, east, high = each["bounds"]
        assert all((ra - west) % 360 <= east - west for ra in each["footprint"][::2])
        assert all(low <= dec <= high for dec in each["footprint"][1::2])
    assert wcs_of_text(sip["wcs"]).sip is not None
    assert [each["hdu"] for each in images_of(sky / "deep" / "mosaic_r.fits.fz")] == [1, 2]
    assert images_of(sky / "deep" / "coadd.fits")[0]["hdus"] == {"image": 1, "mask": 2, "variance": 3}
    assert images_of(sky / "pole.fits")[0]["bounds"][::2] == (0.0, 360.0)


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"DATE-OBS": "2026-01-02T03:04:05.5"}, "2026-01-02T03:04:05.500000+00:00"),
        ({"DATE-OBS": "2026-01-02", "TIME-OBS": "03:04:05"}, "2026-01-02T03:04:05+00:00"),
        ({"DATE-OBS": "2026-01-02", "MJD-OBS": 61042.5}, "2026-01-02T12:00:00+00:00"),
        ({"DATE-OBS": "2026-01-02"}, "2026-01-02T00:00:00+00:00"),
        ({"MJD-BEG": 61042.25, "TIMESYS": "TAI"}, "2026-01-02T05:59:23+00:00"),
        ({"DATE-OBS": "2026-01-02T00:00:00", "TIMESYS": "LOCAL"}, None),
        ({"DATE-OBS": "02/01/98"}, None),
        ({"MJD-OBS": "soon"}, None),
        ({}, None),
    ],
)
def test_when_an_exposure_began(cards: dict[str, Any], expected: str | None) -> None:
    """In UTC, by the best that the headers tell; None where they tell nothing that can be relied on."""
    found = observed(fits.Header(cards), fits.Header())

    assert (found and found.isoformat()) == expected


def test_exposures_of_a_time(client: SyncAbsurdClient, tmp_path: Path) -> None:
    """A look-up of a span of time gives only the exposures that began in it, and none whose time is not known."""
    for night in (1, 2):
        write_image(tmp_path / f"n{night}.fits", pixels_of(), make_wcs(), **{"DATE-OBS": f"2026-01-0{night}T04:00:00"})
    write_image(tmp_path / "timeless.fits", pixels_of(), make_wcs(), TRACT=9813, PATCH=72)
    scan(client, "nights", [str(tmp_path)])
    second = datetime(2026, 1, 2, tzinfo=UTC)

    found = [
        [(Path(each.uri).name, each.tract, each.patch) for each in source.find(np.array([[10.0, 20.0]]))[0]]
        for source in (source_of(client, "nights", **span) for span in ({}, {"since": second}, {"until": second}))
    ]

    assert found == [
        [("n1.fits", None, None), ("n2.fits", None, None), ("timeless.fits", 9813, 72)],
        [("n2.fits", None, None)],
        [("n1.fits", None, None)],
    ]


# Followed ---------------------------------------------------------------------------------------


def counts(found: Scanned) -> tuple[int, ...]:
    return found.files, found.read, found.images, found.forgotten, found.unusable


def test_changes_are_followed(client: SyncAbsurdClient, tmp_path: Path) -> None:
    """Only changed and unreadable files are opened again, vanished ones go, what cannot be used is told each time."""
    for n in range(4):
        write_image(tmp_path / f"a{n}.fits", pixels_of(), make_wcs(), band="r")
    fits.PrimaryHDU(pixels_of()).writeto(tmp_path / "no_sky.fits")
    (tmp_path / "torn.fits").write_bytes(b"SIMPLE")
    (tmp_path / ".hidden.fits").write_bytes(b"")

    first, again = (scan(client, "changes", [str(tmp_path)]) for _ in range(2))
    assert (counts(first), counts(again)) == ((6, 6, 4, 0, 2), (6, 1, 0, 0, 2))
    assert first.reasons == again.reasons
    assert {(Path(each["path"]).name, each["code"]) for each in first.reasons} == {
        ("no_sky.fits", "cutout_no_wcs"), ("torn.fits", "cutout_image_unreadable"),
    }  # fmt: skip

    (tmp_path / "a0.fits").unlink()
    write_image(tmp_path / "a1.fits", pixels_of(), make_wcs(30, 20), band="g")
    os.utime(tmp_path / "a2.fits", ns=(1, 1))
    write_image(tmp_path / "torn.fits", pixels_of(), make_wcs(), band="z")
    assert counts(scan(client, "changes", [str(tmp_path)])) == (5, 3, 3, 1, 1)
    source = source_of(client, "changes")
    here, there = source.find(np.array([[10.0, 20.0], [30.0, 20.0]]))
    assert [(Path(each.uri).name, each.band) for each in here + there] == [
        ("a2.fits", "r"), ("a3.fits", "r"), ("torn.fits", "z"), ("a1.fits", "g"),
    ]  # fmt: skip


def test_nothing_is_forgotten_of_a_folder_that_is_empty(client: SyncAbsurdClient, tmp_path: Path) -> None:
    """Its disk may not be mounted; of several places the others are scanned, and a file that is named and gone goes."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write_image(folder / "a.fits", pixels_of(), make_wcs(), band="r")
    single = write_image(tmp_path / "single.fits", pixels_of(), make_wcs(), band="r")
    places = [str(one), str(two), str(single)]
    assert counts(scan(client, "places", places)) == (3, 3, 3, 0, 0)

    shutil.rmtree(one)
    one.mkdir()
    single.unlink()
    found = scan(client, "places", places)
    assert (counts(found), found.reasons[0]["code"]) == ((1, 0, 0, 1, 1), "cutout_source_not_found")
    assert [Path(each["uri"]).parent.name for each in images(client, "places")] == ["one", "two"]
    for place in (one, tmp_path / "none"):
        with pytest.raises(SourceNotFoundError, match="nothing was forgotten"):
            scan(client, "places", [str(place)])
    with pytest.raises(DataIdValidationError, match="an address cannot be scanned"):
        scan(client, "places", ["https://data.example.org/a.fits"])
    assert len(images(client, "places")) == 2


def test_odd_names_and_headers_stop_nothing(client: SyncAbsurdClient, tmp_path: Path) -> None:
    """A name that is no text, and axes that are on no sky we know, are told; the others are indexed."""
    write_image(tmp_path / "good.fits", pixels_of(), make_wcs(), band="r")
    sun = make_wcs().to_header()
    sun.update({"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN"})
    fits.PrimaryHDU(pixels_of(), sun).writeto(tmp_path / "sun.fits")
    shutil.copy(os.fsencode(tmp_path / "good.fits"), os.fsencode(tmp_path) + b"/\xff.fits")

    found = scan(client, "odd", [str(tmp_path)])

    assert (found.files, found.images, found.unusable) == (2, 1, 2)
    assert {each["code"] for each in found.reasons} <= {"cutout_image_unreadable", "cutout_no_wcs"}


def test_two_scans_of_the_same_files(
    client: SyncAbsurdClient, module_database_url: str, sky: Path, both: object
) -> None:
    """At once, again and again: no deadlock, and what is left is what one of them leaves."""
    results: list[Scanned | BaseException] = []

    def many() -> None:
        try:
            with SyncAbsurdClient(module_database_url) as own:
                for _ in range(3):
                    own.forget_images("twice", [str(path) for path in sky.rglob("*.fits")])
                    results.append(scan(own, "twice", [str(sky)]))
        except BaseException as error:
            results.append(error)

    client.put_images("twice", [])
    threads = [threading.Thread(target=many) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    scan(client, "twice", [str(sky)])

    assert [each for each in results if isinstance(each, BaseException)] == []
    assert len(results) == 6
    assert images(client, "twice") == images(client, "sky")


# Cut --------------------------------------------------------------------------------------------


def test_a_vanished_file_is_the_error_of_its_rows(client: SyncAbsurdClient, tmp_path: Path) -> None:
    """The fetcher cuts the others; no such index, and a database that is away, are errors of the source."""
    for name, ra in (("here", 10.0), ("gone", 40.0)):
        write_image(tmp_path / f"{name}.fits", pixels_of(), make_wcs(ra, 20), band="r")
    scan(client, "vanished", [str(tmp_path)])
    (tmp_path / "gone.fits").unlink()
    requests = [CutoutRequest(40.0, 20.0, 8), CutoutRequest(10.0, 20.0, 8), CutoutRequest(90.0, 20.0, 8)]
    config = ButlerConfig(retry_attempts=1)

    with LsstDataFetcher(config, sources={"index": source_of(client, "vanished")}) as fetcher:
        rows = list(fetcher.fetch_batch_cutouts(requests))

    assert [each.state for each in rows] == ["failed", "accepted", "failed"]
    assert [each.error and each.error.code for each in rows] == ["cutout_source_not_found", None, "cutout_outside"]
    with pytest.raises(SourceNotFoundError, match="no index of images called 'absent'"):
        source_of(client, "absent").find(np.array([[1.0, 1.0]]))
    with pytest.raises(ButlerConnectionError, match="does not answer"):
        source_of(SyncAbsurdClient("postgresql://nobody@127.0.0.1:1/nothing"), "vanished").find(np.array([[1.0, 1.0]]))


def test_tasks_index_and_cut(
    client: SyncAbsurdClient, module_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cutout.extract takes index:NAME that cutout.index has made, and cuts what it cuts out of the folder."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", module_database_url)
    for seed, band in enumerate("gr"):
        write_image(tmp_path / f"{band}.fits", pixels_of(seed=seed), make_wcs(), band=band)
    (tmp_path / "torn.fits").write_bytes(b"SIMPLE")
    result, _ = run("cutout.index", {"folder": str(tmp_path), "index": "tasks"})
    assert (result["index"], result["files"], result["read"], result["images"], result["unusable"]) == (
        *("tasks", 3, 3, 2, 1),
    )
    assert result["reasons"][0]["path"] == str(tmp_path / "torn.fits")
    listed = {each["name"]: each for each in client.list_image_indexes()}
    assert (listed["tasks"]["files"], listed["tasks"]["images"], listed["tasks"]["bands"]) == (3, 2, ["g", "r"])

    asked = {"ra": 10.0, "dec": 20.0, "size": 8, "unit": "pixel", "bands": ["r", "g"]}
    cut = {}
    for name, source in (("of_index", "index:tasks"), ("of_folder", str(tmp_path))):
        told, kinds = run("cutout.extract", asked | {"source": source, "out": str(tmp_path / "out" / name)})
        cut[name] = told["cutouts"], kinds
    both = list(zip(cut["of_index"][0], cut["of_folder"][0], strict=True))
    assert [one["band"] for one, _ in both] == ["r", "g"]
    for one, other in both:
        with fits.open(one["path"]) as ours, fits.open(other["path"]) as theirs:
            assert np.array_equal(ours[0].data, theirs[0].data)
            assert ours[0].header["CRPIX1"] == theirs[0].header["CRPIX1"]
        assert {name for name in one if one[name] != other[name]} == {"path", "preview"}
    assert cut["of_index"][1] == cut["of_folder"][1]
    for change, code in (
        ({"source": "index:none"}, "cutout_source_not_found"),
        ({"dec": -20.0, "bands": []}, "cutout_outside"),
        ({"bands": ["z"]}, "cutout_band_not_found"),
        ({"hdu": 0}, "cutout_request_invalid"),
    ):
        asked_wrongly = asked | {"source": "index:tasks", "out": str(tmp_path / "x")} | change
        assert fail("cutout.extract", asked_wrongly)["code"] == code
    assert fail("cutout.index", {"folder": str(tmp_path), "index": "a b"})["code"] == "invalid_name"


def test_a_batch_of_an_index(client: SyncAbsurdClient, tmp_path: Path) -> None:
    """Its rows are those of the same batch of the folder."""
    sky = tmp_path / "sky"
    sky.mkdir()
    for number in range(2):
        write_image(sky / f"{number}.fits", pixels_of(seed=number), make_wcs(10.0 + number), band="r")
    scan(client, "batch", [str(sky)])
    positions: list[Any] = [(10.0, 20.0), (11.0, 20.0), (12.0, 20.0), (10.001, 20.001)]

    def rows(source: str, out: Path) -> list[dict[str, Any]]:
        params = BatchParams(positions=positions, source=source, size=8, unit="pixel", out=str(out), tensors="none")
        cut_here(params, lambda name: IndexSource(partial(client.find_images, name), name=name))
        return list(manifest.read(out / "manifest.parquet"))

    indexed, listed = rows("index:batch", tmp_path / "a"), rows(str(sky), tmp_path / "b")

    assert [each["state"] for each in indexed] == ["accepted", "accepted", "failed", "accepted"]
    assert "is on no image of the source" in indexed[2]["reason"]
    assert indexed == listed
    assert np.array_equal(
        read_tensors(tmp_path / "a/tensors.parquet")[2], read_tensors(tmp_path / "b/tensors.parquet")[2]
    )


def test_cancelled_and_killed_while_it_indexes(
    client: SyncAbsurdClient, module_database_url: str, tmp_path: Path, until: Callable[..., None]
) -> None:
    """What was put stays, whether the task is cancelled or killed with its worker; the next one reads only the rest."""
    first = write_image(tmp_path / "a00.fits", pixels_of(), make_wcs(), band="r")
    for n in range(1, FILES_AT_ONCE + 5):
        shutil.copy(first, tmp_path / f"a{n:02}.fits")
    client.put_images("halted", [])
    params = {"folder": str(tmp_path), "index": "halted"}
    with psycopg.connect(module_database_url, autocommit=True) as watcher, Workers(module_database_url, 60) as workers:
        waits = (
            "from pg_stat_activity where datname = current_database()"
            " and wait_event_type = 'Lock' and query like '%put_images%'"
        )

        def held() -> bool:
            """Whether a scan waits for the row of a file of its last batch."""
            return watcher.execute(f"select count(*) {waits}").fetchone() == (1,)

        with psycopg.connect(module_database_url) as holder:
            last = [{"uri": str(tmp_path / f"a{FILES_AT_ONCE:02}.fits"), "version": "held"}]
            holder.execute("select absurd.put_images('halted', %s)", [json.dumps(last)])
            worker = workers.start("1")
            cancelled = client.spawn("cutout.index", params)
            until(held, PATIENCE)
            client.cancel(cancelled)
            until(lambda: not held(), PATIENCE)
            client.spawn("cutout.index", params, max_attempts=1)
            until(held, PATIENCE)
            workers.kill(worker)
            watcher.execute(f"select pg_terminate_backend(pid) {waits}")  # it would put them once it could, and no harm
            until(lambda: not held(), PATIENCE)
            assert len(client.list_image_files("halted", str(tmp_path))) == FILES_AT_ONCE
            holder.rollback()
    rest = scan(client, "halted", [str(tmp_path)])  # what the task does, without the start of another worker

    assert (rest.files, rest.read, rest.images) == (FILES_AT_ONCE + 5, 5, 5)
    assert client.get_task(cancelled).state == "cancelled"
    assert len(client.list_image_files("halted", str(tmp_path))) == FILES_AT_ONCE + 5
