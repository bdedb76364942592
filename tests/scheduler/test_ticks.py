"""Schedules come true: once for each time due, whoever fires them, whatever else goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from schedules import START, demo_schedule, fired, reached, running

from absurd.config import Settings
from absurd.scheduler import ticker
from absurd.scheduler.daemon import Scheduler
from absurd.testing import FakeClock

Connection = psycopg.Connection[tuple[Any, ...]]


def times(*texts: str) -> list[datetime]:
    return [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in texts]


async def test_fires_when_due(settings: Settings, connection: Connection, clock: FakeClock) -> None:
    """A schedule of plain SQL spawns its task with params, options, and where it comes from, in queue and time."""
    demo_schedule(
        connection, "s", "0 * * * *", params={"a": 1}, queue="night", options={"priority": 7, "headers": {"x": 1}}
    )
    async with running(Scheduler(settings)):
        await reached(connection, "select next_due is not null from schedule")
        clock.set(START + timedelta(minutes=30))
        await reached(connection, "select count(*) = 1 from tick")

    (task,) = connection.execute("select get_task(task_id) from tick").fetchone() or ({},)
    assert (task["queue"], task["name"], task["params"], task["priority"]) == ("night", "bare.add", {"a": 1}, 7)
    assert task["headers"] == {"x": 1, "schedule": "s", "due_at": "2026-03-02T12:00:00+00:00"}
    assert task["tags"] == ["schedule:s"]


async def test_two_schedulers_fire_each_time_once(settings: Settings, connection: Connection, clock: FakeClock) -> None:
    """However many schedulers there are, a time due comes once (B89)."""
    for number in range(10):
        demo_schedule(connection, f"s{number}", f"{number} * * * *")
    async with running(*(Scheduler(settings) for _ in range(4))):
        await reached(connection, "select bool_and(next_due is not null) from schedule")
        for hour in range(1, 4):
            clock.set(START + timedelta(hours=hour))
            await reached(connection, f"select count(*) = {10 * hour} from tick")

    assert fired(connection, "s3") == times("2026-03-02 12:03", "2026-03-02 13:03", "2026-03-02 14:03")
    assert connection.execute("select count(distinct task_id), count(*) from tick").fetchone() == (30, 30)
    assert connection.execute("select pending from get_queue_stats('default')").fetchone() == (30,)


async def test_a_scheduler_that_leads_hands_over(settings: Settings, connection: Connection, clock: FakeClock) -> None:
    """One leads; when it ends another does at once, and when it vanishes others fire all the same (B90)."""
    demo_schedule(connection, "s", "0 * * * *")
    first, second = Scheduler(settings), Scheduler(settings)
    leader = "from leader where role = 'scheduler'"
    second_leads = f"select count(*) = 1 {leader} and holder = '{second.name}'"
    async with running(second):
        async with running(first):
            await reached(connection, f"select count(*) = 1 {leader}")
        await reached(connection, second_leads)
        vanishing = "update leader set holder = 'vanished', until = %s where role = 'scheduler'"
        connection.execute(vanishing, [START + timedelta(minutes=31.4)])
        clock.set(START + timedelta(minutes=31))
        await reached(connection, "select count(*) = 1 from tick")
        assert connection.execute(f"select holder {leader}").fetchone() == ("vanished",)
        clock.set(START + timedelta(minutes=40))
        await reached(connection, second_leads)
    assert connection.execute("select count(*) from leader").fetchone() == (0,)


async def test_a_clock_that_steps_fires_nothing_twice(
    settings: Settings, connection: Connection, clock: FakeClock
) -> None:
    """Set back, the clock comes to a time due again, and nothing more comes of it; set ahead, nothing is lost (B91)."""
    demo_schedule(connection, "s", "0 * * * *", misfire="all")
    demo_schedule(connection, "later", "every 1h")
    async with running(Scheduler(settings)):
        await reached(connection, "select bool_and(next_due is not null) from schedule")
        clock.set(START + timedelta(minutes=45))
        await reached(connection, "select count(*) = 1 from tick")
        clock.set(START + timedelta(minutes=20))
        clock.set(START + timedelta(minutes=31))
        clock.set(START + timedelta(hours=3, minutes=31))
        await reached(
            connection, "select count(*) = 4 from tick t join schedule s on s.id = t.schedule_id and name = 's'"
        )

    assert fired(connection, "s") == times(
        "2026-03-02 12:00", "2026-03-02 13:00", "2026-03-02 14:00", "2026-03-02 15:00"
    )


@pytest.mark.parametrize(
    ("misfire", "made_up"),
    [("skip", []), ("once", [12]), ("all", [16, 20, 0, 4, 8, 12]), ("last 2", [8, 12])],
)
async def test_what_was_missed_is_made_up_for_by_the_policy(
    settings: Settings, connection: Connection, clock: FakeClock, misfire: str, made_up: list[int]
) -> None:
    """Of a schedule for every four hours, with no scheduler for 25: none, the last, all, or the last two (B92)."""
    demo_schedule(connection, "s", "0 */4 * * *", misfire=misfire, look_back=86400)
    clock.set(START + timedelta(hours=25))
    async with running(Scheduler(settings)):
        await reached(connection, "select next_due > clock_time() from schedule")

    assert [due.hour for due in fired(connection, "s")] == made_up
    skipped = connection.execute("select sum(missed) from tick where skipped = 'misfire'").fetchone()
    assert skipped == (7 - len(made_up),)


async def test_a_restart_within_the_minute_fires_nothing_twice(
    settings: Settings, connection: Connection, clock: FakeClock
) -> None:
    """A scheduler that starts just after another has fired does not fire again (B93)."""
    demo_schedule(connection, "s", "0 * * * *")
    clock.set(START + timedelta(minutes=30, seconds=10))
    for _ in range(3):
        async with running(Scheduler(settings)):
            await reached(connection, "select next_due > clock_time() from schedule")

    assert fired(connection, "s") == times("2026-03-02 12:00")


async def test_a_new_schedule_owes_nothing(settings: Settings, connection: Connection, clock: FakeClock) -> None:
    """What would have been due before it was made or changed, or while it was paused, never comes (B94, B95)."""
    demo_schedule(connection, "s", "0 * * * *", misfire="all")
    async with running(Scheduler(settings)):
        await reached(connection, "select next_due is not null from schedule")
        connection.execute("select set_schedule_paused('s', true)")
        clock.set(START + timedelta(hours=5))
        connection.execute("select set_schedule_paused('s', false)")
        await reached(connection, "select next_due > clock_time() from schedule")
        assert fired(connection, "s") == []
        demo_schedule(connection, "s", "15 * * * *", misfire="all")
        await reached(connection, "select next_due > clock_time() from schedule")
        clock.set(START + timedelta(hours=6))
        await reached(connection, "select count(*) = 1 from tick")
        assert connection.execute("select count(*) from schedule").fetchone() == (1,)
        connection.execute("select remove_schedule('s')")
        clock.set(START + timedelta(hours=9))
        demo_schedule(connection, "other", "0 * * * *")
        await reached(connection, "select next_due is not null from schedule")

    assert connection.execute("select count(*) from tick").fetchone() == (0,)
    assert connection.execute("select pending from get_queue_stats('default')").fetchone() == (1,)


async def test_zones_are_each_schedule_s_own(settings: Settings, connection: Connection, clock: FakeClock) -> None:
    """Half past three in the night is another instant in each zone, also where the clock skips it (B96)."""
    clock.set(datetime(2026, 3, 28, 12, tzinfo=UTC))
    demo_schedule(connection, "berlin", "30 2 * * *", zone="Europe/Berlin")
    demo_schedule(connection, "tokyo", "30 2 * * *", zone="Asia/Tokyo")
    async with running(Scheduler(settings)):
        await reached(connection, "select bool_and(next_due is not null) from schedule")
        clock.set(datetime(2026, 3, 29, 1, 0, 1, tzinfo=UTC))
        await reached(connection, "select bool_and(next_due > clock_time()) from schedule")

    assert fired(connection, "berlin") == times("2026-03-29 01:00")
    assert fired(connection, "tokyo") == times("2026-03-28 17:30")


def test_who_fires_in_an_open_transaction_is_waited_for(
    connection: Connection, clock: FakeClock, database_url: str
) -> None:
    """Another that fires the same waits for it: it finds it done, or does it if the first has died (B98)."""
    demo_schedule(connection, "s", "0 * * * *")
    due = START + timedelta(minutes=30)
    clock.set(due)
    fire = "select fire_schedule(id, version, array[%s], '{null}', '{1}', %s, 'infinity') from schedule"
    with psycopg.connect(database_url, options="-c search_path=absurd") as dies:
        assert dies.execute(fire, [due, due]).fetchone() == (1,)
        dies.rollback()
    assert connection.execute(fire, [due, due]).fetchone() == (1,)
    assert connection.execute(fire, [due, due]).fetchone() == (None,)
    assert fired(connection, "s") == [due]


def test_nothing_fires_ahead_of_its_time(connection: Connection, clock: FakeClock) -> None:
    """A scheduler that errs about the time is refused by the database's clock."""
    demo_schedule(connection, "s", "0 * * * *")
    due = START + timedelta(minutes=30)
    with pytest.raises(psycopg.Error, match="not due before"):
        connection.execute(
            "select fire_schedule(id, version, array[%s], '{null}', '{1}', %s, 'infinity') from schedule", [due, due]
        )


def test_what_was_reckoned_before_a_change_is_refused(connection: Connection, clock: FakeClock) -> None:
    """A scheduler that has read an older version of a schedule, or one that is paused now, fires nothing (B95)."""
    demo_schedule(connection, "s", "0 * * * *")
    clock.set(START + timedelta(hours=1))
    due = START + timedelta(minutes=30)
    fire = "select fire_schedule(id, %s, array[%s], '{null}', '{1}', %s, 'infinity') from schedule"
    connection.execute("select set_schedule_paused('s', true)")
    assert connection.execute(fire, [1, due, due]).fetchone() == (None,)
    assert connection.execute(fire, [2, due, due]).fetchone() == (None,)
    connection.execute("select set_schedule_paused('s', false)")
    assert connection.execute(fire, [2, due, due]).fetchone() == (None,)
    assert fired(connection, "s") == []


async def test_one_broken_schedule_stops_no_other(settings: Settings, connection: Connection, clock: FakeClock) -> None:
    """A trigger that nobody can read, and a task that cannot be spawned, are told; all others fire (B100)."""
    demo_schedule(connection, "a-unreadable", "61 * * * *")
    demo_schedule(connection, "b-unspawnable", "0 * * * *", options={"lane": "x"}, queue="q")
    demo_schedule(connection, "c", "0 * * * *")
    connection.execute("update schedule set queue = '?' where name = 'b-unspawnable'")
    async with running(Scheduler(settings), Scheduler(settings)):
        await reached(connection, "select count(*) = 2 from schedule where next_due is not null")
        clock.set(START + timedelta(minutes=31))
        await reached(connection, "select count(*) = 2 from tick")

    assert fired(connection, "c") == times("2026-03-02 12:00")
    (status,) = connection.execute("select get_status()").fetchone() or ({},)
    assert [each["message"] for each in status["problems"] if each["code"] == "schedule_failed"] == [
        "when schedule a-unreadable is due cannot be reckoned: '61' is no minute of a cron text: it goes from 0 to 59"
    ]
    (tick,) = connection.execute("select list_ticks('b-unspawnable')").fetchone() or ({},)
    assert tick["skipped"] == "error"
    assert tick["detail"].startswith("queue name '?' is not valid")


def test_status_tells_that_nobody_fires(connection: Connection, clock: FakeClock) -> None:
    """When schedules have been due for more than a minute, with the way out; paused ones do not count."""
    for name in ("a", "b", "c"):
        connection.execute(
            'select set_schedule(%s, \'{"trigger": "0 * * * *", "executor": "bare.add"}\', %s)',
            [name, START + timedelta(minutes=30)],
        )
    connection.execute("select set_schedule_paused('a', true)")
    clock.set(START + timedelta(minutes=31.5))

    (status,) = connection.execute("select get_status()").fetchone() or ({},)
    (told,) = [each for each in status["problems"] if each["code"] == "schedules_overdue"]
    assert told["message"].startswith("schedule b has been due since 2026-03-02 12:00:00")
    assert told["message"].endswith("and no scheduler fires it, nor 1 more")
    assert told["action"].startswith("absurd-scheduler;")


async def test_start_and_end_bound_what_is_due(settings: Settings, connection: Connection, clock: FakeClock) -> None:
    """Both instants are among what may be due; nothing before, nothing after, and then it is over."""
    demo_schedule(
        connection, "s", "every 1h", starts_at="2026-03-02T13:00:00Z", ends_at="2026-03-02T15:00:00Z", misfire="all"
    )
    async with running(Scheduler(settings)):
        await reached(connection, "select next_due is not null from schedule")
        clock.set(START + timedelta(hours=9))
        await reached(connection, "select next_due = 'infinity' from schedule")

    assert fired(connection, "s") == times("2026-03-02 13:00", "2026-03-02 14:00", "2026-03-02 15:00")
    (document,) = connection.execute("select get_schedule('s')").fetchone() or ({},)
    assert (document["over"], document["next_due"]) == (True, None)


async def test_jitter_delays_the_start_and_not_the_tick(
    settings: Settings, connection: Connection, clock: FakeClock
) -> None:
    """The task is spawned at the time due and sleeps for a part of the jitter, the same whoever fires it."""
    demo_schedule(connection, "s", "0 * * * *", jitter=600, misfire="all")
    async with running(Scheduler(settings)):
        await reached(connection, "select next_due is not null from schedule")
        clock.set(START + timedelta(hours=4, minutes=30))
        await reached(connection, "select count(*) = 5 from tick")

    waits = [
        (run_at - due).total_seconds()
        for due, run_at in connection.execute(
            "select k.due_at, t.run_at from tick k join task t on t.id = k.task_id order by 1"
        ).fetchall()
    ]
    assert all(0 <= wait < 600 for wait in waits)
    assert len(set(waits)) == len(waits)


async def test_a_trigger_that_only_another_scheduler_can_read_is_left_to_it(
    settings: Settings, connection: Connection, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where astropy is missing on one host, the scheduler of another fires it."""
    from absurd.scheduler import ticker

    demo_schedule(connection, "s", "0 * * * *")
    able, unable = Scheduler(settings), Scheduler(settings)
    real = ticker.Ticker._settle

    def settle(self: ticker.Ticker, *args: Any) -> Any:
        if self._holder == unable.name:
            raise ImportError("no astropy here")
        return real(self, *args)

    monkeypatch.setattr(ticker.Ticker, "_settle", settle)
    async with running(unable):
        await reached(connection, "select error ~ 'no astropy' from schedule")
        async with running(able):
            clock.set(START + timedelta(minutes=32))
            await reached(connection, "select count(*) = 1 from tick")

    assert connection.execute("select error from schedule").fetchone() == (None,)


def test_ticks_beyond_the_latest_ten_thousand_are_forgotten(connection: Connection, clock: FakeClock) -> None:
    """And never come again: what is settled stays so."""
    demo_schedule(connection, "s", "every 1s")
    connection.execute(
        "insert into tick (schedule_id, due_at, fired_at, skipped)"
        " select id, clock_time() - n * interval '1 s', clock_time(), 'misfire'"
        " from schedule, generate_series(1, 10020) n"
    )

    assert connection.execute("select prune_ticks()").fetchone() == (20,)
    assert connection.execute("select count(*), min(due_at) from tick").fetchone() == (
        10000,
        START - timedelta(seconds=10000),
    )


async def test_an_idle_scheduler_asks_for_little(
    settings: Settings, connection: Connection, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing due it looks after ten seconds, or when something is said; it fires nothing, and makes no rounds."""
    monkeypatch.setattr(ticker, "LONGEST_LOOK", 0.2)
    demo_schedule(connection, "s", "0 * * * *")
    connection.execute(f"alter database {connection.info.dbname} set track_functions = 'pl'")
    calls = "select coalesce(sum(calls), 0) {} from pg_stat_user_functions where funcname = '{}'"
    async with running(Scheduler(settings)):
        await reached(connection, calls.format(">= 12", "get_due_schedules"))
    connection.execute("select pg_stat_clear_snapshot()")

    rounds = connection.execute(calls.format("", "maintain")).fetchone() or (0,)
    assert 1 <= rounds[0] <= 6
    assert connection.execute(calls.format("", "fire_schedule")).fetchone() == (0,)
