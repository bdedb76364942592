"""Sessions that are followed live: in the database, from other processes, through outages."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from outage import outage_below, wait_until
from session_files import in_process, line_of
from web.test_serve import served

from absurd import SyncAbsurdClient
from absurd.errors import AbsurdError
from absurd.feed import Heard, follow_sessions
from absurd.tasks.session import SessionManager, live, sealer
from absurd.tasks.session.following import follow

TELLING = """
    import sys
    from absurd import SyncAbsurdClient
    from absurd.tasks.session import SessionManager
    with SyncAbsurdClient.from_env() as client, SessionManager(sys.argv[1], client) as sessions:
        session = sessions.start_session("observation", target="M31")
        for line in sys.stdin:
            sessions.log("INFO", line.strip(), odd=float("nan"), none=None, nul="a\\0b")
            sessions.add_telemetry("temperature", 3.5)
        sessions.add_event("cloud_detected", cover=0.3)
        sessions.end_session(wait=False)
"""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAUSE", 0.01)
    monkeypatch.setattr(live, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(live, "LONGEST_PAUSE", 0.05)


@contextmanager
def events_of(url: str) -> Iterator[Iterator[dict[str, Any]]]:
    """What a server's stream of events tells of sessions from now on."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("GET", "/api/v1/events?topics=session")
    with connection.getresponse() as answer:
        assert answer.status == 200
        lines = (line.removeprefix(b"data: ") for line in iter(answer.readline, b"") if line.startswith(b"data: "))
        assert next(lines) == b"{}\n"  # it has begun
        yield map(json.loads, lines)
    connection.close()


def test_another_process_reads_along(database_url: str, tmp_path: Path) -> None:
    """What is logged in one process reaches a client of the events of another while the session goes on, in a form
    that JSON has; the command prints the same.
    """
    environ = {"ABSURD_DATABASE_URL": database_url, "ABSURD_HOME": str(tmp_path)}
    tail = "from absurd.cli import absurd; absurd()"
    with (
        served(database_url, tmp_path) as (_, url),
        events_of(url) as events,
        in_process(tail, "session", "tail", "--live", "--json", environ=environ) as command,
        in_process(TELLING, tmp_path / "telescope", environ=environ) as telling,
    ):
        assert telling.stdin is not None
        found: list[dict[str, Any]] = []

        def told_until(message: str) -> None:
            while not any(each["value"].get("message", each["value"].get("event")) == message for each in found):
                event = next(events)
                assert (event["topic"], event["state"], event["missed"]) == ("session", "told", 0)
                assert event["id"].partition("_")[0] in ("observation", "idle")
                found.extend(event["entries"])

        for message in ("one", "two"):
            print(message, file=telling.stdin, flush=True)
            told_until(message)
        telling.stdin.close()
        told_until("cloud_detected")
        printed = [json.loads(line_of(command))]
        while printed[-1]["value"].get("event") != "cloud_detected":
            printed.append(json.loads(line_of(command)))
        command.kill()

    context = next(each["value"]["context"] for each in found if each["kind"] == "log")
    assert context == {"odd": "NaN", "none": None, "nul": "a\ufffdb"}
    assert [each["value"]["message"] for each in printed if each["kind"] == "log"] == ["one", "two"]
    assert "telemetry" not in {each["kind"] for each in found + printed}


def heard(client: SyncAbsurdClient, begin: Callable[[], None]) -> Iterator[Heard | None]:
    """What is told from when on `begin` is called."""
    deadline = time.monotonic() + 60
    steps = iter([begin])

    def wait() -> bool:
        next(steps, lambda: time.sleep(0.01))()
        return time.monotonic() < deadline

    return follow_sessions(client.run, wait)


def messages(told: Heard | None) -> list[str]:
    assert told is not None
    return [each["value"]["message"] for each in told.entries if each["kind"] == "log"]


def test_an_outage_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server is away, or moves no more, calls return, the last too, and the journal has all; of what waits to
    be told the newest is kept, and told once the server is back, with how many entries are left out.
    """
    monkeypatch.setattr(live, "MOST_WAITING", 4000)
    folder = tmp_path / "telescope"
    with outage_below(tmp_path) as outage, SessionManager(folder, outage.client) as sessions:
        with SyncAbsurdClient(settings=outage.settings) as follower:
            told = heard(follower, lambda: sessions.log("INFO", "before"))
            while "before" not in messages(next(told)):
                pass
            outage.stop_server()
            for number in range(200):
                sessions.log("INFO", f"away {number}")
            outage.start_server()
            found, missed = [], 0
            while "away 199" not in found:
                piece = next(told)
                assert piece is not None
                missed += piece.missed
                found += messages(piece)
            with outage.frozen():
                sessions.log("INFO", "frozen")
            while "frozen" not in found:
                found += messages(next(told))
            journal = [each.value["message"] for each in follow(folder, last=-1, wait=None) if each.kind == "log"]
            monkeypatch.setattr(live, "PATIENCE", 0.1)
            monkeypatch.setattr(sealer, "PATIENCE", 0.1)
            with outage.frozen():
                sessions.end_session(wait=False)
                sessions.log("INFO", "the end")
                sessions.close()
            wait_until(lambda: not {"absurd-live", "absurd-sealer"} & {each.name for each in threading.enumerate()})

        assert found == [f"away {number}" for number in range(missed, 200)] + ["frozen"]
        assert missed > 100
        assert journal == ["before", *(f"away {number}" for number in range(200)), "frozen"]


class Refusing:
    """A client of a role that may not tell, and how often it was asked."""

    def __init__(self, client: SyncAbsurdClient) -> None:
        self.spawn, self.wait = client.spawn, client.wait
        self.asked = 0

    def tell_session(self, *_: Any) -> bool:
        """As the client, where its role lacks the function."""
        self.asked += 1
        raise AbsurdError("permission denied for function tell_session")


def test_who_may_not_tell_is_told_once(database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A role without the right gets one line in its log, and sessions go on; nobody who watches: nothing is kept."""
    with SyncAbsurdClient(database_url) as client:
        refusing = Refusing(client)
        with SessionManager(tmp_path, refusing) as sessions:
            sessions.log("INFO", "one")
            wait_until(lambda: refusing.asked)
            for _ in range(10):
                sessions.log("INFO", "more")
        assert refusing.asked == 1
        assert len([each for each in caplog.records if "cannot be followed" in each.message]) == 1
        assert client.tell_session("idle_20251214_210000_1f0c33a8", [{}]) is False
