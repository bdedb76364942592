"""Indexes of images: what was put in is found again, wherever on the sky, and for no more work among many."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from sql_queue import Queue

Bounds = tuple[float, float, float, float]


def file(uri: str, *bounds: Bounds, version: str = "1", **image: Any) -> dict[str, Any]:
    """A file with an image for each of the bounds."""
    images = [{"hdu": n, "bounds": each, "shape": [9, 9]} | image for n, each in enumerate(bounds)]
    return {"uri": uri, "version": version, "images": images}


def put(queue: Queue, *files: dict[str, Any], index: str = "survey") -> int:
    count: int = queue.call("put_images(%s, %s)", index, json.dumps(files))
    return count


def find(queue: Queue, *positions: tuple[float, float], index: str = "survey", **options: Any) -> dict[str, list[int]]:
    """Numbers of positions by file."""
    rows = queue.connection.execute(
        "select uri, positions from find_images(%s, %s, %s, %s, %s, %s)",
        [
            *(index, [float(ra) for ra, _ in positions], [float(dec) for _, dec in positions]),
            *(options.get(name) for name in ("bands", "since", "until")),
        ],
    ).fetchall()
    return {str(uri): numbers for uri, numbers in rows}


def files(queue: Queue, folder: str, **options: Any) -> list[str]:
    rows = queue.connection.execute(
        "select uri from list_image_files(%s, %s, %s, %s)",
        ["survey", folder, options.get("after"), options.get("limit", 1000)],
    ).fetchall()
    return [str(uri) for (uri,) in rows]


def refusal(queue: Queue, sql: str, *args: Any) -> tuple[str | None, str]:
    with pytest.raises(psycopg.Error) as caught:
        queue.call(sql, *args)
    return caught.value.sqlstate, caught.value.diag.message_primary or ""


def test_what_is_put_takes_the_place_of_what_was(queue: Queue) -> None:
    """A file that is put again has the images of the last time, however often; other files and indexes keep theirs."""
    assert put(queue, file("/a", (10, 20, 11, 21), (12, 20, 13, 21)), file("/b", (10, 20, 11, 21))) == 3
    put(queue, file("/a", (10, 20, 11, 21)), index="other")
    for _ in range(2):
        assert put(queue, file("/a", (30, 20, 31, 21), version="2")) == 1
        assert find(queue, (10.5, 20.5), (12.5, 20.5), (30.5, 20.5)) == {"/a": [3], "/b": [1]}
        assert find(queue, (10.5, 20.5), index="other") == {"/a": [1]}
    known = "select uri, version, error from get_image_files('survey', '{/a,/b,/c}')"
    assert queue.connection.execute(known).fetchall() == [("/a", "2", None), ("/b", "1", None)]

    assert queue.call("forget_images('survey', '{/a,/c}')") == 1
    assert find(queue, (30.5, 20.5), (10.5, 20.5)) == {"/b": [2]}
    assert queue.call("remove_image_index('survey')") is True
    assert queue.call("remove_image_index('survey')") is False
    assert find(queue, (10.5, 20.5), index="other") == {"/a": [1]}
    assert refusal(queue, "count(*) from find_images('survey', '{1}', '{1}')")[0] == "AB014"
    assert queue.call("count(*) from image") == queue.call("count(*) from image_file") == 1


def test_over_right_ascension_0_and_at_the_poles(queue: Queue) -> None:
    """Bounds beyond 360 hold what follows 0, each position once; those of a pole hold all right ascensions."""
    put(queue, file("/wrap", (359.5, -1, 360.5, 1)), file("/pole", (0, 89, 360, 90)), file("/sky", (0, -90, 360, 90)))
    positions = [(0, 0), (0.4, 0), (360, 0), (359.6, 0), (0.6, 0), (180, 0), (77, 89.5), (0, 90), (360, -90)]

    found = find(queue, *positions)

    assert found == {"/wrap": [1, 2, 3, 4], "/pole": [7, 8], "/sky": list(range(1, 10))}


def test_bands_and_times(queue: Queue) -> None:
    """Capitals do not count, a band that no header tells may be any, and a span of time has no end of its own."""
    box = (10, 20, 11, 21)
    put(
        queue,
        file("/big", box, band="R", observed_at="2026-01-01T00:00:00Z"),
        file("/none", box, band=None),
        file("/of_name", box, band="g", band_told=False, observed_at="2026-01-02T00:00:00Z"),
        file("/small", box, band="r", observed_at="2026-01-03T00:00:00Z"),
    )
    at = (10.5, 20.5)

    assert set(find(queue, at, bands=["r"])) == {"/big", "/none", "/of_name", "/small"}
    assert set(find(queue, at, bands=["z"])) == {"/none", "/of_name"}
    assert set(find(queue, at, since="2026-01-02T00:00:00Z")) == {"/of_name", "/small"}
    assert set(find(queue, at, until="2026-01-03T00:00:00Z")) == {"/big", "/of_name"}
    assert set(find(queue, at, since="2026-01-02T00:00:00Z", until="2026-01-02T00:00:01Z")) == {"/of_name"}


def test_files_below_a_folder_come_page_by_page(queue: Queue) -> None:
    """Those of a folder whose name only begins alike are others; a page goes on behind the last of the one before."""
    put(queue, *(file(each) for each in ("/d/a", "/d/b/c", "/d/z", "/d-2/a", "/d0", "/e")))

    assert files(queue, "/d") == files(queue, "/d/") == ["/d/a", "/d/b/c", "/d/z"]
    assert files(queue, "/d", limit=2) == ["/d/a", "/d/b/c"]
    assert files(queue, "/d", limit=2, after="/d/b/c") == ["/d/z"]
    assert files(queue, "/") == ["/d-2/a", "/d/a", "/d/b/c", "/d/z", "/d0", "/e"]


def test_indexes_are_listed(queue: Queue) -> None:
    """With counts of files, images, and files that cannot be used, and their bands."""
    put(queue, file("/a", (1, 1, 2, 2), (1, 1, 2, 2), band="r"), {"uri": "/b", "version": "1", "error": {"code": "x"}})
    put(queue, index="empty")

    rows = queue.connection.execute("select name, files, images, unusable, bands from list_image_indexes()").fetchall()

    assert rows == [("empty", 0, 0, 0, []), ("survey", 2, 2, 1, ["r"])]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ("{}", "must be a list"),
        ('[{"uri": "/a"}]', "must be a list of"),
        ('[{"uri": "/a", "version": "1"}, {"uri": "/a", "version": "2"}]', "named twice"),
        ('[{"uri": "/a", "version": "1", "images": [{"hdu": 0, "shape": [1, 1]}]}]', "bounds"),
        ('[{"uri": "/a", "version": "1", "images": [{"hdu": 0, "shape": [1], "bounds": [1,1,2,2]}]}]', "shape"),
        ('[{"uri": "/a", "version": "1", "images": [{"hdu": 0, "shape": [1,1], "bounds": [-9,1,2,2]}]}]', "bounds"),
        ('[{"uri": "/a", "version": "1", "images": [{"hdu": "x"}]}]', "integer"),
        ('[{"uri": "/a", "version": "1", "images": [{"observed_at": "soon"}]}]', "timestamp"),
    ],
)
def test_what_is_no_file_is_refused(queue: Queue, files: str, said: str) -> None:
    """By AB001 with what is wrong, and nothing of it is kept."""
    state, message = refusal(queue, "put_images('survey', %s)", files)

    assert (state, said in message) == ("AB001", True), message
    assert queue.call("count(*) from image_index") == 0


def test_names_and_positions_that_are_none_are_refused(queue: Queue) -> None:
    """With the value in the message."""
    put(queue)

    assert refusal(queue, "put_images('a b', '[]')")[0] == "AB007"
    assert refusal(queue, "forget_images('none', '{}')")[0] == "AB014"
    for ra, dec in (("{1,400}", "{1,1}"), ("{1,NaN}", "{1,1}"), ("{1,1}", "{1,91}"), ("{1,1}", "{1}")):
        state, message = refusal(queue, "count(*) from find_images('survey', %s, %s)", ra, dec)
        assert (state, "position 2 is (" in message) == ("AB001", True)


def buffers(queue: Queue) -> int:
    """Blocks that a look-up of two positions touches, one of them over RA 0."""
    queue.connection.execute("select count(*) from find_images('survey', '{100.05,0.01}', '{0.05,0.05}')")
    row = queue.connection.execute(
        "explain (analyze, buffers, format json) select * from find_images('survey', '{100.05,0.01}', '{0.05,0.05}')"
    ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert plan["Actual Rows"] == 2
    read: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return read


def test_a_look_up_costs_the_same_among_many_images(queue: Queue) -> None:
    """A hundred thousand images more, half of them of another index at the same places, cost it two levels of the tree.

    It takes seconds to put them in: of fewer the tree would have one level.
    """
    put(queue, index="other")
    put(queue, file("/here", (100, 0, 100.1, 0.1)), file("/wrap", (359.9, 0, 360.1, 0.1)))
    few = buffers(queue)
    queue.connection.execute(
        "with f as (insert into image_file (index_id, uri, version, scanned_at)"
        "  select x.id, n, '1', clock_time() from generate_series(0, 49999) n, image_index x"
        "  returning id, index_id, uri),"
        " p as (select id, index_id, uri::integer % 500 * 0.7 as ra, uri::integer / 500 * 0.8 + 1 as dec from f)"
        " insert into image (file_id, hdu, index_id, bounds, band_told, hdus, shape)"
        "  select id, 0, index_id, box(point(ra, dec), point(ra + 0.6, dec + 0.7)), true, '{}', '{9,9}' from p"
    )

    many = buffers(queue)

    print(f"blocks: {few} among 2 images, {many} among 100,002")
    assert many < few + 40
