"""Alerts by plain calls: when one fires, who is told, and what is measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sql_queue import Queue


class Desk:
    """Alerts of a queue, whose clock stands until it is moved."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.seconds = 0
        self.pass_time(0)

    def pass_time(self, seconds: int) -> None:
        self.seconds += seconds
        self.queue.connection.execute(
            "create or replace function clock_time() returns timestamptz language sql stable"
            f" as $$ select timestamptz '2026-11-30 12:00Z' + interval '{self.seconds} s' $$"
        )

    def set(self, name: str = "a", *, hold: float = 0, **rule: Any) -> str:
        rule = {"measure": "queue_depth", "threshold": 0, "queue": "default", "targets": ["night"], "for": hold} | rule
        change: str = self.queue.call("set_alert(%s, %s)", name, json.dumps(rule))
        return change

    def step(self, holder: str = "h", disks: Any = None) -> list[Any]:
        """The messages that are handed out: state, target, attempt."""
        found = self.queue.call("step_alerts(%s, 60, %s)", holder, json.dumps(disks or {}))
        return [(each["state"], each["target"], each["attempt"]) for each in found["notices"]]

    def end(self, error: str | None = None, attempt: int = 1) -> Any:
        last = self.queue.call("max(id) from alert_notice")
        return self.queue.call("end_notice(%s, %s, %s)", last, attempt, error)

    def events(self, name: str = "a") -> list[Any]:
        rows = self.queue.connection.execute("select list_alert_events(%s)", [name]).fetchall()
        return [each for (each,) in rows]

    def measured(self, measure: str, disks: Any = None, **options: Any) -> tuple[Any, Any]:
        rule = {"measure": measure, "threshold": 0} | options
        found = self.queue.call("measure_alert('x', %s, %s)", json.dumps(rule), json.dumps(disks or {}))
        return found["value"], found["subject"]


@pytest.fixture
def desk(queue: Queue) -> Iterator[Desk]:
    queue.connection.execute("delete from schedule")
    return Desk(queue)  # type: ignore[return-value]


def test_it_fires_once_and_recovers_once(desk: Desk) -> None:
    """After the threshold was passed for as long as it says; each state has one event, and one message for a target."""
    assert ["created", "unchanged", "changed"] == [desk.set(), desk.set(), desk.set(hold=60, targets=["a", "b"])]
    assert [] == desk.step()
    desk.queue.spawn()
    assert [] == desk.step()
    desk.pass_time(59)
    assert [] == desk.step()
    desk.pass_time(1)
    assert [("firing", "a", 1), ("firing", "b", 1)] == desk.step()
    assert [[], []] == [desk.step(), desk.step()]
    lease, tasks, _ = desk.queue.claim()
    assert [("recovered", "a", 1), ("recovered", "b", 1)] == desk.step()
    assert [] == desk.step()
    desk.queue.complete(lease, *tasks)
    assert ["recovered", "firing"] == [each["state"] for each in desk.events()]
    assert "queue_depth of queue default is 1 task; the most is 0 tasks" == desk.events()[1]["message"]


def test_a_short_passing_does_not_fire(desk: Desk) -> None:
    """The time counts anew each time."""
    desk.set(hold=60)
    for _ in range(2):
        task = desk.queue.spawn()
        desk.step()
        desk.pass_time(59)
        desk.step()
        desk.queue.call("cancel_task(%s)", task)
        desk.step()
        desk.pass_time(59)
    assert [] == desk.events()


def test_a_silence_holds_back_what_begins_to_fire(desk: Desk) -> None:
    """It is told when the silence ends if it fires then still; the recovery of what was told is told, silent or not."""
    desk.set()
    desk.queue.call("silence_alert('a', 60, 'clouds')")
    task = desk.queue.spawn()
    assert [] == desk.step()
    assert [True] == [each["silenced"] for each in desk.events()]
    desk.queue.call("cancel_task(%s)", task)
    assert [] == desk.step()

    task = desk.queue.spawn()
    assert [] == desk.step()
    desk.pass_time(60)
    assert [("firing", "night", 1)] == desk.step()
    desk.end()
    desk.queue.call("silence_alert('a', 60)")
    desk.queue.call("cancel_task(%s)", task)
    assert [("recovered", "night", 1)] == desk.step()
    silent = desk.queue.call("silence_alert('a', 0)")
    assert (None, False) == (silent["silenced_until"], any(each["silenced"] for each in desk.events()[:2]))


def test_what_cannot_be_measured_changes_nothing(desk: Desk) -> None:
    """Neither does it fire nor recover: no image says nothing of noise."""
    desk.set(measure="disk_free", threshold=0.15, folder="/data", queue=None)
    assert [] == desk.step(disks={"/elsewhere": 0.1})
    assert [("firing", "night", 1)] == desk.step(disks={"/data": 0.1})
    assert [] == desk.step()
    assert [("recovered", "night", 1)] == desk.step(disks={"/data": 0.5})
    assert "disk_free of the disk of /data is 50.0 %; the least is 15.0 %" == desk.events()[0]["message"]


def test_one_that_fails_keeps_no_other_from_being_measured(desk: Desk) -> None:
    """It says why, until it can be measured again; what is no number is not known."""
    desk.set("rate", measure="run_seconds", threshold=0)
    desk.set()
    desk.queue.spawn()
    ended = (
        "create or replace function _ended(p_options jsonb, p_since timestamptz)"
        " returns table (state run_state, seconds double precision) language sql stable"
        " as $$ select 'completed'::run_state,"
    )
    desk.queue.connection.execute(f"{ended} 1 / extract(epoch from p_since - p_since)::double precision $$")
    assert [("firing", "night", 1)] == desk.step()
    errors = [each["error"] for (each,) in desk.queue.connection.execute("select list_alerts()")]
    assert [None, "division by zero"] == errors
    desk.queue.connection.execute(f"{ended} 'NaN'::double precision $$")
    assert [] == desk.step()
    found = [(each["error"], each["value"]) for (each,) in desk.queue.connection.execute("select list_alerts()")]
    assert [(None, 1), (None, None)] == found


def test_one_leads_and_another_takes_over(desk: Desk) -> None:
    """Who does not lead is handed nothing; a lead that is left or runs out is taken, and nothing is told again."""
    desk.set()
    desk.queue.spawn()
    assert [("firing", "night", 1)] == desk.step("first")
    assert [] == desk.step("second")
    assert "first" == desk.queue.call("step_alerts('second', 60) ->> 'leader'")
    desk.end()
    desk.queue.call("resign_leader('first')")
    assert [] == desk.step("second")
    desk.pass_time(61)
    assert [] == desk.step("third")
    assert "third" == desk.queue.call("step_alerts('second', 60) ->> 'leader'")
    assert 1 == len(desk.events())


def test_a_message_is_tried_again_until_it_arrives_or_is_given_up(desk: Desk) -> None:
    """Later and later; who was handed it and died is followed by another, and what he tells then counts for nothing."""
    desk.set()
    desk.queue.spawn()
    assert [("firing", "night", 1)] == desk.step()
    assert 10 == desk.end("no answer")
    assert [] == desk.step()
    desk.pass_time(10)
    assert [("firing", "night", 2)] == desk.step()
    desk.pass_time(60)
    assert [("firing", "night", 3)] == desk.step()
    assert desk.end(None, attempt=2) is None
    assert ["waiting"] == [each["state"] for each in desk.events()[0]["notices"]]
    waits = [desk.end("no answer", attempt=3)]
    while waits[-1] is not None:
        desk.pass_time(int(waits[-1]))
        ((_, _, attempt),) = desk.step()
        waits.append(desk.end("no answer", attempt=attempt))

    assert [40, 80, 160, 320, 600, 600] == waits[:6]
    assert 20 == attempt
    (notice,) = desk.events()[0]["notices"]
    assert ("given up", "no answer", 20) == (notice["state"], notice["error"], notice["attempts"])
    problems = {each["code"]: each for each in desk.queue.call("get_status()")["problems"]}
    assert "no answer" in problems["alert_undelivered"]["message"]
    assert "queue_depth of queue default" in problems["alert_firing"]["message"]
    assert 0 == desk.measured("problems", code="alert_firing")[0]
    desk.pass_time(86_400)
    assert [] == desk.step()
    assert "alert_undelivered" not in {each["code"] for each in desk.queue.call("get_status()")["problems"]}


def test_the_latest_thousand_events_are_kept(desk: Desk) -> None:
    """With their messages."""
    desk.set()
    desk.queue.connection.execute(
        "insert into alert_event (alert_id, at, state, threshold, severity, message, silenced)"
        " select id, clock_time(), 'firing', 0, 'warning', '', false from alert, generate_series(1, 1000)"
    )
    desk.queue.call("_notify(min(id), '{x}') from alert_event")
    desk.queue.spawn()
    desk.step()
    assert (1000, 1) == (desk.queue.call("count(*) from alert_event"), desk.queue.call("count(*) from alert_notice"))
    assert desk.queue.call("remove_alert('a')") is True
    assert (0, 0) == (desk.queue.call("count(*) from alert_event"), desk.queue.call("count(*) from alert_notice"))
    assert desk.queue.call("remove_alert('a')") is False


def test_what_queues_hold_is_measured(desk: Desk) -> None:
    """The worst queue, or the one that is named; a paused one waits on purpose."""
    queue = desk.queue
    queue.call("create_queue('other')")
    for _ in range(3):
        queue.spawn()
    desk.pass_time(100)
    queue.call("task_id from spawn_task('other', 'demo.add', '{}', null)")
    assert (3, "queue default") == desk.measured("queue_depth")
    assert (1, "queue other") == desk.measured("queue_depth", queue="other")
    assert (None, None) == desk.measured("queue_depth", queue="none")
    assert (pytest.approx(100, abs=1), "queue default") == desk.measured("queue_age")
    queue.call("set_queue_paused('default', true)")
    assert (0, "queue other") == desk.measured("queue_age")
    queue.call("set_queue_paused('default', false)")
    lease, (first, second, third), _ = queue.claim(3)
    desk.pass_time(30)
    assert (30, "all queues") == desk.measured("run_age")
    assert (None, "all tasks") == desk.measured("failure_rate")
    ages = "array[%s::uuid, %s], '{5000, 7000}', '{1, 1}'"
    queue.call(f"complete_runs(array[%s::bigint, %s], {ages})", lease, lease, first, second)
    queue.call("fail_runs(array[%s::bigint], array[%s::uuid], '{0}', '{null}', '{null}')", lease, third)
    assert (pytest.approx(1 / 3), "all tasks") == desk.measured("failure_rate")
    assert (None, "all tasks") == desk.measured("failure_rate", least=4)
    assert (pytest.approx(1 / 3), "executor demo.add of queue default") == desk.measured(
        "failure_rate", queue="default", executor="demo.add"
    )
    assert (7, "executor demo.add") == desk.measured("run_seconds", executor="demo.add")
    assert None is desk.measured("run_seconds", executor="none")[0]
    assert (1, "queue default") == desk.measured("dead_letters")
    desk.pass_time(4000)
    assert None is desk.measured("failure_rate")[0]
    assert pytest.approx(1 / 3) == desk.measured("failure_rate", window=5000)[0]
    assert 1 <= desk.measured("problems")[0]


def test_messages_have_units(desk: Desk) -> None:
    """Times to the second, whatever they are: what passes a threshold mostly passes it by little."""
    for value, told in ((0.25, "0.25 s"), (3605, "1 h 5 s"), (27_589_793, "319 d 7 h 49 min 53 s"), (86_400, "1 d")):
        assert told == desk.queue.call("_with_unit(%s, 's')", value)
    others = [desk.queue.call("_with_unit(%s, %s)", *each) for each in ((0.004, "Jy/beam"), (0.125, "1"), (1, "tasks"))]
    assert ["4 mJy/beam", "12.5 %", "1 task"] == others


def test_schedules_and_workers_are_measured(desk: Desk) -> None:
    """How late the latest is, how long ago one succeeded, and who is there to work."""
    queue = desk.queue
    assert 0 == desk.measured("schedule_lateness")[0]
    queue.call("set_schedule('s', %s, clock_time())", '{"trigger": "every 60 s", "executor": "demo.add"}')
    desk.pass_time(90)
    assert (90, "schedule s") == desk.measured("schedule_lateness")
    assert (None, "schedule s") == desk.measured("success_age", schedule="s")
    queue.call("trigger_schedule('s')")
    lease, tasks, _ = queue.claim()
    assert None is desk.measured("success_age", schedule="s")[0]
    queue.complete(lease, *tasks)
    desk.pass_time(50)
    assert (50, "schedule s") == desk.measured("success_age", schedule="s")
    queue.connection.execute("update worker set last_seen = clock_time()")
    assert (1, "all queues") == desk.measured("workers")
    assert (0, "queue other") == desk.measured("workers", queue="other")


def test_products_are_measured(desk: Desk) -> None:
    """The age of the newest valid gains, the median noise of images, and what gates have put into quarantine."""
    queue = desk.queue
    task = queue.spawn()
    assert (None, None) == (desk.measured("calibration_age")[0], desk.measured("image_noise")[0])
    gains = {
        "telescope": "t", "path": "/g", "checksum": "0" * 64, "bytes": 9, "kinds": ["gain"], "source": "3C48",
        "observed_from": "2026-11-30T09:50Z", "observed_until": "2026-11-30T10:10Z", "valid_from": "2026-11-30T00:00Z",
        "valid_until": "2026-12-01T00:00Z", "declination": 54.6, "strip": 1, "lowest_hz": 1.28e9, "highest_hz": 1.53e9,
    }  # fmt: skip
    made = queue.call("id from register_gain_set(%s)", json.dumps(gains))
    assert 7200 == desk.measured("calibration_age", telescope="t")[0]
    assert None is desk.measured("calibration_age", telescope="u")[0]
    for number, rms in enumerate((1e-3, 2e-3, 9e-3)):
        queue.connection.execute(
            "with p as (insert into product (kind, path, checksum, bytes, state, task_id, stored_at, decided_at)"
            " values ('image', %s, repeat('0', 64), 9, 'accepted', %s, clock_time(), clock_time()) returning id)"
            " insert into sky_image (product_id, telescope, ra, declination, rms_jy) select id, 't', 1, 2, %s from p",
            [f"/{number}", task, rms],
        )
    assert (2e-3, "images") == desk.measured("image_noise", telescope="t")
    assert None is desk.measured("image_noise", least=4)[0]
    assert 0 == desk.measured("quarantined")[0]
    queue.call("quarantine_gain_set(%s, 'noise')", made)
    queue.call("quarantine_product(max(id), 'noise') from product")
    assert 2 == desk.measured("quarantined")[0]
    desk.pass_time(4000)
    assert (0, None) == (desk.measured("quarantined")[0], desk.measured("image_noise")[0])


@pytest.mark.parametrize(
    ("name", "rule", "state", "told"),
    [
        ("no name", {}, "AB007", "no name"),
        ("a", {"measure": "weather"}, "AB001", "weather.*queue_age"),
        ("a", {"threshold": None}, "AB001", "threshold"),
        ("a", {"threshold": "much"}, "AB001", "threshold"),
        ("a", {"for": -1}, "AB001", "for"),
        ("a", {"severity": "bad"}, "AB001", "severity"),
        ("a", {"folder": "/"}, "AB001", "folder"),
        ("a", {"measure": "disk_free"}, "AB001", "queue"),
        ("a", {"measure": "success_age"}, "AB001", "queue"),
        ("a", {"targets": ["https://geheim"]}, "AB001", "targets(?!.*geheim)"),
        ("a", {"measure": "failure_rate", "window": 0}, "AB001", "window"),
        ("a", {"measure": "failure_rate", "least": 1.5}, "AB001", "least"),
    ],
)
def test_what_is_no_alert_is_refused(desk: Desk, name: str, rule: dict[str, Any], state: str, told: str) -> None:
    """By the name of what is wrong; an address in the place of a name is not repeated."""
    with pytest.raises(psycopg.Error, match=told) as caught:
        desk.set(name, **rule)
    assert state == caught.value.sqlstate


def test_an_alert_that_is_not_there_is_told(desk: Desk) -> None:
    """By every call that needs one; a measure of a folder needs it."""
    for sql in ("silence_alert('a', 1)", "measure_alert('a')", "list_alert_events('a')"):
        with pytest.raises(psycopg.Error) as caught:
            desk.queue.call(sql)
        assert "AB022" == caught.value.sqlstate
    with pytest.raises(psycopg.Error, match="folder"):
        desk.queue.call("set_alert('a', %s)", '{"measure": "disk_free", "threshold": 0.1}')
