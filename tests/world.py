"""A small queue in which every function of the schema finds something to do, and its calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg

from absurd.queue import new_task_id

Connection = psycopg.Connection[Any]
Statement = tuple[Any, ...]
"""What follows SELECT, and its arguments."""

READS = frozenset({
    "changed_subbands", "check_claim", "clock_time", "count_dead_letters", "count_products", "find_gain_sets",
    "find_images", "find_product", "find_sources", "get_checkpoints", "get_dead_letter", "get_gain_set", "get_identity",
    "get_image_files", "get_light_curve", "get_log", "get_metrics", "get_names", "get_neighbours",
    "get_overdue_publications",
    "get_photometry", "get_product", "get_publications", "get_queue_stats", "get_results", "get_schedule", "get_state",
    "get_states", "get_status", "get_stored_gain_set", "get_subband_group", "get_task", "get_workflow",
    "get_workflow_state", "group_dead_letters", "has_tokens", "lease_worker", "list_alert_events", "list_alerts",
    "list_changes", "list_dead_letters", "list_executors", "list_gain_sets", "list_image_files", "list_image_indexes",
    "list_intakes", "list_products", "list_queues", "list_resources", "list_schedules", "list_session_files",
    "list_sessions", "list_subband_groups", "list_subbands", "list_tasks", "list_ticks", "list_tokens",
    "list_variability", "list_workers", "list_workflows", "measure_alert", "new_task_id", "read_feed", "read_products",
    "task_why",
})  # fmt: skip
"""Public functions that change nothing."""


class World:
    """Tasks in every state, in a queue of their own, and workers that hold some of them."""

    def __init__(self, connection: Connection, number: int = 0) -> None:
        self.connection = connection
        self.queue = f"q{number}"
        self.event = f"event-{number}"
        self.executor = f"world.{number}"
        self.observed: Any = None
        """What `observed.fill` has put beside it, where that was called."""
        self.workflow = new_task_id()
        self.worker, self.lost_worker = self._worker(), self._worker()
        self.queue_id: int = self.call("id from queue where name = %s", self.queue)
        self._leases = 0
        self._build()

    def call(self, sql: str, *args: Any) -> Any:
        row = self.connection.execute(f"select {sql}", args).fetchone()
        return row[0] if row else None

    def _worker(self) -> int:
        offers = json.dumps({"cpu": 1, self.queue + ".token": 1})
        worker: int = self.call("register_worker('w', 'h', 1, array[%s], 1, '{}', %s, 30)", self.queue, offers)
        return worker

    def spawn(self, **options: Any) -> UUID:
        options = {key: [str(e) for e in value] if key == "depends_on" else value for key, value in options.items()}
        task = new_task_id()
        self.call(
            "spawn_tasks(array[%s::uuid], array[%s], array[%s], array['{}']::jsonb[], array[%s]::jsonb[])",
            task, self.queue, self.executor, json.dumps(options) if options else None,
        )  # fmt: skip
        return task

    def claim(self, wanted: int = 1, worker: int | None = None) -> int:
        self._leases += 1
        lease = ((worker or self.worker) << 32) + self._leases
        self.call("claim_runs(%s, %s, %s, '{}', '{}')", lease, self.queue_id, wanted)
        return lease

    def _build(self) -> None:
        self.call("watch_feed()")  # what is done here is told
        self.call("create_queue(%s)", self.queue)
        self.call("create_queue(%s)", self.queue + ".empty")
        self.call("create_queue(%s)", self.queue + ".ended")
        self.connection.execute(
            "insert into workflow (id, name, created_at, nodes, remaining) values (%s, 'w', clock_time(), 0, 0)",
            [self.workflow],
        )
        in_workflow = {"workflow": str(self.workflow)}
        self.token = self.queue + ".token"
        self.call("set_resource(%s, 1)", self.token)
        holds = {"needs": {self.token: 1}}
        self.running = [self.spawn(**in_workflow, **holds), self.spawn(**in_workflow), self.spawn()]
        self.lease = self.claim(3)
        self.waits_for_end = self.spawn(depends_on=[self.running[0]], **in_workflow)
        self.below = self.spawn(depends_on=[self.waits_for_end, self.running[1]], when="all_done")
        self.call("sweep_late()")
        self.of_lost = self.spawn()
        self.lost_lease = self.claim(worker=self.lost_worker)
        self.failed = self.spawn(**in_workflow)
        lease = self.claim()
        self.upstream = self.spawn(depends_on=[self.failed], **in_workflow)
        self.call("sweep_late()")
        self.call(*fail(lease, self.failed))
        self.completed = self.spawn()
        lease = self.claim()
        file = [{"task": str(self.completed), "path": "a", "attempt_path": "b", "kind": "text"}]
        self.call(
            "complete_runs(array[%s::bigint], array[%s::uuid], '{0}', '{1}', %s)",
            lease,
            self.completed,
            json.dumps(file),
        )
        self.listening = self.spawn()
        self.call(*suspend(self.claim(), self.listening, self.event))
        self.aside = self.spawn()
        self.call(
            "suspend_runs(array[%s::bigint], array[%s::uuid], '{0}', '{3600}', '{no_executor}', '{null}')",
            self.claim(),
            self.aside,
        )
        self.unheard = self.spawn()
        self.unheard_lease = self.claim()
        self.due = self.spawn(delay=60)
        self.connection.execute(
            "update timer set wake_at = clock_time() - interval '1 s' where task_id = %s", [self.due]
        )
        self.connection.execute(
            "update lease set claimed_at = claimed_at - interval '1 hour' where id = %s", [self.unheard_lease]
        )
        self.connection.execute(
            "update worker set last_seen = last_seen - interval '1 hour' where id = %s", [self.lost_worker]
        )
        self.keyed = self.spawn(key="k")
        self.needy = [self.spawn(**holds), self.spawn(needs={"cpu": 1})]
        self.late = self.spawn(depends_on=[self.running[0], self.keyed])
        self.call("await_tasks(array[%s::uuid])", self.running[0])
        self.schedule = self.queue + ".schedule"
        self.call("set_schedule(%s, %s)", self.schedule, self.scheduled(overlap="cancel"))
        self.connection.execute(
            "update schedule set settled_at = clock_time() - interval '1 hour' where name = %s", [self.schedule]
        )
        self.connection.execute(
            "insert into tick (schedule_id, due_at, fired_at, task_id)"
            " select id, settled_at, settled_at, %s from schedule where name = %s",
            [self.running[2], self.schedule],
        )

        self.token_hash = f"{self.queue_id:064x}"
        self.call("create_token(%s, 'reader', %s)", self.queue, self.token_hash)
        self.alert = self.queue + ".alert"
        self.call("set_alert(%s, %s)", self.alert, self.measured(targets=["night"]))
        handed = self.call("step_alerts('h', 30)")
        self.notice = next(each["id"] for each in handed["notices"] if each["alert"] == self.alert)
        self.call("set_alert(%s, %s)", self.alert + ".new", self.measured(targets=["night", "day"]))
        self.images = self.queue + ".images"
        self.call("put_images(%s, %s)", self.images, self.image_files("/a.fits", "/b.fits"))
        self.gains = self.call("id from register_gain_set(%s)", self.gain_set("/valid"))
        self.candidate = self.call("id from register_gain_set(%s, 'candidate')", self.gain_set("/candidate"))
        self.products = {state: self._product(state) for state in ("candidate", "accepted")}
        self.intake = self.queue + ".intake"
        policy = {"subbands": 2, "min_subbands": 1, "timeout": 0, "queue": self.queue}
        self.call("set_intake(%s, %s)", self.intake, json.dumps(policy))
        # One that is to be converted, one that is converted, one that has waited long enough, and one that collects.
        for minute, numbers in ((0, (0, 1)), (10, (0, 1)), (20, (0,)), (30, (0,))):
            self.call("count(*) from record_subbands(%s, %s)", self.intake, self.subbands(minute, *numbers))
        self.groups: list[int] = [
            number
            for (number,) in self.connection.execute(
                "select g.id from subband_group g join intake i on i.id = intake_id where i.name = %s"
                " order by first_stamp",
                [self.intake],
            )
        ]
        self.call("end_conversion(%s, 1, '{}')", self.groups[1])
        self.connection.execute(
            "update subband_group set due_at = due_at + interval '1 h' where id = %s", [self.groups[3]]
        )

    def _product(self, state: str) -> int:
        """An image that a task has made."""
        number: int = self.connection.execute(
            "insert into product (kind, path, checksum, bytes, state, task_id, stored_at, decided_at)"
            " values ('image', %s, repeat('0', 64), 9, %s, %s, clock_time(), clock_time()) returning id",
            [f"/{self.queue}/{state}.fits", state, self.completed],
        ).fetchone()[0]  # type: ignore[index]
        return number

    @staticmethod
    def subbands(minute: int, *numbers: int) -> str:
        """Whole files of one recording."""
        stamp = f"2026-11-29T12:{minute:02}:00"
        return json.dumps(
            [
                {"path": f"/{stamp}_sb{n:02}.hdf5", "version": "1", "state": "whole", "number": n, "stamp": stamp + "Z"}
                | {"declination_deg": 16.1, "content": "110 antennas", "begins_at": stamp + "Z", "integration_s": 12.9}
                for n in numbers
            ]
        )

    @staticmethod
    def image_files(*uris: str) -> str:
        """Files of an index of images, with one image each."""
        image = {"hdu": 0, "bounds": [10, 20, 11, 21], "band": "r", "shape": [9, 9], "wcs": "CTYPE1  = 'RA---TAN'"}
        return json.dumps([{"uri": uri, "version": "1", "images": [image]} for uri in uris])

    def gain_set(self, path: str) -> str:
        """What is registered of gains in a folder; of one recording, whatever the folder."""
        times = {"observed_from": "2026-01-01T12:00Z", "observed_until": "2026-01-01T12:05Z"}
        valid = {"valid_from": "2026-01-01T00:00Z", "valid_until": "2026-01-02T00:00Z"}
        where = {"declination": 54.6, "strip": 1, "lowest_hz": 1.28e9, "highest_hz": 1.53e9}
        what = {
            "path": f"/{self.queue}{path}",
            "checksum": "0" * 64,
            "bytes": 9,
            "kinds": ["bandpass", "gain"],
            "source": "3C48",
        }
        return json.dumps({"telescope": self.queue} | times | valid | where | what)

    def measured(self, **options: Any) -> str:
        """An alert that fires at once."""
        return json.dumps({"measure": "queue_depth", "queue": self.queue + ".ended", "threshold": -1} | options)

    def scheduled(self, **options: Any) -> str:
        """A schedule of tasks for the queue."""
        return json.dumps({"trigger": "every 60 s", "executor": self.executor, "queue": self.queue} | options)


# Statements --------------------------------------------------------------------------------------


def fail(lease: int, *tasks: UUID, delays: tuple[float | None, ...] = (None,)) -> Statement:
    n = len(tasks)
    error = json.dumps({"code": "boom", "type": "Boom", "message": "it broke"})
    sql = "fail_runs(%s::bigint[], %s::uuid[], %s::integer[], %s::text[], %s::float8[])"
    return sql, [lease] * n, list(tasks), [0] * n, [error] * n, list(delays)


def suspend(lease: int, task: UUID, event: str) -> Statement:
    return "suspend_runs(array[%s::bigint], array[%s::uuid], '{0}', '{null}', '{event}', array[%s])", lease, task, event


def complete(lease: int, *tasks: UUID) -> Statement:
    n = len(tasks)
    sql = "complete_runs(%s::bigint[], %s::uuid[], %s::integer[], %s::text[])"
    return sql, [lease] * n, list(tasks), [0] * n, ["1"] * n


def complete_image(lease: int, *tasks: UUID, path: str) -> Statement:
    """The completion of tasks: the first has made an image, at the path of another, a source, and a session's file."""
    sql, *arguments = complete(lease, *tasks)
    task = str(tasks[0])
    file = {"task": task, "path": path, "attempt_path": "b", "kind": "image", "sha256": "1" * 64, "bytes": 9}
    image = {"path": path, "ra": 10, "declination": 50, "inputs": [{"path": "/a.ms", "role": "visibilities"}]}
    source = {"name": "J004000.00+500000.0", "ra": 10, "declination": 50, "radius_arcsec": 1}
    session = {"folder": "/t", "path": "2026/a.asdf", "state": "sealed", "bytes": 9, "changed_ns": 1, "session_id": "a",
               "start_time": "2026-11-29T12:30:00Z", "meta": {"seeing": 1.2}}  # fmt: skip
    rows = {"image": image, "source": source, "session": session}
    products = [{"task": task, "kind": kind, "row": row} for kind, row in rows.items()]
    return sql.replace(")", ", %s, null, %s)"), *arguments, json.dumps([file]), json.dumps(products)


def _spawn(w: World) -> Statement:
    options = {"depends_on": [str(w.running[0])], "workflow": str(w.workflow), "key": "k2", "when": "any_success"}
    return (
        "spawn_tasks(%s::uuid[], array[%s, %s], array[%s, %s], '{null,null}'::jsonb[], %s::jsonb[])",
        [new_task_id(), new_task_id()], w.queue, w.queue, w.executor, w.executor, [json.dumps(options), None],
    )  # fmt: skip


def _step(w: World) -> Statement:
    return (
        "step(array[%s::bigint], array[%s::uuid], '{0}', '{1}', %s, %s, 2, '{}', '{}')",
        w.lease, w.running[0], (w.worker << 32) + 1000, w.queue_id,
    )  # fmt: skip


def _keyed() -> str:
    return json.dumps({"id": str(new_task_id()), "key": "k2", "delay": 60})


CALLS: dict[str, Callable[[World], Statement]] = {
    "accept_gain_set": lambda w: ("accept_gain_set(%s)", w.candidate),
    "accept_product": lambda w: ("accept_product(%s)", w.products["candidate"]),
    "advance_marks": lambda w: ("advance_marks()",),
    "append_log": lambda w: (
        "append_log(array[%s::bigint], array[%s::uuid], '{1}', '{2}', '{1}', '{0}', '{0}', %s, 1000)",
        w.lease,
        w.running[0],
        ['[["stdout", 0, "a\\n"]]'],
    ),
    "await_tasks": lambda w: ("await_tasks(%s::uuid[])", w.running),
    "beat": lambda w: ("count(*) from beat(%s, array[%s::bigint], 'running', %s)", w.worker, w.lease, w.running[:1]),
    "begin_conversion": lambda w: ("begin_conversion(%s, 1, %s)", w.groups[0], w.running[0]),
    "cancel_overdue": lambda w: ("cancel_overdue()",),
    "cancel_runs": lambda w: ("cancel_runs(array[%s::bigint], array[%s::uuid], '{0}', '{no}')", w.lease, w.running[0]),
    "cancel_task": lambda w: ("cancel_task(%s, 'no', true)", w.running[0]),
    "cancel_workflow": lambda w: ("cancel_workflow(%s)", w.workflow),
    "check_token": lambda w: ("check_token(%s)", w.token_hash),
    "claim_runs": lambda w: ("claim_runs(%s, %s, 5, '{}', '{}')", (w.worker << 32) + 2000, w.queue_id),
    "complete_runs": lambda w: complete_image(w.lease, *w.running[:2], path=f"/{w.queue}/accepted.fits"),
    "convert_subband_group": lambda w: ("convert_subband_group(%s)", w.groups[1]),
    "create_queue": lambda w: ("create_queue(%s)", w.queue + ".new"),
    "create_token": lambda w: ("create_token(%s, 'admin', repeat('f', 64))", w.queue + ".new"),
    "drain_worker": lambda w: ("drain_worker(%s)", w.worker),
    "drop_partition": lambda w: ("drop_partition()",),
    "drop_queue": lambda w: ("drop_queue(%s)", w.queue + ".empty"),
    "edit_task": lambda w: ("edit_task(%s, '{\"priority\": 3}')", w.keyed),
    "emit_event": lambda w: ("emit_event(%s, '1')", w.event),
    "end_conversion": lambda w: ('end_conversion(%s, 1, \'{"path": "/a.ms"}\')', w.groups[0]),
    "end_notice": lambda w: ("end_notice(%s, 1, 'no answer')", w.notice),
    "ensure_partitions": lambda w: ("ensure_partitions()",),
    "fail_runs": lambda w: fail(w.lease, *w.running[:2], delays=(None, 1.0)),
    "fire_schedule": lambda w: (
        "fire_schedule(id, 1, array[clock_time()], '{null}', '{1}', clock_time(), 'infinity')"
        " from schedule where name = %s",
        w.schedule,
    ),
    "fold_tallies": lambda w: ("fold_tallies()",),
    "forget_gain_set": lambda w: ("forget_gain_set(%s)", w.gains),
    "forget_images": lambda w: ("forget_images(%s, '{/a.fits}')", w.images),
    "forget_subbands": lambda w: ("forget_subbands(%s, '{/2026-11-29T12:30:00_sb00.hdf5}')", w.intake),
    "get_due_schedules": lambda w: ("get_due_schedules('h', 30)",),
    "give_up_worker": lambda w: ("give_up_worker(%s)", w.worker),
    "maintain": lambda w: ("maintain()",),
    "mark_published": lambda w: ("mark_published(%s, 'a', 'b')", w.completed),
    "move_ended": lambda w: ("move_ended(%s, %s, %s)", w.queue, w.queue + ".ended", w.failed),
    "promote_timers": lambda w: ("promote_timers()",),
    "prune_ended": lambda w: ("prune_ended()",),
    "prune_queue": lambda w: ("count(*) from prune_queue(%s, 0)", w.queue),
    "prune_ticks": lambda w: ("prune_ticks()",),
    "purge_dead_letters": lambda w: ("purge_dead_letters(%s)", json.dumps({"queue": w.queue})),
    "put_images": lambda w: (
        "put_images(%s, %s)",
        w.images,
        w.image_files("/a.fits", "/c.fits"),
    ),
    "purge_queue": lambda w: ("purge_queue(%s)", w.queue),
    "quarantine_gain_set": lambda w: ("quarantine_gain_set(%s, 'noise')", w.gains),
    "quarantine_product": lambda w: ("quarantine_product(%s, 'noise')", w.products["accepted"]),
    "record_change": lambda w: ("record_change(%s, 'pause', %s)", w.queue, w.queue),
    "record_subbands": lambda w: ("count(*) from record_subbands(%s, %s)", w.intake, w.subbands(30, 0, 1)),
    "recover_runs": lambda w: ("recover_runs()",),
    "register_executors": lambda w: ("register_executors(%s)", json.dumps([{"name": w.executor, "runs_in": "loop"}])),
    "register_gain_set": lambda w: ("count(*) from register_gain_set(%s)", w.gain_set("/new")),
    "register_worker": lambda w: ("register_worker('w', 'h', 1, array[%s], 1, '{}', '{}', 30)", w.queue),
    "remove_alert": lambda w: ("remove_alert(%s)", w.alert),
    "remove_image_index": lambda w: ("remove_image_index(%s)", w.images),
    "remove_intake": lambda w: ("remove_intake(%s)", w.intake),
    "remove_resource": lambda w: ("remove_resource(%s)", w.token),
    "remove_schedule": lambda w: ("remove_schedule(%s)", w.schedule),
    "requeue_dead_letters": lambda w: ("count(*) from requeue_dead_letters(%s)", json.dumps({"ids": [str(w.failed)]})),
    "rerun_task": lambda w: ("rerun_task(%s)", w.completed),
    "resign_leader": lambda w: ("resign_leader('h')",),
    "respawn_task": lambda w: ("respawn_task(%s)", w.completed),
    "retry_task": lambda w: ("retry_task(%s)", w.failed),
    "retry_workflow": lambda w: ("retry_workflow(%s)", w.workflow),
    "return_runs": lambda w: ("return_runs(array[%s::bigint], array[%s::uuid], '{5}')", w.lease, w.running[0]),
    "revoke_token": lambda w: ("revoke_token(%s)", w.queue),
    "set_alert": lambda w: ("set_alert(%s, %s)", w.alert, w.measured(targets=["night"], severity="critical")),
    "set_checkpoint": lambda w: ("set_checkpoint(%s, %s, 's', '1')", w.lease, w.running[0]),
    "set_intake": lambda w: ("set_intake(%s, '{\"timeout\": 1}')", w.intake),
    "set_listening": lambda w: ("set_listening(%s, array[%s], true)", w.worker, w.queue_id),
    "set_next_due": lambda w: (
        "set_next_due(id, 1, clock_time()) from schedule where name = %s",
        w.schedule,
    ),
    "set_progress": lambda w: ("set_progress(%s, %s, 1, 2, '')", w.lease, w.running[0]),
    "set_queue_limits": lambda w: ("set_queue_limits(%s, '{\"running\": 5}')", w.queue),
    "set_queue_paused": lambda w: ("set_queue_paused(%s, true)", w.queue),
    "set_queue_retention": lambda w: ("set_queue_retention(%s, 3600)", w.queue),
    "set_resource": lambda w: ("set_resource(%s, 2)", w.token),
    "set_schedule": lambda w: ("set_schedule(%s, %s)", w.schedule, w.scheduled(zone="Europe/Berlin")),
    "set_schedule_paused": lambda w: ("set_schedule_paused(%s, true)", w.schedule),
    "set_worker_concurrency": lambda w: ("set_worker_concurrency(%s, 7)", w.worker),
    "settle_subband_groups": lambda w: ("count(*) from settle_subband_groups(%s)", w.intake),
    "silence_alert": lambda w: ("silence_alert(%s, 60, 'clouds')", w.alert),
    "spawn_plain": lambda w: ("spawn_plain(%s, %s, %s, '{}')", new_task_id(), w.queue, w.executor),
    "spawn_task": lambda w: ("count(*) from spawn_task(%s, %s, '{}', %s)", w.queue, w.executor, _keyed()),
    "spawn_tasks": _spawn,
    "spawn_workflow": lambda w: (
        "count(*) from spawn_workflow(%s, 'w2', array[%s::uuid], array[%s], array[%s], '{null}'::jsonb[])",
        new_task_id(),
        new_task_id(),
        w.queue,
        w.executor,
    ),
    "step": _step,
    "step_alerts": lambda w: ("step_alerts('h', 30)",),
    "suspend_runs": lambda w: suspend(w.lease, w.running[0], w.event),
    "sweep_late": lambda w: ("sweep_late()",),
    "tell_session": lambda w: ("tell_session('idle_20251214_210000_1f0c33a8', '[{}]', 2)",),
    "trigger_schedule": lambda w: ("trigger_schedule(%s)", w.schedule),
    "unregister_worker": lambda w: ("unregister_worker(%s)", w.worker),
    "watch_feed": lambda w: ("watch_feed()",),
}
"""For each function that changes something, a call of it that finds something to do."""


def changing_functions(connection: Connection) -> set[str]:
    """Public functions that may change something, by the catalogue."""
    return {
        name
        for (name,) in connection.execute(
            "select distinct proname from pg_proc where pronamespace = current_schema()::regnamespace"
            " and proname !~ '^_' and prokind = 'f'"
        )
    } - READS
