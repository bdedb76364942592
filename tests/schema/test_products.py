"""Rows of products: written by the completion that holds its claim, once, and never lost to a file that comes later."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue

Row = tuple[str, dict[str, Any]]
NOON = "2026-03-01T12:00:00+00:00"


def image(path: str = "/p/a.fits", **changes: Any) -> Row:
    told = {
        "path": path, "ra": 10.0, "declination": 50.0, "telescope": "DSA-110", "rms_jy": 0.001, "thermal_jy": 0.0009,
        "dynamic_range": 800.0, "beam_major_arcsec": 12.0, "observed_from": NOON, "observed_until": NOON,
        "inputs": [{"path": "/p/a.ms", "role": "visibilities"}], "facts": {"model": "/p/a-model.fits"},
    }  # fmt: skip
    return "image", told | changes


def table(path: str = "/p/rows.parquet", **changes: Any) -> Row:
    return "table", {"path": path, "facts": {"of": "photometry"}} | changes


def source(name: str, ra: float = 10.0, declination: float = 50.0, radius_arcsec: float = 3.0) -> Row:
    return "source", {"name": name, "ra": ra, "declination": declination, "radius_arcsec": radius_arcsec}


def measured(name: str, flux: float | None, path: str = "/p/a.fits", **changes: Any) -> Row:
    is_seen = flux is not None and flux > 0.005
    told = {
        "name": name, "image": path, "observed_at": NOON, "flux_jy": flux, "error_jy": 0.001, "detected": is_seen,
        "upper_limit_jy": None if is_seen else 0.003, "flags": 0,
    }  # fmt: skip
    return "photometry", told | changes


def finish(queue: Queue, *rows: Row, content: str = "1", task: UUID | None = None) -> UUID:
    """A task that runs and completes with these products; `content` is a digit that its files' checksums are of."""
    task = task or queue.spawn()
    lease, claimed, _ = queue.claim()
    assert claimed == [task]
    assert report(queue, lease, task, *rows, content=content) is None
    return task


def report(queue: Queue, lease: int, task: UUID, *rows: Row, content: str = "1") -> Any:
    paths = [row["path"] for kind, row in rows if kind in {"image", "mosaic", "table"}]
    told = {"task": str(task), "kind": "k", "sha256": content * 64, "bytes": 9}
    files = [told | {"path": each, "attempt_path": f"{each}.part"} for each in paths]
    products = [{"task": str(task), "kind": kind, "row": row} for kind, row in rows]
    return queue.call(
        "complete_runs(array[%s::bigint], array[%s::uuid], '{0}', '{null}', %s, null, %s)",
        lease,
        task,
        json.dumps(files),
        json.dumps(products),
    )


def product(queue: Queue, path: str = "/p/a.fits") -> dict[str, Any]:
    row: dict[str, Any] = queue.call("get_product((find_product(%s) -> 'id')::bigint)", path)
    return row


def states(queue: Queue) -> list[tuple[str, str, str]]:
    rows = queue.connection.execute("select path, left(checksum, 1), state from product order by id").fetchall()
    return [(str(path), str(content), str(state)) for path, content, state in rows]


def light_curve(queue: Queue, number: int) -> list[dict[str, Any]]:
    return [row for (row,) in queue.connection.execute("select get_light_curve(%s)", [number])]


def around(queue: Queue, ra: float, declination: float, arcsec: float) -> list[str]:
    found = queue.connection.execute(
        "select r ->> 'name' from find_sources(%s, %s, %s) r", [ra, declination, arcsec]
    ).fetchall()
    return [str(name) for (name,) in found]


def test_a_completion_stores_what_it_tells(queue: Queue) -> None:
    """An image is a candidate with checksum, beam, noise and lineage; a table is accepted; sources have positions."""
    task = finish(
        queue, image(), table(inputs=[{"path": "/p/a.fits", "role": "image"}]), source("A"), measured("A", 0.05)
    )

    made = product(queue)
    assert {key: made[key] for key in ("kind", "checksum", "bytes", "state", "task_id", "facts")} == {
        "kind": "image", "checksum": "1" * 64, "bytes": 9, "state": "candidate", "task_id": str(task),
        "facts": {"model": "/p/a-model.fits"},
    }  # fmt: skip
    assert (made["image"]["beam_major_arcsec"], made["image"]["thermal_jy"], made["image"]["peak_jy"]) == (
        12,
        9e-4,
        None,
    )
    assert made["inputs"] == [{"path": "/p/a.ms", "role": "visibilities", "input_id": None}]
    rows = product(queue, "/p/rows.parquet")
    assert (rows["state"], rows["image"]) == ("accepted", None)
    assert rows["inputs"] == [{"path": "/p/a.fits", "role": "image", "input_id": made["id"]}]
    assert made["used_in"] == [rows["id"]]
    (found,) = (r for (r,) in queue.connection.execute("select find_sources(10, 50.0003, 5)"))
    assert found["arcsec"] == pytest.approx(1.08, abs=1e-3)
    (point,) = light_curve(queue, found["id"])
    assert (point["flux_jy"], point["image_id"], point["product_id"]) == (0.05, made["id"], rows["id"])


def test_a_stale_completion_stores_nothing(queue: Queue) -> None:
    """A run whose claim was lost leaves no row, and one that is reported again changes none."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    assert report(queue, lease + 77, task, image(), table(), source("A"), measured("A", 0.05)) == [task]
    assert states(queue) == []
    assert queue.call("count(*) from source") == 0

    assert report(queue, lease, task, image()) is None
    assert report(queue, lease, task, image(rms_jy=7.0), source("B")) is None  # a repetition is not stale
    assert states(queue) == [("/p/a.fits", "1", "candidate")]
    assert product(queue)["image"]["rms_jy"] == 0.001
    assert queue.call("count(*) from source") == 0


def test_the_same_again_is_the_same(queue: Queue) -> None:
    """A task that runs again and makes the same bits has the same rows: nothing twice, states as they were."""
    rows = (image(), table(), source("A"), source("B", 11), measured("A", 0.05), measured("B", None))
    finish(queue, *rows)
    first = product(queue)
    queue.call("accept_product(%s)", first["id"])

    again = finish(queue, *rows)

    assert states(queue) == [("/p/a.fits", "1", "accepted"), ("/p/rows.parquet", "1", "accepted")]
    assert (product(queue)["id"], product(queue)["task_id"]) == (first["id"], str(again))
    assert queue.call("count(*) from source") == 2
    assert queue.call("count(*) from photometry") == 2


def test_another_file_at_the_path_supersedes(queue: Queue) -> None:
    """One product has a path; those that had it before stay as rows, and a quarantined one stays quarantined."""
    finish(queue, image())
    finish(queue, image(), content="2")
    assert states(queue) == [("/p/a.fits", "1", "superseded"), ("/p/a.fits", "2", "candidate")]
    assert queue.call("quarantine_product((find_product('/p/a.fits') -> 'id')::bigint, 'noise')") is True
    finish(queue, image())  # the first one is made once more
    assert states(queue) == [("/p/a.fits", "1", "candidate"), ("/p/a.fits", "2", "quarantined")]
    finish(queue, image(), content="2")  # and the bad one
    assert states(queue) == [("/p/a.fits", "1", "superseded"), ("/p/a.fits", "2", "quarantined")]
    assert product(queue)["reason"] == "noise"


def test_a_product_has_to_be_a_file_of_the_run(queue: Queue) -> None:
    """What cannot be stored refuses the completion as a whole, with the reason: the run stays, and can fail."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    for rows, reason in (
        ([{"kind": "image", "row": {"path": "/p/none.fits", "ra": 1, "declination": 1}}], "'/p/none.fits' is no file"),
        ([{"kind": "picture", "row": {}}], "no products of kind 'picture'"),
        ([{"kind": "photometry", "row": {"name": "C", "image": "/i", "detected": True, "flags": 0}}], "null value"),
        ([{"kind": "source", "row": {"name": "C", "ra": 400, "declination": 0, "radius_arcsec": 1}}], "source_on_sky"),
        ([{"kind": "qa", "row": {"product": 77, "measures": []}}], "no product 77"),
    ):
        told = [each | {"task": str(task)} for each in rows]
        with pytest.raises(psycopg.Error, match=reason) as caught:
            queue.call(
                "complete_runs(array[%s::bigint], array[%s::uuid], '{0}', '{null}', null, null, %s)",
                lease,
                task,
                json.dumps(told),
            )
        assert caught.value.sqlstate in {"AB001", "AB018"}
    assert queue.call("get_state(%s)", task) == "running"
    assert queue.call("count(*) from source") == 0


def test_sources_are_what_lies_at_a_place(queue: Queue) -> None:
    """Names do not matter; across right ascension 0 and at the poles too; two of one run are never one source."""
    finish(queue, source("A", 0.0001, 20), source("pole", 100, 89.9999), source("south", 5, -90))
    finish(queue, source("a", 359.9999, 20, 1.0), source("p", 280, 89.9999, 1.0), source("s", 355, -89.9999, 1.0))
    assert around(queue, 0, 20, 2) == ["A"]
    assert around(queue, 0, 90, 2) == ["pole"]
    assert around(queue, 77, -90, 2) == ["south"]

    finish(queue, source("near", 0.0001, 20.0001), source("nearer", 0.0001, 20.00001))
    assert queue.call("count(*) from source") == 4
    assert around(queue, 0.0001, 20.0001, 0.01) == ["near"]
    assert around(queue, 0.0001, 20, 1) == ["A", "near"]


def test_random_places_are_found(queue: Queue) -> None:
    """Whatever the radius, what is found is what lies within, by vectors, all over the sky."""
    queue.connection.execute("select setseed(0.29)")
    queue.connection.execute("""
        insert into source (name, ra, declination, found_at)
            select n, case n % 4 when 0 then random() * 0.01 when 1 then 360 - random() * 0.01 - 1e-6
                                 else random() * 360 end,
                   case n % 5 when 0 then 90 - random() * 0.01 when 1 then -90 + random() * 0.01
                              else degrees(asin(2 * random() - 1)) end,
                   clock_time()
            from generate_series(1, 2000) n""")
    for arcsec in (5.0, 60.0, 3600.0, 36000.0):
        within = "_arcsec_between(a.ra, a.declination, b.ra, b.declination) <= %s"
        differ = queue.call(
            f"""count(*) from source a cross join lateral (
                select array(select id from _sources_around(a.ra, a.declination, %s) order by id) as found,
                       array(select b.id from source b where {within} order by b.id) as there) x
               where a.id %% 20 = 0 and found <> there""",
            arcsec,
            arcsec,
        )
        assert differ == 0


def test_non_detections_are_rows(queue: Queue) -> None:
    """A source that is not seen has a row with its limit; one that is measured again in an image is replaced."""
    finish(queue, image(), table(), source("A"), measured("A", 0.001))
    later = "2026-03-02T12:00:00+00:00"
    finish(queue, table("/p/b.parquet"), source("A"), measured("A", 0.06, "/p/b.fits", observed_at=later), content="2")
    finish(queue, table("/p/c.parquet"), source("A"), measured("A", 0.002), content="3")

    curve = light_curve(queue, queue.call("id from source"))

    assert [(each["image"], each["detected"], each["flux_jy"], each["upper_limit_jy"]) for each in curve] == [
        ("/p/a.fits", False, 0.002, 0.003),
        ("/p/b.fits", True, 0.06, None),
    ]
    of_day = "count(*) from get_photometry('2026-03-01', '2026-03-02')"
    assert queue.call(of_day) == 1
    queue.call("quarantine_product((find_product('/p/a.fits') -> 'id')::bigint, 'noise')")
    assert queue.call(of_day) == 0


def test_variability_belongs_to_its_table(queue: Queue) -> None:
    """What a later table tells stands beside; the sources that change most come first."""
    told = {"kind": "variable", "epochs": 12, "detections": 9, "eta": 30.0, "v": 0.4, "reference": False}
    rows = (table("/p/v.parquet"), source("A"), source("B", 11), ("variability", {"name": "A"} | told))
    steady = ("variability", {"name": "B"} | told | {"kind": "steady", "eta": 1.0})
    finish(queue, *rows, steady)
    finish(queue, *rows, content="2")

    def listed(content: str) -> list[tuple[str, str]]:
        number = queue.call("id from product where checksum = repeat(%s, 64)", content)
        found = queue.connection.execute(
            "select r ->> 'name', r ->> 'kind' from list_variability(%s) r", [number]
        ).fetchall()
        return [(str(name), str(kind)) for name, kind in found]

    assert listed("1") == [("A", "variable"), ("B", "steady")]
    assert listed("2") == [("A", "variable")]


def test_gates_decide(queue: Queue) -> None:
    """Measures that pass make a candidate accepted with the completion of the gate; one that fails never does."""
    finish(queue, image(), image("/p/b.fits"))
    good = [{"gate": "astrometry", "of": "", "value": 0.1, "unit": "", "verdict": "ok", "limits": {"fail_above": 1}}]
    bad = [{"gate": "dynamic_range", "value": 3, "verdict": "fail"}]
    numbers = {path: product(queue, path)["id"] for path in ("/p/a.fits", "/p/b.fits")}
    finish(queue, ("qa", {"product": numbers["/p/a.fits"], "measures": good}))
    finish(queue, ("qa", {"product": numbers["/p/b.fits"], "measures": good + bad}))

    assert [each[2] for each in states(queue)] == ["accepted", "candidate"]
    (told,) = product(queue)["qa"]
    assert (told["gate"], told["value"], told["verdict"], told["limits"]) == (
        "astrometry",
        0.1,
        "ok",
        {"fail_above": 1},
    )

    assert queue.call("quarantine_product(%s, 'low', %s)", numbers["/p/b.fits"], json.dumps(bad)) is True
    assert queue.call("quarantine_product(%s, 'other')", numbers["/p/b.fits"]) is False
    assert product(queue, "/p/b.fits")["reason"] == "low"
    with pytest.raises(psycopg.Error, match="is quarantined: low"):
        queue.call("accept_product(%s)", numbers["/p/b.fits"])
    assert queue.call("accept_product(%s, true)", numbers["/p/b.fits"]) == "accepted"
    for wrong, code in (("accept_product(77)", "AB018"), ("quarantine_product(77, 'x')", "AB018"),
                        ("quarantine_product(1, '')", "AB001")):  # fmt: skip
        with pytest.raises(psycopg.Error) as caught:
            queue.call(wrong)
        assert caught.value.sqlstate == code


def test_products_are_listed(queue: Queue) -> None:
    """By kind, state and time, the latest first."""
    finish(
        queue,
        image(),
        image("/p/b.fits", observed_from="2026-03-02T00:00Z", observed_until="2026-03-02T01:00Z"),
        table(),
    )
    listed = "array_agg(r ->> 'path') from list_products({}) r"
    assert queue.call(listed.format("'image'")) == ["/p/b.fits", "/p/a.fits"]
    assert queue.call(listed.format("null, 'accepted'")) == ["/p/rows.parquet"]
    assert queue.call(listed.format("p_until => '2026-03-02'")) == ["/p/a.fits"]


def test_a_page_costs_what_is_on_it(queue: Queue) -> None:
    """In the middle of 60,000 rows too, with statistics and without; what belongs to a row is looked up."""
    for sql in (
        "insert into product (kind, path, checksum, bytes, state, task_id, stored_at, decided_at) select 'image',"
        " i::text, '', 9, 'accepted', '01890000-0000-7000-8000-000000000000', now(), now()"
        " from generate_series(1, 60000) i",
        "insert into sky_image (product_id, ra, declination) select id, 10, 10 from product",
        "insert into qa_result select id, 'noise', '', 1, '', 'ok', '{}', '', now() from product",
    ):
        queue.connection.execute(sql)
    pages = ("'product', '{id}', null, '{30000}'", "'qa_result', '{product_id,gate,part}', null, '{30000,noise,\"\"}'")
    for analyzed in (False, True):
        if analyzed:
            queue.connection.execute("analyze product, sky_image, qa_result")
        for page in pages:
            sql = f"explain (analyze, buffers, format json) select read_products({page}, true, 50)"
            queue.connection.execute(sql)
            row = queue.connection.execute(sql).fetchone()
            assert row is not None
            plan = row[0][0]["Plan"]
            read = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            assert (50, True) == (plan["Actual Rows"], read < 400), (page, analyzed, read)


def test_conditions_and_names_are_quoted(queue: Queue) -> None:
    """Whatever they hold is a value or a name; unknown tables and comparisons are refused, unknown columns too."""
    finish(queue, image())
    counted = "count(*) from read_products(%s, '{id}', %s)"
    for value in ("' or true --", "x'); drop table product; --", "\\' or 1=1"):
        assert 0 == queue.call(counted, "product", json.dumps([["kind", "=", value]]))
        assert 0 == queue.call(counted, "product", json.dumps([["kind", "in", [value]]]))
    assert 1 == queue.call(counted, "product", json.dumps([["kind", "in", ["image", "' or true --"]]]))
    for table, where, code in (
        ("pg_class", [], "AB001"),
        ("task", [], "AB001"),
        ("product", [["kind", "= 'image' or true --", ""]], "AB001"),
        ("product", [["kind or true", "=", "a"]], "42703"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            queue.call(counted, table, json.dumps(where))
        assert caught.value.sqlstate == code
