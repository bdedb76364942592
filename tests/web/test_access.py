"""Who is let in, from where, and how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from absurd.tokens import Scope
from absurd.web import throttle
from absurd.web.access import is_loopback
from absurd.web.guard import HEADERS
from absurd.web.throttle import BURST, Throttle

if TYPE_CHECKING:
    from web.conftest import Site

OpenSite = Callable[..., "Site"]
FORWARDED = "X-Forwarded-For"


def from_(site: Site, peer: str, host: str = "http://localhost:8714") -> TestClient:
    """The interface as it is called from another address, or by another name; it is open already."""
    made = TestClient(site.app, host, client=(peer, 40_000))
    made.portal = site.http.portal  # its event loop is the one of the connections to the database
    return made


def test_without_any_token_this_machine_alone_is_let_in(open_site: OpenSite) -> None:
    """By its own names and directly: not from another host, nor through a proxy, nor by a foreign name for here."""
    site = open_site()
    assert 200 == from_(site, "127.0.0.1").get("/api/v1/tasks").status_code
    assert 200 == from_(site, "::1", "http://[::1]:8714").get("/api/v1/tasks").status_code
    posted = from_(site, "127.0.0.1", "http://127.0.0.1:8714").post("/api/v1/tasks", json={"name": "a.b"})
    assert 201 == posted.status_code

    refused = [
        from_(site, "192.0.2.7").get("/api/v1/tasks"),
        from_(site, "127.0.0.1", "http://rebound.example.org").get("/api/v1/tasks"),
        from_(site, "127.0.0.1").get("/api/v1/tasks", headers={"X-Forwarded-For": "127.0.0.1"}),
        from_(site, "127.0.0.1").get("/api/v1/tasks", headers={"Forwarded": "for=127.0.0.1"}),
        from_(site, "127.0.0.1").get("/api/v1/tasks", headers={"Authorization": "Bearer absurd_guess"}),
    ]
    assert [401] * 5 == [each.status_code for each in refused]

    site.make_token("first", "reader")
    assert 401 == from_(site, "127.0.0.1").get("/api/v1/tasks").status_code
    site.connection.execute("select revoke_token('first')")
    assert 200 == from_(site, "127.0.0.1").get("/api/v1/tasks").status_code
    assert ("local",) == site.connection.execute("select list_changes() ->> 'actor'").fetchone()


def test_each_scope_allows_what_those_before_it_do() -> None:
    """Reader, spawner, operator, admin."""
    allowed = {wanted: [each.value for each in Scope if each.allows(wanted)] for wanted in Scope}

    assert ["reader", "spawner", "operator", "admin"] == allowed[Scope.READER]
    assert ["operator", "admin"] == allowed[Scope.OPERATOR]
    assert ["admin"] == allowed[Scope.ADMIN]


def test_a_token_that_is_over_or_revoked_is_not_let_in(site: Site) -> None:
    """From the very next request on."""
    site.tokens["short"] = site.make_token("short", "admin", 3600)
    assert 200 == site.get("/tasks", "short").status_code
    site.connection.execute("update token set created_at = created_at - interval '1 d' where name = 'short'")
    site.connection.execute("update token set expires_at = expires_at - interval '1 d' where name = 'short'")
    assert 401 == site.get("/tasks", "short").status_code
    site.tokens["gone"] = site.make_token("gone", "admin")
    assert 200 == site.get("/tasks", "gone").status_code
    site.connection.execute("select revoke_token('gone')")
    assert 401 == site.get("/tasks", "gone").status_code


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Basic YTpi", "bearer x", "Bearer \u00e9", "Token {}", "{}"]
)
def test_what_is_no_token_is_not_let_in(site: Site, given: str) -> None:
    """Other schemes and broken headers are as good as none."""
    headers = [(b"Authorization", given.format(site.tokens["admin"]).encode("latin-1"))]

    assert 401 == site.http.get("/api/v1/tasks", headers=headers).status_code


def test_a_token_in_the_address_counts_for_nothing(site: Site) -> None:
    """There it would stand in logs and histories."""
    token = site.tokens["admin"]

    assert [401, 401] == [site.get("/tasks", None, **{name: token}).status_code for name in ("token", "access_token")]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 201),
        ("http://localhost:8714", 201),
        ("https://sky.example.org", 201),
        ("https://evil.example.org", 403),
        ("http://localhost:9999", 403),
        ("null", 403),
    ],
)
def test_a_page_of_another_site_cannot_change_anything(
    open_site: OpenSite, site: Site, origin: str | None, status: int
) -> None:
    """Whatever it sends, unless it is listed; programs that are no browser say no origin."""
    here = open_site(web_origins="https://sky.example.org")
    here.tokens = site.tokens
    headers = {"Origin": origin} if origin else {}

    found = here.call("POST", "/tasks", "spawner", {"name": "a.b"}, headers)

    assert status == found.status_code
    listed = origin == "https://sky.example.org"
    assert (origin if listed else None) == found.headers.get("access-control-allow-origin")
    form = here.http.post("/api/v1/tasks", data={"name": "a.b"}, headers=headers)
    assert form.status_code in (401, 403)


def test_a_listed_page_may_ask_what_it_may_send(open_site: OpenSite) -> None:
    """And can read errors too; a page that is not listed is told nothing."""
    site = open_site(web_origins="https://sky.example.org")
    ask = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}

    listed = site.http.options("/api/v1/tasks", headers=ask | {"Origin": "https://sky.example.org"})
    other = site.http.options("/api/v1/tasks", headers=ask | {"Origin": "https://evil.example.org"})

    assert (200, "https://sky.example.org") == (listed.status_code, listed.headers["access-control-allow-origin"])
    assert "access-control-allow-origin" not in other.headers
    refused = site.get("/tasks", None, headers={"Origin": "https://sky.example.org"})
    assert (401, "https://sky.example.org") == (refused.status_code, refused.headers["access-control-allow-origin"])


@pytest.mark.parametrize(
    ("peer", "passed_on", "told"),
    [
        ("192.0.2.7", "203.0.113.9", "192.0.2.7"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "127.0.0.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_only_our_proxies_are_believed(open_site: OpenSite, site: Site, peer: str, passed_on: str, told: str) -> None:
    """Who is behind them is the last address that no proxy of ours has; what others claim is theirs to claim."""
    here = open_site(web_proxies="10.0.0.0/24")
    headers = {"Authorization": f"Bearer {site.tokens['spawner']}", "X-Forwarded-For": passed_on}

    assert 201 == from_(here, peer).post("/api/v1/tasks", json={"name": "a.b"}, headers=headers).status_code

    assert told == site.get("/changes", limit=1).json()["items"][0]["address"]


def test_too_many_requests_are_told_when_to_come_again(open_site: OpenSite, site: Site) -> None:
    """Of each token by itself; who shows no good token is counted by address, and cannot go on guessing."""
    here = open_site(web_rate=0.001)  # one, and then one in a quarter of an hour
    here.tokens = site.tokens

    assert 200 == here.get("/tasks", "reader").status_code
    limited = here.get("/tasks", "reader")
    assert (429, "rate_limited") == (limited.status_code, limited.json()["error"])
    assert 1 <= int(limited.headers["retry-after"]) <= 1000
    assert 200 == here.get("/tasks", "admin").status_code
    assert 200 == here.get("/health", None).status_code
    assert [429, 429] == [here.get("/health", None).status_code, here.get("/tasks", "operator").status_code]
    assert 200 == from_(here, "192.0.2.7").get("/api/v1/health").status_code


def test_only_listed_addresses_may_call(open_site: OpenSite, site: Site) -> None:
    """By REST, a stream or a WebSocket, with whatever token, and whatever address they claim to pass on for."""
    here = open_site(web_allow="127.0.0.0/8 203.0.113.0/24", web_proxies="10.0.0.1")
    token = {"Authorization": f"Bearer {site.tokens['admin']}"}

    def status(peer: str, path: str, **headers: str) -> int:
        return from_(here, peer).get(f"/api/v1{path}", headers=token | headers).status_code

    assert [200, 200] == [status("127.0.0.1", "/tasks"), status("10.0.0.1", "/tasks", **{FORWARDED: "203.0.113.9"})]
    assert [403] * 5 == [
        status("192.0.2.7", "/tasks"),
        status("192.0.2.7", "/health"),
        status("192.0.2.7", "/events?once=true"),
        status("192.0.2.7", "/tasks", **{FORWARDED: "203.0.113.9"}),
        status("10.0.0.1", "/tasks", **{FORWARDED: "203.0.113.9, 192.0.2.7"}),
    ]
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        from_(here, "192.0.2.7").websocket_connect("/api/v1/events", headers=token),
    ):
        pass
    assert (403, "forbidden") == (caught.value.status_code, caught.value.json()["error"])


def test_streams_and_websockets_are_counted_and_told_as_all_else(open_site: OpenSite, site: Site) -> None:
    """429 with Retry-After, and every header of safety, whether they are let in or not."""
    here = open_site(web_rate=0.0005)
    token = {"Authorization": f"Bearer {site.tokens['operator']}"}
    wanted = {name.lower() for name in HEADERS}

    stream = here.http.get("/api/v1/events?once=true", headers=token)
    limited = here.http.get("/api/v1/events?once=true", headers=token)
    with pytest.raises(WebSocketDenialResponse) as caught, here.http.websocket_connect("/api/v1/events", headers=token):
        pass

    assert [200, 429, 429] == [stream.status_code, limited.status_code, caught.value.status_code]
    assert all(int(each.headers["retry-after"]) >= 1 for each in (limited, caught.value))
    assert [set(), set(), set()] == [wanted - set(each.headers) for each in (stream, limited, caught.value)]
    with here.http.websocket_connect(
        "/api/v1/events", headers={"Authorization": f"Bearer {site.tokens['reader']}"}
    ) as socket:
        assert "hello" == socket.receive_json()["topic"]


def test_a_bucket_fills_with_time() -> None:
    """Up to a few seconds' worth; to look takes nothing."""
    now = 0.0
    limit = Throttle(10, lambda: now)
    for _ in range(int(10 * BURST)):
        assert 0.0 == limit.take("a")

    assert pytest.approx(0.1) == limit.take("a")
    assert pytest.approx(0.1) == limit.look("a")
    assert 0.0 == limit.take("b")
    now = 0.1
    assert [0.0, 0.0] == [limit.look("a"), limit.take("a")]
    assert limit.take("a") > 0.0
    now = 1e6
    assert [0.0] * int(10 * BURST) == [limit.take("a") for _ in range(int(10 * BURST))]
    assert limit.take("a") > 0.0
    assert 0.0 == Throttle(None, lambda: now).take("a")


def test_callers_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was not heard of for longest is forgotten."""
    monkeypatch.setattr(throttle, "MOST", 3)
    limit = Throttle(0.1, lambda: 0.0)
    for key in "abcd":
        limit.take(key)

    assert [True, False] == [limit.look("d") > 0, limit.look("a") > 0]


@pytest.mark.parametrize(
    ("host", "here"),
    [(each, True) for each in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]")]
    + [(each, False) for each in ("::", "192.0.2.7", "localhost.example.org", "")],
)
def test_what_is_this_machine_alone(host: str, here: bool) -> None:
    """Loopback addresses and the name for them; all addresses are not."""
    assert here == is_loopback(host)


def test_no_log_line_holds_a_token(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Each request has a line, with whose it was and what came of it, and nothing of what was sent."""
    site.get("/tasks", "reader", queue="secret-name")
    site.get(f"/tasks/{site.tokens['admin']}", "admin")
    site.get(f"/{site.tokens['admin']}", None)

    told = capsys.readouterr().out
    assert 3 == told.count("request_served")
    assert "a-reader" in told
    assert [each for each in (*site.tokens.values(), "secret-name") if each in told] == []
