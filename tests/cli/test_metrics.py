"""What the daemons tell Prometheus, as the processes that users start."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import psycopg
import yaml
from scraping import Found, parse, scrape, value

if TYPE_CHECKING:
    from cli.conftest import Run, Start

Connection = psycopg.Connection[tuple[object, ...]]
Until = Callable[[Callable[[], object]], None]


def _is_there(address: str) -> Found | None:
    try:
        return scrape(f"http://{address}/metrics")
    except URLError:
        return None


def test_worker_scheduler_and_web_interface_tell_what_happened(
    start: Start, connection: Connection, until: Until, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """The worker tells its runs by executor and outcome and how long they took; the others the queue's, the same."""
    worker, scheduler = (f"127.0.0.1:{unused_tcp_port_factory()}" for _ in range(2))
    connection.execute("""select spawn_task('q', 'cli.add', '{"a": 1, "b": 2}', null) from generate_series(1, 5)""")
    connection.execute("select spawn_task('q', 'cli.fail', '{}', null) from generate_series(1, 2)")
    connection.execute("""select cancel_task(task_id) from spawn_task('q', 'cli.add', '{}', '{"delay": 3600}')""")
    with ExitStack() as stack:
        running = [
            stack.enter_context(start("absurd-worker", "--queue", "q", "--concurrency", "3", "--metrics", worker)),
            stack.enter_context(start("absurd-scheduler", "--metrics", scheduler)),
            stack.enter_context(start("absurd", "serve", "--port", "0", "--json")),
        ]
        out = running[2].stdout
        assert out is not None
        web = json.loads("".join(out.readline() for _ in range(3)))["url"]
        ended = "select completed = 5 and failed = 2 from get_queue_stats('q')"
        until(lambda: connection.execute(ended).fetchone() == (True,))
        until(lambda: _is_there(scheduler))
        of_worker, of_queue, of_web = scrape(f"http://{worker}/metrics"), _is_there(scheduler), scrape(f"{web}/metrics")
        for each in running:
            each.terminate()
        ends = [each.communicate(timeout=60) for each in running]

    assert [0, 0, 0] == [each.returncode for each in running], ends
    assert value(of_worker, "absurd_runs_total", executor="cli.add", outcome="completed") == 5
    assert value(of_worker, "absurd_runs_total", executor="cli.fail", outcome="failed") == 4
    assert value(of_worker, "absurd_run_seconds_count", executor="cli.fail") == 4
    assert value(of_worker, "absurd_task_start_seconds_count", queue="q") == 7
    assert value(of_worker, "absurd_worker_slots") == 3
    assert of_queue is not None
    expected = {"tasks_spawned": 8, "tasks_completed": 5, "tasks_failed": 2, "tasks_cancelled": 1, "tasks_pruned": 0,
                "runs_retried": 2, "runs_lost": 0}  # fmt: skip
    for found in (of_queue, of_web):
        assert expected == {name: value(found, f"absurd_{name}_total", queue="q") for name in expected}
        assert value(found, "absurd_tasks", queue="q", state="completed") == 5
        assert value(found, "absurd_workers", state="running") == 1
        assert value(found, "absurd_dead_letters") == 2
        assert value(found, "absurd_problems", code="dead_letters") == 1
        assert ("absurd_table_dead_rows", frozenset({("table", "ready")})) in found
        assert value(found, "absurd_oldest_snapshot_seconds") < 60
    assert value(of_queue, "absurd_scheduler_leads") == 1


def test_an_address_that_is_taken_is_told_at_once(
    program: Run, unused_tcp_port: int, start: Start, until: Until
) -> None:
    """A second daemon does not run unseen where the first is scraped; an address without a port is refused."""
    address = f"127.0.0.1:{unused_tcp_port}"
    with start("absurd-scheduler", "--metrics", address) as scheduler:
        until(lambda: _is_there(address))
        taken = program("absurd-worker", "--queue", "q", "--burst", "--metrics", address)
        scheduler.terminate()
    refused = program("absurd-worker", "--metrics", "localhost")

    assert (5, True) == (taken.code, str(unused_tcp_port) in taken.err), taken.err
    assert (2, True) == (refused.code, "--metrics is 'localhost'" in refused.err), refused.err


def test_metrics_and_files_are_printed(run: Run, connection: Connection) -> None:
    """The whole queue in the text format or as JSON, each alert too; the files that come along, or where they are."""
    connection.execute("select spawn_task('q', 'cli.add', '{}', null)")
    for name, most in (("waits", 0.5), ("piles", 5)):
        rule = {"measure": "queue_depth", "threshold": most, "queue": "q", "severity": "critical"}
        connection.execute("select set_alert(%s, %s)", (name, json.dumps(rule)))
    connection.execute("select step_alerts('test', 60)")

    shown, told = run("metrics", "show"), run("metrics", "show", "--json").document

    found = parse(shown.out)
    assert value(found, "absurd_tasks_spawned_total", queue="q") == 1
    assert value(found, "absurd_alert_firing", alert="waits", severity="critical") == 1
    assert value(found, "absurd_alert_firing", alert="piles", severity="critical") == 0
    assert {"name": "absurd_tasks_spawned_total", "labels": {"queue": "q"}, "value": 1.0} in told
    assert "groups" in yaml.safe_load(run("metrics", "alerts").out)
    path = run("metrics", "dashboard", "--json").document["path"]
    assert json.loads(Path(path).read_text()) == json.loads(run("metrics", "dashboard").out)
