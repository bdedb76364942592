"""The dashboard without JavaScript: pages, logins and forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from dashboard_pages import FORMS, OPEN, PAGES
from fastapi.testclient import TestClient
from world import World

from absurd.queue import new_task_ids
from absurd.tokens import Scope
from absurd.web.cookie import LOGIN, Signer
from absurd.web.dashboard import ROUTERS
from absurd.web.dashboard.form import local_path

if TYPE_CHECKING:
    from web.conftest import Site

HERE = "http://localhost:8714"
FORM_TOKEN = re.compile(r'name="form_token" value="(\w+)"')


def browser(site: Site, token: str | None = None) -> TestClient:
    """One who has logged in with a token, and follows no redirect by itself."""
    made = TestClient(site.app, HERE, client=("127.0.0.1", 40_000), follow_redirects=False)
    made.portal = site.http.portal  # its event loop is the one of the connections to the database
    if token is not None:
        form_token = FORM_TOKEN.findall(made.get("/login").text)[0]
        answer = made.post("/login", data={"token": token, "form_token": form_token})
        assert 303 == answer.status_code
    return made


def form_token(client: TestClient) -> str:
    """What forms of this login send along."""
    return str(FORM_TOKEN.findall(client.get("/").text)[0])


class Read(HTMLParser):
    """What must hold of every page, whatever is on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.odd: list[str] = []
        self.forms = text.count('method="post"')
        self.form_tokens = text.count('name="form_token"')
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A page's own policy forbids scripts and styles in its text; what is kept live is known by its id."""
        given = dict(attrs)
        if tag == "h1":
            self.headings.append(tag)
        if "id" in given:
            self.ids.append(str(given["id"]))
        if "style" in given or tag == "style" or any(name.startswith("on") for name in given):
            self.odd.append(f"{tag} {given}")
        if (tag == "script" and not str(given.get("src")).startswith("/static/")) or "://" in str(given.get("src")):
            self.odd.append(f"{tag} {given}")
        if "data-live" in given and "id" not in given:
            self.odd.append(f"{tag} without an id")


SKY = """
insert into sky_image (product_id, ra, declination)
    select id, case state when 'accepted' then 359 else 1 end, -89 from product on conflict do nothing;
insert into product_input select max(id), '/a.ms', 'visibilities', null from product;
insert into source (name, ra, declination, found_at) values ('A & B', 10, 50, now());
insert into photometry (source_id, observed_at, image, product_id, name, flux_jy, error_jy, detected, upper_limit_jy,
                        flags)
    select s.id, t, 'image ' || t, 1, 'A', 0.004, 0.001, t <> 'yesterday', 0.003, 0
    from source s, unnest('{-infinity,today,yesterday}'::timestamptz[]) t;
insert into product (kind, path, checksum, bytes, state, task_id, stored_at, decided_at)
    values ('table', '/t.parquet', '1', 9, 'accepted', new_task_id(), now(), now());
insert into variability (product_id, source_id, kind, epochs, detections, reference)
    select p.id, s.id, 'transient', 3, 1, false from source s, product p where p.kind = 'table'
    on conflict do nothing;
"""
"""A source and images of which little is known: near a pole, of no noise, seen once, once it is not told when."""


def test_every_page_and_form_is_tried() -> None:
    """None is forgotten by the tests below."""
    routes = {(route.path, method) for each in ROUTERS for route in each.routes for method in route.methods}

    assert {path for path, method in routes if method == "GET"} - OPEN == set(PAGES)
    assert {path for path, method in routes if method == "POST"} - OPEN == set(FORMS)


def test_every_page_is_whole_without_javascript(site: Site, world: World) -> None:
    """It has one heading and what it shows, holds no script or style in its text, and each form knows its login."""
    site.connection.execute(SKY)
    reader = browser(site, site.tokens["admin"])
    for route, path in PAGES.items():
        answer = reader.get(path(world))
        assert answer.status_code == (303 if route == "/search" else 200), (route, answer.text)
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        page = Read(answer.text)

        assert [] == page.odd, route
        assert ["h1"] == page.headings, route
        assert len(set(page.ids)) == len(page.ids), (route, sorted(page.ids))
        assert page.forms == page.form_tokens > 0, route
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        assert "no-store" in answer.headers["cache-control"]
    found = reader.get(f"/tasks/{world.failed}").text
    assert all(text in found for text in (str(world.failed), world.executor, "failed", "Retry"))
    assert "A &amp; B" in reader.get("/sources").text
    assert reader.get("/search", params={"q": str(world.failed)}).headers["location"] == f"/tasks/{world.failed}"


def test_lists_of_tasks_are_paged_by_their_last(site: Site, world: World) -> None:
    """Nothing is shown twice and nothing left out, whatever filters are set; what is no time or no id is told."""
    reader, place, seen = browser(site, site.tokens["reader"]), f"/tasks?queue={world.queue}.empty", []
    made = new_task_ids(120)
    spawn = "select spawn_tasks(%s::uuid[], array_fill(%s::text, array[120]), array_fill('a.b'::text, array[120]),"
    site.connection.execute(f"{spawn} array_fill('{{}}'::jsonb, array[120]))", [made, world.queue + ".empty"])
    while place:
        text = reader.get(place).text
        seen += re.findall(r'id="task-([0-9a-f-]+)"', text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        place = following[1].replace("&amp;", "&") if following else ""

    assert sorted(map(str, made)) == sorted(seen)
    assert seen == sorted(seen, reverse=True)
    assert "it must be a time" in reader.get("/tasks?since=tomorrow").text
    assert 422 == reader.get("/tasks?after=nothing").status_code
    assert "is unknown" in reader.get("/tasks?state=happy").text


def test_who_is_not_known_is_sent_to_log_in(site: Site, world: World) -> None:
    """And back to what was asked for; a form is refused, a wrong token told, and no page shows anything."""
    nobody = browser(site)
    for path in (each(world) for each in PAGES.values()):
        answer = nobody.get(path)
        assert (303, "/login") == (answer.status_code, urlsplit(answer.headers["location"]).path), path
    back = nobody.get(f"/tasks?queue={world.queue}&state=failed").headers["location"]
    shown = nobody.get(back)
    assert f'value="/tasks?queue={world.queue}&amp;state=failed"' in shown.text
    token = FORM_TOKEN.findall(shown.text)[0]

    wrong = nobody.post("/login", data={"token": "absurd_guess", "form_token": token})
    right = nobody.post("/login", data={"token": site.tokens["reader"], "form_token": token, "back": "/queues"})

    assert (401, True) == (wrong.status_code, "not let in" in wrong.text)
    assert LOGIN not in wrong.cookies
    assert (303, "/queues") == (right.status_code, right.headers["location"])
    assert all(word in right.headers["set-cookie"] for word in ("HttpOnly", "SameSite=lax", "Max-Age=43200"))
    assert site.tokens["reader"] not in right.headers["set-cookie"]
    assert "a-reader · reader" in nobody.get("/queues").text


def test_a_login_ends_with_its_token_its_time_and_the_log_out(site: Site) -> None:
    """And one that was made up, or signed by another server, counts for nothing."""
    site.tokens["brief"] = site.make_token("brief", "reader")
    reader = browser(site, site.tokens["brief"])
    assert 200 == reader.get("/").status_code
    forged = browser(site)
    forged.cookies.set(LOGIN, Signer("x" * 32, 3600).open_login("0" * 64))
    assert 303 == forged.get("/").status_code
    for odd in (b"", b".", b"a.b", b"\xc3\xa9.x", b"\xff.\xff"):
        assert 303 == browser(site).get("/", headers=[(b"Cookie", LOGIN.encode() + b"=" + odd)]).status_code, odd
    left = browser(site, site.tokens["brief"])
    assert 303 == left.post("/logout", data={"form_token": form_token(left)}).status_code
    assert 303 == left.get("/").status_code

    site.connection.execute("select revoke_token('brief')")

    assert 303 == reader.get("/").status_code
    now = [1000.0]
    signer = Signer(None, 60, lambda: now[0])
    login = signer.open_login("a" * 64)
    assert ("a" * 64, None) == (signer.read_login(login), Signer(None, 60, lambda: 1000.0).read_login(login))
    now[0] += 60
    assert signer.read_login(login) is None


def test_a_login_reads_the_interface_of_programs_and_changes_nothing_by_it(site: Site, world: World) -> None:
    """So pages can show its files and hear its events, while a change needs a form of the login."""
    admin = browser(site, site.tokens["admin"])

    assert 200 == admin.get("/api/v1/queues").status_code
    assert 401 == admin.post(f"/api/v1/queues/{world.queue}/pause", headers={"Origin": HERE}).status_code


def test_forms_change_what_rest_changes_and_nobody_else_can_send_them(site: Site, world: World) -> None:
    """Not another site, not without the login's own token, not a scope that may not; the change names who made it."""
    scopes = [each.value for each in Scope]
    clients = {scope: browser(site, site.tokens[scope]) for scope in scopes}
    known = {scope: form_token(clients[scope]) for scope in scopes}
    for route, form in FORMS.items():
        path, client = form.path(world), clients[form.scope]
        fields = {**form.fields, "form_token": known[form.scope]}
        below = scopes[scopes.index(form.scope) - 1]
        refused = [
            client.post(path, data=fields, headers={"Origin": "https://evil.example.org"}),
            client.post(path, data=fields, headers={"Origin": "null"}),
            client.post(path, data={**form.fields, "other": "x"}),
            client.post(path, data=fields | {"form_token": known["admin"]}),
            client.post(path, data=fields | {"form_token": "\u00e9"}),
            clients[below].post(path, data=fields | {"form_token": known[below]}),
        ]
        assert [403] * len(refused) == [each.status_code for each in refused], route
        assert 422 == client.post(path, json=fields).status_code, route
        before = site.connection.execute("select count(*) from change").fetchone()

        done = client.post(path, data=fields | {"back": "/queues"}, headers={"Origin": HERE})

        assert (303, "/queues") == (done.status_code, done.headers["location"]), (route, done.text)
        assert 'class="told"' in client.get("/queues").text, route
        assert 'class="told"' not in client.get("/queues").text, route
        after = site.connection.execute("select count(*) from change").fetchone()
        assert before is not None
        assert after == (before[0] + 1,), route
        last = site.connection.execute("select list_changes(p_limit => 1)").fetchall()[0][0]
        assert (f"a-{form.scope}", form.action, "127.0.0.1") == (last["actor"], last["action"], last["address"])
    limits = site.connection.execute("select limits from list_queues() where name = %s", [world.queue]).fetchone()
    assert limits is not None
    assert {"running": 5, "rate": 100, "rate_seconds": 60} == limits[0]


@pytest.mark.parametrize(
    "given", ["//evil.example.org", "/\\evil.example.org", "https://evil.example.org", "evil", "", "/a\r\nb", None]
)
def test_a_form_leads_to_pages_of_this_site_alone(given: str | None) -> None:
    """Whatever it says where it came from."""
    assert "/tasks" == local_path(given, "/tasks")


@pytest.mark.parametrize(("path", "status", "text"), [("/nowhere", 404, "no such page"), ("/tasks/x", 422, "task_id")])
def test_people_are_told_of_errors_by_pages(site: Site, path: str, status: int, text: str) -> None:
    """And programs by JSON, of the same routes' mistakes."""
    found = browser(site, site.tokens["reader"]).get(path)

    assert (status, "text/html; charset=utf-8") == (found.status_code, found.headers["content-type"])
    assert text in found.text
    assert "application/json" == site.get(path).headers["content-type"]


def test_behind_a_proxy_that_encrypts_cookies_are_for_encrypted_connections_alone(
    open_site: Callable[..., Site], site: Site
) -> None:
    """Where the proxy is one of ours; anybody else's word for it counts for nothing."""
    for proxies, wanted in (("127.0.0.1", True), ("192.0.2.1", False)):
        here = open_site(web_proxies=proxies)
        client = browser(here)
        passed_on = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        token = FORM_TOKEN.findall(client.get("/login", headers=passed_on).text)[0]
        data = {"token": site.tokens["reader"], "form_token": token}

        answer = client.post("/login", data=data, headers=passed_on)

        assert wanted == ("Secure" in answer.headers["set-cookie"])
