"""What the demo runs beside itself: a database, a scheduler and workers, as an observatory has them, in its folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from absurd.demo.plan import Plan
from absurd.errors import ExecutionError
from absurd.orphans import stop_with_parent

if TYPE_CHECKING:
    from absurd.config import Settings

WORKERS = 2
SETTLE_S = 8.0
"""A field whose last recording is so old is worked on."""
LEASE_S, HEARTBEAT_S = 6.0, 1.5
"""So that a worker that was killed is missed soon: an observatory leaves the default, half a minute."""


class Platform:
    """Server, scheduler and workers; as a context manager it ends all of them, but for the server if `keep` is set."""

    def __init__(self, settings: Settings, out: Path, night: Plan, *, keep: bool) -> None:
        self.out, self.night, self._keep = out, night, keep
        self.settings = replace(settings, home=out / "home", database_url=None)
        self._environ = os.environ | self.settings.environment() | _soon()
        self._environ.pop("ABSURD_DATABASE_URL", None)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0

    @property
    def incoming(self) -> Path:
        """Where files of sub-bands arrive."""
        return self.out / "data" / "hdf5"

    def __enter__(self) -> Self:
        from absurd.embedded import EmbeddedServer

        self._server = EmbeddedServer(self.settings)
        for folder in (self.incoming, self.incoming.with_name("ms_stage1")):
            folder.mkdir(parents=True, exist_ok=True)
        self._server.start()
        try:
            self._command("queue", "db", "migrate")
            self._start("scheduler", "absurd.cli.scheduler")
            for _ in range(WORKERS):
                self.add_worker()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            process.wait()
        if not self._keep:
            self._server.stop()

    def add_worker(self) -> int:
        """Start a worker; gives its process id."""
        self._started += 1
        return self._start(f"worker-{self._started}", "absurd.cli.worker", "--concurrency", "1")

    def kill(self, pid: int) -> bool:
        """Kill a worker as the kernel does when memory runs out, without time to tidy.  False for other processes."""
        for process in self._processes.values():
            if process.pid == pid and process.poll() is None:
                process.kill()
                process.wait()
                return True
        return False

    def check(self) -> None:
        """Raise ExecutionError if a process has died that nobody killed."""
        for name, process in self._processes.items():
            if (code := process.poll()) is not None and code != -signal.SIGKILL:
                raise ExecutionError(f"the demo's {name} ended with exit code {code}; {self._log(name)} tells more")

    def schedule(self) -> None:
        """Write configuration and schedules of the night, and have them hold."""
        configuration = self.out / "night.toml"
        configuration.write_text(_toml(self.night.configuration(str(self.out))), encoding="utf-8")
        schedules = self.out / "schedules.toml"
        schedules.write_text(_toml({"schedules": self._schedules(configuration)}), encoding="utf-8")
        self._command("schedules", "schedule", "apply", str(schedules))

    def _schedules(self, configuration: Path) -> dict[str, Any]:
        from absurd.tasks.pipeline import load_pipeline_config
        from absurd.tasks.pipeline.stages import stage_params

        config = load_pipeline_config("testing", str(configuration))
        ingest = {name: value for name, value in stage_params(config, "visibility.ingest").items() if value is not None}
        start, end = (f"{each:%Y-%m-%dT%H:%M:%SZ}" for each in self.night.span)
        batch = {
            "environment": "testing",
            "config": str(configuration),
            "workflow": "night",
            "start": start,
            "end": end,
            "settle_s": SETTLE_S,
        }
        return {
            "ingest": {"executor": "visibility.ingest", "params": ingest, "trigger": "every 3s", "overlap": "skip"},
            "blocks": {"executor": "pipeline.batch", "params": batch, "trigger": "every 5s", "overlap": "skip"},
            "export": {
                "executor": "photometry.export_night",
                "params": {"folder": str(self.out / "export"), "night": self.night.date.isoformat()},
                "trigger": "*/15 * * * * *",
                "overlap": "skip",
            },
        }

    def _start(self, name: str, module: str, *words: str) -> int:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches it through us only
                preexec_fn=stop_with_parent,  # noqa: PLW1509 - one system call, and no lock
            )
        return self._processes[name].pid

    def _command(self, name: str, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "absurd", *words], env=self._environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ExecutionError(f"the demo's {name} failed: {done.stderr.strip()}")

    def _log(self, name: str) -> Path:
        folder = self.out / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"


def _soon() -> dict[str, str]:
    return {"ABSURD_WORKER_LEASE": str(LEASE_S), "ABSURD_WORKER_HEARTBEAT_INTERVAL": str(HEARTBEAT_S)}


def _toml(tables: Mapping[str, Any], above: Sequence[str] = ()) -> str:
    """Nested tables of numbers, texts, and lists of them, as TOML, whose such values are those of JSON."""
    own = [f"{key} = {json.dumps(value)}" for key, value in tables.items() if not isinstance(value, Mapping)]
    parts = ["\n".join([f"[{'.'.join(above)}]", *own] if above else own)] if own else []
    parts += [_toml(value, (*above, key)) for key, value in tables.items() if isinstance(value, Mapping)]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"
