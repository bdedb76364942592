"""The night itself: files arrive, the platform works, a worker is killed, and in the end all is there."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from absurd.demo.plan import CATALOGUES, Plan
from absurd.demo.platform import Platform
from absurd.demo.telescope import Pointing, point, record, write_catalogue
from absurd.errors import ExecutionError
from absurd.model import RunState, Task, TaskState

if TYPE_CHECKING:
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.session import SessionManager

LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Killed:
    """The worker that was killed, and the task that it ran."""

    pid: int
    task: str
    node: str
    at: datetime


@dataclass(slots=True)
class Night:
    """What came of it."""

    plan: Plan
    out: Path
    pointings: tuple[Pointing, ...]
    tasks: list[Task] = field(default_factory=list)
    """Of all executors, in the order of their making."""
    sessions: list[Path] = field(default_factory=list)
    killed: Killed | None = None
    seconds: float = 0.0

    def named(self, executor: str) -> list[Task]:
        """Tasks of an executor that have completed."""
        return [each for each in self.tasks if each.name == executor and each.state is TaskState.COMPLETED]


class Progress(Protocol):
    """Whom the night is told to."""

    def say(self, text: str) -> None:
        """Something has happened."""

    def paint(self, text: str) -> None:
        """How far things are, which the next such text covers."""


class Observing(threading.Thread):
    """The array and its observer: files arrive field by field, and a session tells of each."""

    def __init__(self, night: Night, incoming: Path, client: SyncAbsurdClient, progress: Progress) -> None:
        super().__init__(name="absurd-demo-observing", daemon=True)
        self._night, self._incoming, self._client, self._progress = night, incoming, client, progress
        self.arrived = 0
        """Files of sub-bands."""
        self.error: BaseException | None = None

    def run(self) -> None:
        """Observe all fields; what goes wrong is kept for who waits."""
        from absurd.tasks.session import SessionManager

        try:
            with SessionManager(self._night.out / "sessions", self._client, location=_site(self._night)) as sessions:
                for number, pointing in enumerate(self._night.pointings):
                    self._night.sessions.append(self._observe(sessions, number, pointing))
        except BaseException as error:
            self.error = error

    def _observe(self, sessions: SessionManager, number: int, pointing: Pointing) -> Path:
        place = pointing.place
        sessions.start_session("observation", target=place.calibrator, purpose="drift scan at its declination")
        declination = pointing.recording.declination_rad
        sessions.add_event("pointed", {"declination_rad": declination, "antennas": pointing.recording.antennas})
        for recording in range(place.recordings):
            missing = {sub for at, rec, sub in self._night.plan.trouble.missing if (at, rec) == (number, recording)}
            begin = f"{pointing.recording.stamp(recording, 0):%Y-%m-%dT%H:%M:%SZ}"
            for _ in record(pointing, recording, self._incoming, missing):
                self.arrived += 1
            sessions.add_telemetry("sub-bands", {"written": 16 - len(missing)}, time=begin)
            sessions.log("info", f"recording {begin} is written", source="array")
            if missing:
                sessions.log("warning", f"sub-bands {sorted(missing)} did not come", source="array")
        self._progress.say(f"The field of {place.calibrator} is observed: {place.recordings} recordings")
        path: Path = sessions.end_session(wait=False)
        return path


def _site(night: Night) -> dict[str, Any]:
    telescope = night.pointings[0].recording.telescope
    return {
        "name": telescope.name,
        "latitude": telescope.latitude_deg,
        "longitude": telescope.longitude_deg,
        "elevation": telescope.height_m,
    }


def run_night(platform: Platform, progress: Progress) -> Night:
    """Have a night observed and worked on.

    Raises ExecutionError for a night that does not end, a stage that fails, or a process that dies unasked.
    """
    from absurd.client_sync import SyncAbsurdClient

    plan = platform.night
    night = Night(plan, platform.out, tuple(point(plan, number) for number in range(len(plan.size.fields))))
    begun = time.monotonic()
    with SyncAbsurdClient(settings=platform.settings) as client:
        write_catalogue(night.pointings, platform.out / CATALOGUES)
        platform.schedule()
        observing = Observing(night, platform.incoming, client, progress)
        observing.start()
        watch = Watch(night, client, progress)
        while not watch.has_ended():
            time.sleep(LOOK_S)
            platform.check()
            if observing.error is not None:
                raise ExecutionError(f"the demo's array has failed: {observing.error}") from observing.error
            if time.monotonic() - begun > plan.size.patience_s:
                raise ExecutionError(
                    f"the night did not end in {plan.size.patience_s:g} s; {platform.out / 'logs'} tells more"
                )
            if night.killed is None:
                _kill(night, platform, client, progress)
            watch.tell(observing.arrived)
        observing.join()
        night.tasks = all_tasks(client)
        night.seconds = time.monotonic() - begun
    return night


def all_tasks(client: SyncAbsurdClient, page: int = 1000) -> list[Task]:
    """Every task of the database, in the order of their making; ids are asked for `page` at a time, at most 1,000."""
    ids: list[str] = []
    while rows := client.list_tasks(limit=page, after=ids[-1] if ids else None):
        ids += [each["id"] for each in rows]
    return [client.get_task(each) for each in reversed(ids)]


class Watch:
    """Follows the night's tasks."""

    def __init__(self, night: Night, client: SyncAbsurdClient, progress: Progress) -> None:
        self._night, self._client, self._progress = night, client, progress
        self._files = sum(16 * each.place.recordings for each in night.pointings) - len(night.plan.trouble.missing)
        self._told: set[str] = set()
        self._reported_at: datetime | None = None

    def has_ended(self) -> bool:
        """Whether each field's block is reported whole, what was measured is exported, and all sessions are sealed.

        Raises ExecutionError if a block failed.
        """
        whole = []
        for row in self._client.list_tasks(name="pipeline.report", limit=100):
            state = TaskState(row["state"])
            if not state.ended:
                continue
            report = self._client.get_task(row["id"])
            if state is not TaskState.COMPLETED:
                message = (report.error or {}).get("message", state)
                raise ExecutionError(f"a block of the demo failed: {message}")
            if report.params["missing"] == 0:
                whole.append(report)
                self._tell_once(f"Block {report.params['block']} is done: {report.result['image_count']} images")
        if len(whole) < len(self._night.plan.size.fields):
            return False
        last = max(each.finished_at for each in whole if each.finished_at)
        exports = self._client.list_tasks(name="photometry.export_night", state=TaskState.COMPLETED, limit=5)
        seals = self._client.list_tasks(name="session.seal", state=TaskState.COMPLETED, limit=100)
        exported = any(self._client.get_task(each["id"]).created_at > last for each in exports)
        return exported and len(seals) >= len(self._night.plan.size.fields)

    def tell(self, arrived: int) -> None:
        """Paint how far things are."""
        stats = self._client.get_queue_stats("default")
        self._progress.paint(
            f"{arrived} of {self._files} files have arrived; tasks: {stats.running} running, {stats.pending} pending, "
            f"{stats.completed} completed"
        )

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._progress.say(text)


def _kill(night: Night, platform: Platform, client: SyncAbsurdClient, progress: Progress) -> None:
    """Kill the worker that runs the first task of the plan's executor, once there is one; another takes its place."""
    for row in client.list_tasks(name=night.plan.trouble.kill_at, state=TaskState.RUNNING, limit=1):
        task = client.get_task(row["id"])
        runs = [each for each in task.runs if each.state is RunState.RUNNING and each.started_at]
        for worker in client.list_workers():
            if runs and worker["name"] == runs[-1].worker and platform.kill(worker["pid"]):
                night.killed = Killed(worker["pid"], str(task.id), task.node or task.name, datetime.now().astimezone())
                platform.add_worker()
                name = (task.node or task.name).rpartition("/")[2]
                progress.say(f"Worker {worker['pid']} is killed (kill -9) while it runs {name}; another is started")
