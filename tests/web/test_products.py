"""Products: what is in the database and in a file of them is shown alike, filtered, paged, painted and cut."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from astropy.io import fits
from fastapi.testclient import TestClient
from httpx2 import Response
from observed import CENTRE, SCALE, SIDE, TIMES, Observed
from PIL import Image
from web.conftest import reading
from web_calls import PRODUCT_CALLS
from world import World

from absurd.errors import InvalidInputError
from absurd.product_file import open_product_file, write_product_file
from absurd.product_rows import TABLES

if TYPE_CHECKING:
    from web.conftest import Site

Get = Callable[..., Response]


@pytest.fixture(scope="module")
def night(world: World) -> Observed:
    """What there is to see."""
    found: Observed = world.observed
    return found


@pytest.fixture(params=["postgresql", "sqlite"])
def get(request: pytest.FixtureRequest, site: Site, laptop: TestClient) -> Get:
    """A read of either, below ``/api/v1``."""
    if request.param == "postgresql":
        return lambda path, **query: site.get(path, "reader", **query)
    return lambda path, **query: laptop.get(f"/api/v1{path}", params=query)


def test_tables_have_the_columns_that_are_told(site: Site, night: Observed) -> None:
    """A column that is added in SQL is in the file and in the OpenAPI as well, or this fails."""
    for name, table in TABLES.items():
        row = site.connection.execute("select read_products(%s, %s)", [name, list(table.key)]).fetchone()
        assert row is not None
        assert set(row[0]) == set(table.columns), name


@pytest.mark.parametrize("operation", sorted(PRODUCT_CALLS))
def test_a_file_of_products_answers_as_the_database(
    site: Site, world: World, laptop: TestClient, operation: str
) -> None:
    """Status, type, tag and content of every read, pictures and files too."""
    request = PRODUCT_CALLS[operation](world)
    _, path = site.place(operation)
    there = site.ask(operation, request, "reader")
    here = laptop.get(path.format(**request.path), params=dict(request.query))

    assert (200, 200) == (there.status_code, here.status_code), here.text
    assert there.headers["content-type"] == here.headers["content-type"]
    assert there.headers["etag"] == here.headers["etag"]
    assert there.content == here.content


def test_a_file_of_products_has_no_queue(laptop: TestClient) -> None:
    """Nor anything that needs one; its health needs no database, and nobody else on the network sees it."""
    assert "ok" == laptop.get("/api/v1/health").json()["status"]
    assert [404, 404] == [laptop.get(f"/api/v1{path}").status_code for path in ("/tasks", "/jobs")]
    assert "/api/v1/images" in laptop.get("/api/v1/openapi.json").json()["paths"]
    away = TestClient(laptop.app, "http://localhost:8714", client=("192.0.2.7", 40_000))
    away.portal = laptop.portal
    assert 401 == away.get("/api/v1/images").status_code
    assert {"removed": 0} == laptop.post("/api/v1/cache/invalidate", json={"pattern": "none"}).json()


def words(page: Response, night: Observed) -> list[str]:
    """What a page says: without ages, which pass, and the id of a task, which is shorter where it is a link."""
    text = re.sub(r"<time.*?</time>", "", page.text.partition("<main")[2])
    return [each for each in re.sub(r"<[^>]*>", " ", text).split() if not each.endswith(str(night.task)[-8:])]


def test_pages_of_a_file_are_those_of_the_database(site: Site, night: Observed, laptop: TestClient) -> None:
    """The same text, but for what leads to the queue: menu, search, tasks; and nothing asks for live events."""
    paths = (f"/products/{night.mosaic}", f"/products/{night.table}", f"/sources/{night.source}", "/sky", "/sessions")
    token = {"Authorization": f"Bearer {site.tokens['reader']}"}
    for path in (*paths, "/sources?ra=0&declination=54.5&radius=30"):
        here, there = laptop.get(path), site.http.get(path, headers=token)
        assert (200, 200) == (here.status_code, there.status_code), here.text
        assert words(here, night) == words(there, night), path
        assert [] == re.findall(
            r"href=\"/(?!sky|sources|sessions|products|static|\")|live\.js|action=\"/search", here.text
        )
    picture = laptop.get(f"/products/{night.mosaic}/preview")
    assert "image/png" == picture.headers["content-type"]
    assert night.files["mosaic"].read_bytes() == laptop.get(f"/products/{night.mosaic}/file").content
    assert "/sky" == laptop.get("/", follow_redirects=False).headers["location"]
    assert [404, 404] == [laptop.get(path).status_code for path in ("/tasks", "/login")]


def test_lists_are_filtered(get: Get, night: Observed) -> None:
    """Each filter leaves those it says, and all together; nothing that fits is an empty list."""

    def numbers(path: str, key: str = "id", **query: Any) -> list[Any]:
        return [each[key] for each in get(path, **query).json()["items"]]

    assert [night.mosaic, *reversed(night.images)] == numbers("/images", telescope=f"array {night.session}")
    assert [night.mosaic] == numbers("/images", kind="mosaic")
    assert [night.images[1]] == numbers("/images", state="quarantined")
    assert [night.images[1]] == numbers("/images", since=TIMES[2])
    assert [night.mosaic, night.images[0]] == numbers("/images", until=TIMES[2], task_id=str(night.task))
    assert [] == numbers("/images", telescope="none")
    assert ["fail"] == numbers("/qa", "verdict", verdict="fail", gate="noise")
    assert [night.images[1]] == numbers("/qa", "product_id", verdict="none", kind="image")
    assert [night.session] == numbers("/sessions", "session_id", target="M%", failed=True)
    assert [] == numbers("/sessions", "session_id", target="m%")
    assert [] == numbers("/sessions", "session_id", target="M3_\\")
    assert [night.gains] == numbers("/cal", state="valid", source="3C48", telescope=night.session)
    assert [night.ms] == numbers("/ms", intake=f"intake.{night.session}")
    assert [str(night.export)] == numbers("/exports", "task_id", executor="export.query", kind="parquet")
    assert [str(night.cutout)] == numbers("/cutouts", "task_id")


def test_pages_go_on_where_they_ended(get: Get, night: Observed) -> None:
    """One by one they give what one page gives, in its order, whatever the key; a made-up end is refused."""
    for path in ("/images", "/qa", f"/sources/{night.source}/lightcurve", "/sources"):
        whole = get(path, limit=500).json()
        found: list[Any] = []
        after: dict[str, Any] = {}
        while True:
            page = get(path, limit=1, **after).json()
            found += page["items"]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert len(whole["items"]) >= 2
        assert whole["items"] == found, path
    for odd in ("x", "[]", "-1", "W10", "WyJhIl0", "9" * 30, "\U0001f6f0"):
        assert 422 == get("/qa", after=odd).status_code, odd
    assert 422 == get("/images", limit=501).status_code


def test_the_ends_of_time_are_times(get: Get, night: Observed) -> None:
    """The first and the last that can be told leave all and nothing."""
    both = {"telescope": f"array {night.session}", "since": "0001-01-01T00:00:00+14:00"}
    assert 3 == len(get("/images", **both).json()["items"])
    assert 3 == len(get("/images", **both | {"since": "0900-01-01T00:00:00.5Z"}).json()["items"])
    assert [] == get("/images", **both | {"since": "9999-12-31T23:59:59-14:00"}).json()["items"]


def test_a_source_tells_how_bright_it_was(get: Get, night: Observed) -> None:
    """By time, seen or not, also where the time is not told; around a position by distance, across 0 hours too."""
    curve = get(f"/sources/{night.source}/lightcurve").json()
    assert list(TIMES) == [each["observed_at"] for each in curve["items"]]
    assert [True, True, False, True] == [each["detected"] for each in curve["items"]]
    assert curve["source"]["name"].startswith("A & B")
    some = get(f"/sources/{night.source}/lightcurve", since=TIMES[1], until=TIMES[3]).json()
    assert curve["items"][1:3] == some["items"]
    [told] = get(f"/sources/{night.source}/variability").json()["items"]
    assert ("variable", 12.5, night.table) == (told["kind"], told["eta"], told["product_id"])
    assert [night.images[0]] == [each["id"] for each in get(f"/sources/{night.source}/images").json()["items"]]

    near = get("/sources", ra=359.9999, declination=54.5, radius=10).json()["items"]
    assert [pytest.approx(1.88, abs=0.01), pytest.approx(2.30, abs=0.01)] == [each["arcsec"] for each in near]
    assert night.source == near[1]["id"]
    assert [] == get("/sources", ra=359.9999, declination=54.5, radius=1).json()["items"]
    assert 422 == get("/sources", ra=10).status_code


def test_where_a_product_comes_from(get: Get, night: Observed) -> None:
    """All that is behind it, step by step, and what was made of it."""
    found = get(f"/images/{night.mosaic}/provenance").json()

    assert found["complete"]
    assert [night.table] == found["used_in"]
    assert night.images == [each["input_id"] for each in found["product"]["inputs"]]
    assert night.images == [each["id"] for each in found["ancestors"]]
    assert ["/night/one.ms"] == [each["path"] for each in found["ancestors"][0]["inputs"]]
    assert [0] == [each["number"] for each in get(f"/ms/{night.ms}/provenance").json()["subbands"]]


def test_what_is_not_there_is_not_found(get: Get, night: Observed) -> None:
    """404, and never something made up; a table is no image."""
    for path in (
        *(
            "/images/999999",
            f"/images/{night.table}",
            "/images/999999/png",
            "/sources/999999/lightcurve",
            "/cal/999999",
        ),
        *("/ms/999999", "/qa/999999", "/sessions/none", f"/exports/{night.cutout}", f"/exports/{night.task}"),
        f"/exports/{night.export}/files/{'0' * 64}",
    ):
        answer = get(path)
        assert (404, "not_found") == (answer.status_code, answer.json()["error"]), path
    assert "table" == get(f"/qa/{night.table}").json()["kind"]
    assert [] == get(f"/qa/{night.table}").json()["qa"]


def test_files_are_sent_whole_in_parts_or_not_again(get: Get, site: Site, night: Observed) -> None:
    """Only what is registered, as long as it is what was registered: no path comes from a caller."""
    path = f"/exports/{night.export}/files/{night.hashes['export']}"
    whole = get(path)
    assert night.files["export"].read_bytes() == whole.content
    assert f'"{night.hashes["export"]}"' == whole.headers["etag"]
    part = site.get(path, headers={"Range": "bytes=3-5"})
    assert (206, whole.content[3:6]) == (part.status_code, part.content)
    assert 304 == site.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code
    for guess in ("..%2F..%2Fetc%2Fpasswd", str(night.files["export"]).replace("/", "%2F")):
        assert get(f"/exports/{night.export}/files/{guess}").status_code in (404, 405), guess
    night.files["export"].write_bytes(b"another")
    try:
        assert 409 == get(path).status_code
    finally:
        night.files["export"].write_bytes(whole.content)


def test_images_are_painted_and_cut(get: Get, night: Observed) -> None:
    """As large as asked for, and where: the point in the middle is in the middle; what is beyond is NaN."""
    path = f"/images/{night.images[0]}"
    assert "image/png" == get(f"{path}/png").headers["content-type"]
    assert (100, 100) == Image.open(BytesIO(get(f"{path}/thumbnail", size=100).content)).size
    made = get(f"{path}/cutout", ra=CENTRE[0], declination=CENTRE[1], size=11 * SCALE)
    assert "application/fits" == made.headers["content-type"]
    with fits.open(BytesIO(made.content)) as hdus:
        assert (11, 11) == hdus[0].data.shape
        assert 1.0 == hdus[0].data[5, 5] == hdus[0].data.max()
    corner = get(f"{path}/cutout", ra=CENTRE[0], declination=CENTRE[1] + SIDE * SCALE / 7200, size=8, unit="pixel")
    with fits.open(BytesIO(corner.content)) as hdus:
        assert 0 < (hdus[0].data != hdus[0].data).sum() < 64
    picture = get(f"{path}/cutout", ra=CENTRE[0], declination=CENTRE[1], format="png")
    assert "PNG" == Image.open(BytesIO(picture.content)).format
    assert 422 == get(f"{path}/cutout", ra=10, declination=-10).status_code
    assert 422 == get(f"{path}/cutout", ra=CENTRE[0], declination=CENTRE[1], size=1e-9).status_code


def test_a_damaged_image_is_no_mistake_of_ours(site: Site, night: Observed) -> None:
    """409 tells what is wrong with the file."""
    file = night.files["two"]
    content = file.read_bytes()
    file.write_bytes(b"0" * len(content))
    try:
        answer = site.get(f"/images/{night.images[1]}/png")
        assert (409, "conflict") == (answer.status_code, answer.json()["error"])
    finally:
        file.write_bytes(content)


def test_pictures_are_kept_and_forgotten(site: Site, night: Observed) -> None:
    """The second time nothing is painted; what is forgotten is painted again, and what is counted too."""
    site.call("POST", "/cache/clear")
    before = site.get("/cache").json()
    assert (0, 0) == (before["entries"], before["bytes"])
    first, second = (site.get(f"/images/{night.images[0]}/thumbnail") for _ in range(2))
    assert first.content == second.content
    site.get("/stats")
    after = site.get("/cache").json()
    assert (2, before["hits"] + 1, before["misses"] + 2) == (after["entries"], after["hits"], after["misses"])
    gone = site.call("POST", "/cache/invalidate", "operator", {"pattern": f"picture:{night.hashes['one']}:*"})
    assert ({"removed": 1}, 1) == (gone.json(), site.get("/cache").json()["entries"])


def test_what_there_is_is_counted(get: Get, night: Observed) -> None:
    """By state; and each count tells what it is of."""
    found = get("/stats").json()

    assert {"kind": "mosaic", "state": "candidate", "count": 1} in found["products"]
    assert [{"count": 2}] == found["sources"]
    assert [{"verdict": "fail", "count": 1}] == [each for each in found["measures"] if each["verdict"] == "fail"]


def test_many_jobs_at_once(site: Site, night: Observed, world: World) -> None:
    """All or none: one that is not there, or cannot be run again, leaves the others as they are."""
    batch = {"jobs": [{"name": world.executor, "queue": world.queue, "key": f"job-{n}"} for n in range(3)]}
    made = site.call("POST", "/jobs", "spawner", batch)
    ids = [each["id"] for each in made.json()["jobs"]]
    assert (201, 3) == (made.status_code, len(set(ids)))
    again = site.call("POST", "/jobs", "spawner", batch).json()["jobs"]
    assert [(each, False) for each in ids] == [(each["id"], each["created"]) for each in again]

    unknown = "01890000-0000-7000-8000-000000000000"
    assert 404 == site.call("POST", "/jobs/cancel", "spawner", {"ids": [*ids, unknown]}).status_code
    assert ["pending"] * 3 == [site.get(f"/jobs/{each}").json()["state"] for each in ids]
    done = site.call("POST", "/jobs/cancel", "spawner", {"ids": ids, "reason": "clouds"}).json()["jobs"]
    assert dict.fromkeys(ids, "cancelled") == {each["id"]: each["state"] for each in done}
    assert 409 == site.call("POST", "/jobs/rerun", "spawner", {"ids": [*ids, str(world.keyed)]}).status_code
    rerun = site.call("POST", "/jobs/rerun", "spawner", {"ids": ids}).json()["jobs"]
    assert {"pending"} == {each["state"] for each in rerun}
    assert 422 == site.call("POST", "/jobs", "spawner", {"jobs": []}).status_code


def test_a_job_tells_what_it_has_made(site: Site, night: Observed) -> None:
    """Its products, and all that is behind them."""
    made = [*night.images, night.mosaic, night.table]
    [listed] = [each for each in site.get("/jobs").json()["items"] if each["id"] == str(night.task)]

    assert made == listed["products"] == site.get(f"/jobs/{night.task}").json()["products"]
    found = site.get(f"/jobs/{night.task}/provenance").json()
    assert ("imaging.image", made) == (found["name"], [each["id"] for each in found["products"]])


def test_a_file_holds_what_was_observed_then(site: Site, night: Observed, tmp_path: Path) -> None:
    """And nothing of what is not in it; it can be read alone, is written anew as a whole, and nothing else is."""
    path = tmp_path / "hour.sqlite"
    since, until = datetime(2026, 3, 1, 5, tzinfo=UTC), datetime(2026, 3, 1, 6, tzinfo=UTC)
    counts = write_product_file(path, reading(site), since=since, until=until)

    assert (1, 1, 2, 1) == tuple(counts[name] for name in ("product", "photometry", "qa_result", "source"))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        open_product_file(path).execute("delete from product")
    assert 4 == write_product_file(path, reading(site))["photometry"]
    assert [path] == list(tmp_path.iterdir())
    for content in (b"", b"no file of products"):
        other = tmp_path / "other"
        other.write_bytes(content)
        with pytest.raises(InvalidInputError, match="no file of products"):
            write_product_file(other, reading(site))
        assert content == other.read_bytes()
