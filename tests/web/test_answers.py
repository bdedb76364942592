"""What is answered when something is wrong, and what each answer carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from world import World

from absurd import errors, inspection
from absurd.web.pages import docs_page
from absurd.web.problems import STATUSES, status_of

if TYPE_CHECKING:
    from web.conftest import Site

NONE = UUID(int=0)


def test_every_error_has_a_status() -> None:
    """Each family its own, and whatever is not told apart is a mistake of the server's."""
    pairs = {
        errors.InvalidInputError: 422, errors.NotFoundError: 404, errors.ConflictError: 409,
        errors.DatabaseUnavailableError: 503, errors.ExecutionError: 500,
    }  # fmt: skip
    assert pairs == {each: status_of(each("")) for each in pairs}
    assert 404 == status_of(errors.TaskNotFoundError(""))
    assert 503 == status_of(errors.SchemaTooOldError(""))
    assert 422 == status_of(errors.AbsurdError("", sqlstate="22008"))
    assert set(STATUSES.values()) == {401, 403, 404, 409, 413, 422, 429, 500, 503}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", f"/tasks/{NONE}", None, 404, "task_not_found"),
        ("GET", f"/tasks/{NONE}/why", None, 404, "task_not_found"),
        ("GET", f"/tasks/{NONE}/logs", None, 404, "task_not_found"),
        ("GET", f"/tasks/{NONE}/artifacts", None, 404, "task_not_found"),
        ("POST", f"/tasks/{NONE}/cancel", None, 404, "task_not_found"),
        ("POST", f"/tasks/{NONE}/retry", None, 404, "task_not_found"),
        ("GET", f"/workflows/{NONE}", None, 404, "workflow_not_found"),
        ("GET", f"/workflows/{NONE}/graph", None, 404, "workflow_not_found"),
        ("POST", f"/workflows/{NONE}/cancel", None, 404, "workflow_not_found"),
        ("GET", "/queues/none/stats", None, 404, "queue_not_found"),
        ("POST", "/queues/none/pause", None, 404, "queue_not_found"),
        ("PATCH", "/queues/none/limits", {"running": 1}, 404, "queue_not_found"),
        ("GET", "/tasks?queue=none", None, 404, "queue_not_found"),
        ("GET", f"/dead-letters/{NONE}", None, 404, "task_not_found"),
        ("GET", "/schedules/none", None, 404, "schedule_not_found"),
        ("DELETE", "/schedules/none", None, 404, "schedule_not_found"),
        ("GET", "/schedules/none/next", None, 404, "schedule_not_found"),
        ("POST", "/workers/999/drain", None, 404, "worker_not_found"),
        ("GET", "/executors/none", None, 404, "not_found"),
        ("GET", "/nothing", None, 404, "not_found"),
        ("DELETE", "/tasks", None, 405, "invalid_input"),
        ("GET", "/tasks/none", None, 422, "invalid_input"),
        ("GET", "/tasks?limit=501", None, 422, "invalid_input"),
        ("GET", "/tasks?state=odd", None, 422, "invalid_input"),
        ("GET", "/tasks?queue=%00", None, 422, "invalid_input"),
        ("GET", f"/tasks/{NONE}/logs?tail=1&after=1.1.1", None, 422, "invalid_option"),
        ("POST", "/tasks", {"name": "no name!"}, 422, "invalid_name"),
        ("POST", "/tasks", {"name": "a.b", "priority": 20_000}, 422, "invalid_option"),
        ("POST", "/tasks", {"name": "a.b", "colour": "red"}, 422, "invalid_input"),
        ("POST", "/tasks", {"name": "a.b", "depends_on": [str(NONE)]}, 422, "unknown_parent"),
        ("POST", "/tasks", {"name": "a\0b"}, 422, "invalid_input"),
        ("POST", "/tasks", {"name": "a.b", "params": {"text": "\0"}}, 422, "invalid_params"),
        ("POST", "/tasks", {"name": "a.b", "params": "x" * 1_100_000}, 413, "payload_too_large"),
        ("POST", "/tasks", {"name": "a.b", "params": "x" * 5_000_000}, 413, "payload_too_large"),
        ("POST", "/dead-letters/purge", {}, 422, "invalid_input"),
        ("POST", "/dead-letters/purge", {"all": True, "name": "a"}, 422, "invalid_input"),
        ("POST", "/dead-letters/requeue", {"queue": "none"}, 404, "queue_not_found"),
        ("PUT", "/schedules/s", {"trigger": "now and then", "executor": "a.b"}, 422, "invalid_option"),
        ("PUT", "/schedules/s", {"trigger": "every 60 s", "executor": "a.b"}, 422, "unknown_executor"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_shape(
    site: Site, method: str, path: str, body: Any, status: int, code: str
) -> None:
    """Code, sentence and details; and what was refused is not in the record of changes."""
    before = site.connection.execute("select count(*) from change").fetchone()

    found = site.call(method, path, "admin", body)

    assert (status, {"error", "message", "details"}, code) == (
        found.status_code,
        set(found.json()),
        found.json()["error"],
    )
    assert found.json()["message"]
    assert before == site.connection.execute("select count(*) from change").fetchone()


def test_what_the_state_does_not_allow_is_a_conflict(site: Site, world: World) -> None:
    """A task that has not ended cannot be tried once more."""
    found = site.call("POST", f"/tasks/{world.keyed}/retry")

    assert (409, "task_state") == (found.status_code, found.json()["error"])


@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b'"text"', b"[]", b"null", b'{"name": "a.b", "params": "\\ud800"}']
)
def test_a_body_that_is_no_object_is_refused(site: Site, body: bytes) -> None:
    """Whatever it is: broken JSON, broken text, another kind of value, half a character."""
    token = {"Authorization": f"Bearer {site.tokens['admin']}", "Content-Type": "application/json"}

    found = site.http.post("/api/v1/tasks", content=body, headers=token)

    assert 422 == found.status_code
    assert found.json()["error"] in {"invalid_input", "invalid_params"}


def test_a_body_without_a_length_is_read_up_to_the_limit(site: Site) -> None:
    """What comes in pieces is refused once it is too much."""
    token = {"Authorization": f"Bearer {site.tokens['admin']}"}

    found = site.http.post("/api/v1/tasks", content=iter([b" " * 1_000_000] * 6), headers=token)

    assert (413, "payload_too_large") == (found.status_code, found.json()["error"])


def test_values_that_are_refused_are_not_repeated(site: Site) -> None:
    """They may be secret."""
    found = site.call("POST", "/tasks", body={"name": "a.b", "headers": "hunter2"})

    assert (422, False) == (found.status_code, "hunter2" in found.text)


def test_a_mistake_of_our_own_tells_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller learns that it was one; the log has the traceback."""

    def broken() -> None:
        raise RuntimeError("the key of the safe")

    monkeypatch.setattr(inspection, "list_executors", broken)

    found = site.get("/executors")

    assert (500, "internal", {}) == (found.status_code, found.json()["error"], found.json()["details"])
    assert "safe" not in found.text
    assert "the key of the safe" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "scope"), [("/health", None), ("/tasks", "reader"), ("/tasks", None), ("/docs", None)]
)
def test_every_answer_carries_the_headers_of_safety(site: Site, path: str, scope: str | None) -> None:
    """Also those of errors: no framing, no guessing of types, nothing loaded, no address passed on."""
    headers = site.get(path, scope).headers

    assert "nosniff" == headers["x-content-type-options"]
    assert "DENY" == headers["x-frame-options"]
    assert "no-referrer" == headers["referrer-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in headers


def test_secrets_in_params_are_hidden(site: Site, world: World) -> None:
    """In a task, a dead letter and a schedule, as on the command line."""
    body = {"name": world.executor, "queue": world.queue, "params": {"api_key": "hunter2", "size": 3}}
    task = site.call("POST", "/tasks", body=body).json()["id"]
    plan = {"trigger": "every 60 s", "executor": world.executor, "params": {"password": "hunter2"}}
    assert 201 == site.call("PUT", "/schedules/secret", body=plan).status_code

    shown = site.get(f"/tasks/{task}")
    assert {"api_key": "***", "size": 3} == shown.json()["params"]
    for found in (shown, site.get("/schedules/secret"), site.get("/schedules"), site.get("/status")):
        assert "hunter2" not in found.text
    assert 204 == site.call("DELETE", "/schedules/secret").status_code


def test_the_same_key_spawns_once(site: Site, world: World) -> None:
    """201 with the task's place, then 200 with the same id."""
    body = {"name": world.executor, "queue": world.queue, "key": "once"}

    first, second = site.call("POST", "/tasks", body=body), site.call("POST", "/tasks", body=body)

    assert (201, 200) == (first.status_code, second.status_code)
    assert (first.json()["id"], False) == (second.json()["id"], second.json()["created"])
    assert first.headers["location"] == f"/api/v1/tasks/{first.json()['id']}"
    assert 200 == site.http.get(
        first.headers["location"], headers={"Authorization": f"Bearer {site.tokens['reader']}"}
    ).status_code  # fmt: skip


def test_a_published_file_is_served_by_its_hash(site: Site, world: World, tmp_path: Path) -> None:
    """Whole, a part of it, or not again; never another file, a link, or a path that a caller names."""
    [shown] = [each for each in site.get(f"/tasks/{world.completed}/artifacts").json()["items"] if each["sha256"]]
    place = f"/tasks/{world.completed}/artifacts/{shown['sha256']}"

    found = site.get(place)
    assert (200, b"picture", "image/png") == (found.status_code, found.content, found.headers["content-type"])
    assert "a%20picture.png" in found.headers["content-disposition"]
    part = site.get(place, headers={"Range": "bytes=1-3"})
    assert (206, b"ict") == (part.status_code, part.content)
    assert 304 == site.get(place, headers={"If-None-Match": found.headers["etag"]}).status_code
    for odd in ("../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "d" * 64):
        assert 404 == site.get(f"/tasks/{world.completed}/artifacts/{odd}").status_code

    file = Path(shown["path"])
    file.write_bytes(b"another picture")
    assert 409 == site.get(place).status_code
    file.rename(tmp_path / "moved.png")
    assert 404 == site.get(place).status_code
    file.symlink_to(tmp_path / "moved.png")
    assert 404 == site.get(place).status_code
    file.unlink()
    file.write_bytes(b"picture")


def test_the_log_of_a_task_goes_on_where_it_ended(site: Site, world: World) -> None:
    """What `next` gives is what `after` takes, also before more was written."""
    append = "select append_log(array[%s::bigint], array[%s::uuid], %s, %s, %s, '{0}', '{0}', %s, 1000)"
    site.connection.execute(
        append, [world.lease, world.running[1], "{1}", "{4}", "{2}", ['[["stdout", 0, "a\\nb\\n"]]']]
    )
    first = site.get(f"/tasks/{world.running[1]}/logs").json()
    site.connection.execute(append, [world.lease, world.running[1], "{2}", "{2}", "{1}", ['[["stdout", 0, "c\\n"]]']])
    second = site.get(f"/tasks/{world.running[1]}/logs", after=first["next"]).json()

    assert ["a\n", "b\n"] == [each["text"] for each in first["lines"]]
    assert (["c\n"], False) == ([each["text"] for each in second["lines"]], second["more"])
    assert ["c\n"] == [each["text"] for each in site.get(f"/tasks/{world.running[1]}/logs", tail=1).json()["lines"]]
    ended = site.get(f"/tasks/{world.running[1]}/logs", after=second["next"]).json()
    assert ([], second["next"]) == (ended["lines"], ended["next"])


def test_a_workflow_is_told_as_a_graph(site: Site, world: World) -> None:
    """Its nodes, and an edge for each that waits for another."""
    found = site.get(f"/workflows/{world.workflow}/graph").json()

    edges = {(each["parent"], each["child"]) for each in found["edges"]}
    assert (str(world.running[0]), str(world.waits_for_end)) in edges
    assert {each["id"] for each in found["nodes"]} >= {child for _, child in edges}
    assert site.get(f"/workflows/{world.workflow}/graph", nodes=1).json()["complete"] is False


def test_the_page_of_the_description_stands_alone(site: Site) -> None:
    """It names every operation, fetches nothing and runs no script; names in it are text."""
    page = site.get("/docs", None)

    assert 200 == page.status_code
    for methods in site.described["paths"].values():
        assert [each["operationId"] for each in methods.values() if f"id={each['operationId']}>" not in page.text] == []
    assert "<script" not in page.text
    assert "http" not in page.text.replace("http-equiv", "")
    told = json.loads(json.dumps(site.described))
    told["info"]["title"] = "<b>"
    assert "<b>" not in docs_page(told)
