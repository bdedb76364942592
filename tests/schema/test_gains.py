"""Gain sets: one is valid of a recording, whoever registers when, and only valid ones are found."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from sessions import Session
from sql_queue import Queue

NOON = "2026-03-01T12:00Z"


def gain_set(path: str = "/g/1", *, hours: float = 0.0, checksum: str = "0", **changes: Any) -> str:
    """What is registered of a recording of five minutes, so many hours after noon."""
    start = f"2026-03-01T{12 + int(hours):02}:{round(hours % 1 * 60):02}"
    told = {
        "telescope": "DSA-110", "path": path, "checksum": checksum * 64, "bytes": 9, "kinds": ["bandpass", "gain"],
        "source": "3C48", "ra": 24.4, "declination": 54.6, "strip": 1, "lowest_hz": 1.28e9, "highest_hz": 1.53e9,
        "observed_from": f"{start}:00Z", "observed_until": f"{start}:59Z", "valid_from": "2026-03-01T00:00Z",
        "valid_until": "2026-03-02T23:00Z", "quality": {"snr": 20}, "provenance": {"ms": "a.ms"},
    }  # fmt: skip
    return json.dumps(told | changes)


def register(queue: Queue | Session, told: str, state: str = "valid") -> dict[str, Any]:
    row: dict[str, Any] = queue.call("to_jsonb(r) from register_gain_set(%s, %s) r", told, state)
    return row


def states(queue: Queue) -> dict[str, str]:
    rows = queue.connection.execute("select path, state from gain_set order by id").fetchall()
    return {str(path): str(state) for path, state in rows}


def found(queue: Queue, at: str = NOON, declination: float = 54.6, limit: int = 3) -> list[str]:
    rows = queue.connection.execute(
        "select r ->> 'path' from find_gain_sets('DSA-110', %s, %s, %s) r", [at, declination, limit]
    ).fetchall()
    return [str(path) for (path,) in rows]


def refusal(queue: Queue, sql: str, *args: Any) -> tuple[str | None, str]:
    with pytest.raises(psycopg.Error) as caught:
        queue.call(sql, *args)
    return caught.value.sqlstate, caught.value.diag.message_primary or ""


def test_a_set_that_is_registered_is_found(queue: Queue) -> None:
    """With all that was told of it; its age is counted from the middle of the recording."""
    made = register(queue, gain_set())

    (document,) = (r for (r,) in queue.connection.execute("select find_gain_sets('DSA-110', %s, 54.6)", [NOON]))

    assert (made["state"], made["created"], made["superseded"]) == ("valid", True, [])
    assert document == queue.call("get_gain_set(%s)", made["id"])
    assert {key: document[key] for key in ("quality", "provenance", "kinds", "declination")} == {
        "quality": {"snr": 20}, "provenance": {"ms": "a.ms"}, "kinds": ["bandpass", "gain"], "declination": 54.6,
    }  # fmt: skip
    assert queue.call("(get_gain_set(%s) ->> 'observed_at')::timestamptz = '2026-03-01T12:00:29.5Z'", made["id"])
    assert queue.call("get_gain_set(77)") is None


def test_registering_again_changes_nothing(queue: Queue) -> None:
    """The same folder and content is the same set, in whatever state it has come to: also quarantined."""
    first = register(queue, gain_set())
    assert register(queue, gain_set()) == {"id": first["id"], "state": "valid", "created": False, "superseded": []}
    register(queue, gain_set("/g/2"))
    assert register(queue, gain_set())["state"] == "superseded"
    queue.call("quarantine_gain_set(%s, 'noise')", first["id"])
    assert register(queue, gain_set())["state"] == "quarantined"
    assert register(queue, gain_set(), "candidate")["state"] == "quarantined"
    assert states(queue) == {"/g/1": "quarantined", "/g/2": "valid"}


def test_what_it_holds_for_is_what_was_told_last(queue: Queue) -> None:
    """The times and the strip do not follow from its content; of a quarantined set nothing changes."""
    number = register(queue, gain_set())["id"]

    again = register(queue, gain_set(valid_until="2026-03-05T00:00Z", strip=4))

    assert again == {"id": number, "state": "valid", "created": False, "superseded": []}
    row = queue.call("get_gain_set(%s)", number)
    assert (row["strip"], row["valid_until"][:10]) == (4, "2026-03-05")
    assert (
        refusal(queue, "count(*) from register_gain_set(%s)", gain_set(valid_until="2026-03-01T12:00Z"))[0] == "AB001"
    )
    queue.call("quarantine_gain_set(%s, 'noise')", number)
    assert register(queue, gain_set())["state"] == "quarantined"
    assert queue.call("get_gain_set(%s)", number)["strip"] == 4


def test_a_wider_strip_may_have_rivals(queue: Queue) -> None:
    """One valid set of a recording is left: the one registered later; narrowed again, both are valid."""
    register(queue, gain_set("/one"))
    register(queue, gain_set("/two", declination=56.6))

    register(queue, gain_set("/two", declination=56.6, strip=4))
    assert states(queue) == {"/one": "superseded", "/two": "valid"}
    register(queue, gain_set("/two", declination=56.6))
    assert states(queue) == {"/one": "valid", "/two": "valid"}
    register(queue, gain_set("/one", strip=4))
    assert states(queue) == {"/one": "superseded", "/two": "valid"}


def test_without_a_quarantined_set_the_one_before_it_is_valid(queue: Queue) -> None:
    """The latest of those that it had superseded and that has not been quarantined; none where another is valid."""
    numbers = {path: register(queue, gain_set(path))["id"] for path in ("/one", "/two", "/three")}
    assert states(queue) == {"/one": "superseded", "/two": "superseded", "/three": "valid"}

    queue.call("quarantine_gain_set(%s, 'noise')", numbers["/two"])
    assert states(queue) == {"/one": "superseded", "/two": "quarantined", "/three": "valid"}
    queue.call("quarantine_gain_set(%s, 'noise')", numbers["/three"])

    assert states(queue) == {"/one": "valid", "/two": "quarantined", "/three": "quarantined"}
    assert queue.call("get_gain_set(%s) -> 'superseded_by'", numbers["/one"]) is None
    candidate = register(queue, gain_set("/four"), "candidate")["id"]
    queue.call("quarantine_gain_set(%s, 'noise')", candidate)
    assert states(queue)["/one"] == "valid"


def test_without_a_forgotten_set_the_one_before_it_is_valid(queue: Queue) -> None:
    """Where it was valid, the latest that it had superseded; others that are forgotten change nothing."""
    numbers = {path: register(queue, gain_set(path))["id"] for path in ("/one", "/two", "/three", "/four")}
    queue.call("quarantine_gain_set(%s, 'noise')", numbers["/three"])

    queue.call("forget_gain_set(%s)", numbers["/four"])
    assert states(queue) == {"/one": "superseded", "/two": "valid", "/three": "quarantined"}
    assert found(queue) == ["/two"]
    queue.call("forget_gain_set(%s)", numbers["/three"])
    queue.call("forget_gain_set(%s)", numbers["/one"])
    assert states(queue) == {"/two": "valid"}
    register(queue, gain_set("/five"))
    queue.call("forget_gain_set(%s)", numbers["/two"])
    assert states(queue) == {"/five": "valid"}


def test_a_later_set_of_the_recording_supersedes(queue: Queue) -> None:
    """By overlapping time, declination and frequencies of one telescope; others are valid beside it."""
    first = register(queue, gain_set())
    others: dict[str, dict[str, Any]] = {
        "/earlier": {"observed_from": "2026-03-01T11:00Z", "observed_until": "2026-03-01T12:00:00Z"},
        "/strip": {"declination": 55.6},
        "/band": {"lowest_hz": 1.53e9, "highest_hz": 1.7e9},
        "/other": {"telescope": "OVRO_MMA"},
    }
    for number, (path, changes) in enumerate(others.items()):
        assert register(queue, gain_set(path, checksum=str(number), **changes))["superseded"] == []

    second = register(queue, gain_set("/g/2", declination=54.2, lowest_hz=1.4e9))

    assert second["superseded"] == [first["id"]]
    assert states(queue)["/g/1"] == "superseded"
    assert list(states(queue).values()).count("valid") == 5
    assert queue.call("superseded_by from gain_set where id = %s", first["id"]) == second["id"]


def test_the_database_holds_it_whatever_writes(queue: Queue) -> None:
    """Two valid sets of one recording are refused by a constraint, not only by the functions."""
    first, second = register(queue, gain_set()), register(queue, gain_set("/g/2"))

    with pytest.raises(psycopg.errors.ExclusionViolation):
        queue.connection.execute(
            "update gain_set set state = 'valid', superseded_by = null where id = %s", [first["id"]]
        )
    assert states(queue) == {"/g/1": "superseded", "/g/2": "valid"}
    assert second["state"] == "valid"


def test_many_that_register_at_once_leave_one(sessions: Callable[[], Session], queue: Queue) -> None:
    """Eight connections, five recordings, again and again: no error, no deadlock, one valid set of each recording."""
    opened = [sessions() for _ in range(8)]
    start = threading.Barrier(len(opened))
    failures: list[BaseException] = []

    def many(number: int, session: Session) -> None:
        try:
            for turn in range(5):
                start.wait(60)
                made = register(
                    session, gain_set(f"/g/{number}/{turn}", hours=turn), "valid" if number % 2 else "candidate"
                )
                session.call("accept_gain_set(%s)", made["id"])
        except BaseException as error:
            failures.append(error)
            start.abort()

    threads = [threading.Thread(target=many, args=each) for each in enumerate(opened)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert failures == []
    rows = queue.connection.execute(
        "select observed_from, count(*), count(*) filter (where state = 'valid'), max(id),"
        " max(id) filter (where state = 'valid'), bool_and(state in ('valid', 'superseded'))"
        " from gain_set group by 1 order by 1"
    ).fetchall()
    assert [row[1:3] for row in rows] == [(8, 1)] * 5
    assert all(row[5] for row in rows)
    assert [row[3] for row in rows] == [row[4] for row in rows], "the one that was registered last"


def test_registering_and_quarantining_at_once_leave_one(sessions: Callable[[], Session], queue: Queue) -> None:
    """As long as a set of a recording is not quarantined, one of them is valid, whoever does what when."""
    opened = [sessions() for _ in range(6)]
    start = threading.Barrier(len(opened))
    failures: list[BaseException] = []

    def many(number: int, session: Session) -> None:
        try:
            for turn in range(6):
                start.wait(60)
                made = register(session, gain_set(f"/g/{number}/{turn}", hours=turn // 3))
                if (number + turn) % 3:
                    session.call("quarantine_gain_set(%s, 'noise')", made["id"])
        except BaseException as error:
            failures.append(error)
            start.abort()

    threads = [threading.Thread(target=many, args=each) for each in enumerate(opened)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert failures == []
    rows = queue.connection.execute(
        "select count(*), count(*) filter (where state = 'valid'),"
        " max(id) filter (where state <> 'quarantined') = max(id) filter (where state = 'valid')"
        " from gain_set group by observed_from"
    ).fetchall()
    assert rows == [(18, 1, True)] * 2


def test_a_registration_waits_for_another_that_has_not_committed(
    sessions: Callable[[], Session], queue: Queue, until: Callable[[Callable[[], object]], None]
) -> None:
    """And supersedes it if it commits, or is alone if it is rolled back."""
    for ends, expected in (
        ("rollback", {"/b": "valid"}),
        ("commit", {"/b": "superseded", "/a": "superseded", "/c": "valid"}),
    ):
        one, two, observer = sessions(), sessions(), sessions()
        one.begin()
        register(one, gain_set("/a"))
        path = "/b" if ends == "rollback" else "/c"
        two.call_later("id from register_gain_set(%s)", gain_set(path))
        until(partial(two.waits, observer))
        one.connection.execute(ends)
        two.result()
        assert states(queue) == expected


def test_a_candidate_is_not_found_until_it_is_accepted(queue: Queue) -> None:
    """Then it supersedes; one that a later set has overtaken is superseded itself."""
    register(queue, gain_set("/old"))
    one, two = (register(queue, gain_set(path), "candidate")["id"] for path in ("/one", "/two"))
    assert found(queue) == ["/old"]

    assert queue.call("accept_gain_set(%s, %s)", two, '{"verdict": "pass"}') == "valid"
    assert found(queue) == ["/two"]
    assert queue.call("get_gain_set(%s) -> 'quality'", two) == {"verdict": "pass"}
    assert queue.call("accept_gain_set(%s)", one) == "superseded"
    assert found(queue) == ["/two"]
    assert queue.call("accept_gain_set(%s)", one) == "superseded", "again, as by a task that runs again"
    assert queue.call("accept_gain_set(%s, null, true)", one) == "valid"
    assert states(queue) == {"/old": "superseded", "/one": "valid", "/two": "superseded"}


def test_a_quarantined_set_is_never_found(queue: Queue) -> None:
    """Nor accepted, but by who says so; the first reason stays."""
    number = register(queue, gain_set())["id"]
    assert queue.call("quarantine_gain_set(%s, 'closure phases of noise', %s)", number, '{"closure": 0.1}') is True
    assert queue.call("quarantine_gain_set(%s, 'else')", number) is False
    assert found(queue) == []
    document = queue.call("get_gain_set(%s)", number)
    assert (document["state"], document["reason"], document["quality"]) == (
        *("quarantined", "closure phases of noise", {"closure": 0.1}),
    )
    state, message = refusal(queue, "accept_gain_set(%s)", number)
    assert (state, message) == ("AB017", f"gain set {number} is quarantined: closure phases of noise")
    assert queue.call("accept_gain_set(%s, null, true)", number) == "valid"
    assert queue.call("get_gain_set(%s) -> 'reason'", number) is None
    assert found(queue) == ["/g/1"]


def test_the_nearest_on_both_sides_come_first(queue: Queue) -> None:
    """Up to the limit before and after, of the strip and of others apart, the nearest first."""
    for hours in range(-6, 7):
        register(queue, gain_set(f"/{hours:+}", hours=hours))
    register(queue, gain_set("/south", hours=0.5, declination=16.1))

    assert found(queue, "2026-03-01T12:10Z", limit=2) == ["/+0", "/south", "/+1", "/-1", "/+2"]
    assert found(queue, "2026-03-01T12:40Z", 16.9, limit=1) == ["/south", "/+1", "/+0"]
    assert found(queue, "2027-03-01T12:40Z", limit=1) == ["/+6", "/south"]


def test_sets_are_listed(queue: Queue) -> None:
    """The latest recording first; of a telescope, a state, a span of time."""
    for hours in (0, 3, 1):
        register(queue, gain_set(f"/{hours}", hours=hours))
    register(queue, gain_set("/other", telescope="VLA"))
    queue.call("quarantine_gain_set(id, 'noise') from gain_set where path = '/1'")

    def listed(*args: Any) -> list[str]:
        named = list(args) + [None] * (4 - len(args))
        rows = queue.connection.execute(
            "select r ->> 'path' from list_gain_sets(%s, %s, %s, %s, 3) r", named
        ).fetchall()
        return [str(path) for (path,) in rows]

    assert listed() == ["/3", "/1", "/other"]
    assert listed("DSA-110") == ["/3", "/1", "/0"]
    assert listed("DSA-110", "quarantined") == ["/1"]
    assert listed("DSA-110", None, "2026-03-01T12:30Z", "2026-03-01T14:00Z") == ["/1"]


def test_a_set_is_forgotten(queue: Queue) -> None:
    """Its row goes; once."""
    number = register(queue, gain_set())["id"]

    assert queue.call("forget_gain_set(%s)", number) is True
    assert queue.call("forget_gain_set(%s)", number) is False
    assert states(queue) == {}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("[]", "must be an object"),
        (gain_set(colour="red"), "no key 'colour'"),
        (gain_set(checksum="x"), "gain_set_checksum_valid"),
        (gain_set(kinds=[]), "gain_set_kinds_known"),
        (gain_set(kinds=["leakage"]), "gain_set_kinds_known"),
        (gain_set(telescope="DSA 110"), "gain_set_telescope_valid"),
        (gain_set(telescope=None), "null value"),
        (gain_set(declination=91), "gain_set_on_sky"),
        (gain_set(strip=0), "gain_set_on_sky"),
        (gain_set(lowest_hz=1.6e9), "gain_set_band"),
        (gain_set(highest_hz="NaN"), "gain_set_band"),
        (gain_set(observed_until="2026-03-01T12:00Z"), "gain_set_times"),
        (gain_set(valid_until="2026-03-01T12:00Z"), "gain_set_times"),
        (gain_set(valid_until="infinity"), "gain_set_times"),
        (gain_set(observed_from="soon"), "timestamp"),
        (gain_set(bytes="many"), "bigint"),
    ],
)
def test_what_is_no_gain_set_is_refused(queue: Queue, told: str, said: str) -> None:
    """By AB001 with what is wrong, and nothing of it is kept."""
    state, message = refusal(queue, "count(*) from register_gain_set(%s)", told)

    assert (state, said in message) == ("AB001", True), message
    assert states(queue) == {}


def test_calls_that_are_wrong_are_refused(queue: Queue) -> None:
    """Unknown numbers by AB016; a quarantine without a reason, another state, and places that are none by AB001."""
    for sql in ("accept_gain_set(7)", "quarantine_gain_set(7, 'noise')", "accept_gain_set(null)"):
        state, message = refusal(queue, sql)
        assert (state, "there is no gain set" in message) == ("AB016", True)
    number = register(queue, gain_set())["id"]
    for sql, args in (
        ("quarantine_gain_set(%s, '')", [number]),
        ("count(*) from register_gain_set(%s, 'superseded')", [gain_set("/x")]),
        ("count(*) from register_gain_set(%s, null)", [gain_set("/x")]),
        ("count(*) from find_gain_sets('DSA-110', null, 1)", []),
        ("count(*) from find_gain_sets('DSA-110', now(), 'NaN')", []),
        ("count(*) from find_gain_sets('DSA-110', 'infinity', 1)", []),
    ):
        assert refusal(queue, sql, *args)[0] == "AB001"


def test_finding_costs_the_same_among_many(queue: Queue) -> None:
    """Years of sets cost a look-up no more blocks than a few levels of the index."""

    def buffers() -> int:
        queue.connection.execute("analyze gain_set")
        row = queue.connection.execute(
            f"explain (analyze, buffers, format json) select * from find_gain_sets('DSA-110', '{NOON}', 54.6)"
        ).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        read: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return read

    register(queue, gain_set())
    register(queue, gain_set("/south", hours=1, declination=16.1))
    found(queue)
    few = buffers()
    queue.connection.execute(
        "insert into gain_set (telescope, path, checksum, bytes, kinds, source, declination, strip, lowest_hz,"
        " highest_hz, observed_from, observed_until, observed_at, valid_from, valid_until, state, registered_at,"
        " decided_at) select telescope, path || n, checksum, bytes, kinds, source, declination, strip, lowest_hz,"
        "  highest_hz, observed_from - n * interval '6 hours', observed_until - n * interval '6 hours',"
        "  observed_at - n * interval '6 hours', valid_from - n * interval '6 hours',"
        "  valid_until - n * interval '6 hours',"
        "  state, registered_at, decided_at from gain_set, generate_series(1, 2000) n"
    )

    many = buffers()

    print(f"blocks: {few} among 2 sets, {many} among 4,002")
    assert many < few + 60
