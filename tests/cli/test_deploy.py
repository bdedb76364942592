"""The files for systemd, containers and Slurm: checked by the tools that are there, and what they name is run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from house import ROOT

if TYPE_CHECKING:
    from cli.conftest import Run, Start

Connection = psycopg.Connection[tuple[object, ...]]
Until = Callable[[Callable[[], object]], None]

DEPLOY = ROOT / "docs" / "operations" / "deploy"
PROGRAMS = Path(sys.executable).parent
SCRIPT = DEPLOY / "slurm" / "absurd-worker.sbatch"


# systemd -----------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they are after installation, with the programs of this environment."""
    place = tmp_path / "units"
    shutil.copytree(DEPLOY / "systemd", place)
    for unit in place.glob("*.service"):
        text = unit.read_text(encoding="utf-8").replace("/opt/absurd/bin/", f"{PROGRAMS}/")
        unit.with_name(unit.name.replace("@.", "@cutouts.")).write_text(text, encoding="utf-8")
    return place


def test_systemd_takes_the_units(units: Path) -> None:
    """No unknown key, no value that is ignored, no program that is not there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    names = ["absurd-worker@cutouts.service", "absurd-scheduler.service", "absurd.slice"]

    checked = subprocess.run(
        ["systemd-analyze", "verify", *(f"./{name}" for name in names)],
        cwd=units,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "", "") == (checked.returncode, checked.stdout, checked.stderr)


def values(unit: Path) -> dict[str, list[str]]:
    """The settings of a unit; one that is given more than once has more values."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(
    ("unit", "words"),
    [("absurd-worker@.service", ["--queue", "cutouts"]), ("absurd-scheduler.service", [])],
)
def test_a_unit_starts_what_it_names(
    start: Start, units: Path, connection: Connection, tmp_path: Path, unit: str, words: list[str]
) -> None:
    """Its command gets ready, is watched in the time it states, and leaves with 0, for which nobody starts it again."""
    stated = values(DEPLOY / "systemd" / unit)
    (command,) = stated["ExecStart"]
    program, *arguments = command.replace("%i", "cutouts").split()
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        with start(Path(program).name, *arguments, NOTIFY_SOCKET=str(address)) as process:
            while b"READY=1" not in manager.recv(4096):
                pass
            process.terminate()
            process.communicate(timeout=60)

    assert arguments == words
    assert 0 == process.returncode
    assert (["notify"], ["on-failure"], ["2"]) == (
        stated["Type"],
        stated["Restart"],
        stated["RestartPreventExitStatus"],
    )


# Containers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the compose file."""
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra `export`")
    document = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = document["services"]
    volumes = {mount.partition(":")[0] for each in found.values() for mount in each["volumes"]}
    assert set(document["volumes"]) == {name for name in volumes if name.isidentifier()}
    return found


def seconds(text: str) -> float:
    """A time of a compose file."""
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()  # type: ignore[union-attr]
    return float(number) * (60 if unit == "m" else 1)


def test_containers_wait_for_one_another(services: dict[str, Any]) -> None:
    """Nothing works before the schema is there, and a worker has more time to leave than it gives its runs."""
    assert {name: list(each.get("depends_on", {})) for name, each in services.items()} == {
        "database": [],
        "migrate": ["database"],
        "worker": ["migrate"],
        "scheduler": ["migrate"],
    }
    assert services["migrate"]["depends_on"]["database"] == {"condition": "service_healthy"}
    assert services["worker"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    worker = services["worker"]
    assert seconds(worker["stop_grace_period"]) >= float(worker["environment"]["ABSURD_WORKER_GRACE"]) + 20
    assert worker["restart"] == "on-failure"


def test_what_the_containers_run_works(
    services: dict[str, Any], start: Start, program: Run, empty_database_url: str
) -> None:
    """Schema, workers and scheduler as processes: a task completes, each health check holds, all leave well."""
    here = {"ABSURD_DATABASE_URL": empty_database_url}
    assert program(*services["migrate"]["command"], **here).code == 0
    replicas = services["worker"]["deploy"]["replicas"]
    processes = [start(*services["worker"]["command"], **here) for _ in range(replicas)]
    processes.append(start(*services["scheduler"]["command"], **here))
    try:
        done = program("absurd", "spawn", "cli.add", "a=1", "b=2", "--wait", "--json", **here)
        assert (0, {"sum": 3}) == (done.code, done.document["result"]), done.err
        for name in ("worker", "scheduler"):
            kind, *command = services[name]["healthcheck"]["test"]
            assert kind == "CMD"
            healthy = program(*command, **here)
            assert healthy.code == 0, healthy.out + healthy.err
    finally:
        for each in processes:
            each.send_signal(signal.SIGTERM)
        said = [each.communicate(timeout=60)[1] for each in processes]

    assert [0] * (replicas + 1) == [each.returncode for each in processes], said
    assert program(*services["worker"]["healthcheck"]["test"][1:], **here).code == 1


def test_the_image_has_what_the_containers_need(services: dict[str, Any]) -> None:
    """The image makes the folders that are mounted, runs as a user of its own, and passes SIGTERM on."""
    text = (DEPLOY / "compose" / "Dockerfile").read_text(encoding="utf-8")
    mounted = {mount.rpartition(":")[2] for mount in services["worker"]["volumes"]}

    assert all(f" {folder}" in text for folder in mounted)
    assert "USER absurd" in text
    assert "ENV ABSURD_HOME=/var/lib/absurd" in text
    assert "STOPSIGNAL SIGTERM" in text
    assert 'CMD ["absurd-worker"]' in text


# Slurm -------------------------------------------------------------------------------------------

ALLOCATION = {
    "SLURM_JOB_ID": "17",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_CPUS_PER_TASK": "3",
    "SLURM_MEM_PER_NODE": "5000",
    "SLURM_GPUS_ON_NODE": "1",
}


@pytest.fixture
def job(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the script as Slurm does its copy of it: with bash, and nothing in the environment but what is given."""
    ours = {name: value for name, value in environment.items() if name.startswith("ABSURD_") or name == "PYTHONPATH"}
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, **changes: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["/bin/bash", SCRIPT, *words],
            env={"ABSURD_BIN": str(PROGRAMS)} | ours | changes,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for each in started:
        each.kill()
        each.communicate()


def test_a_job_offers_its_allocation_and_leaves_when_all_is_done(
    job: Callable[..., subprocess.Popen[str]], connection: Connection
) -> None:
    """Cores, memory and GPUs of the allocation are what the worker offers; it ends when its queue is done."""
    connection.execute("select spawn_task('imaging', 'cli.add', '{\"a\": 1, \"b\": 2}', null)")

    process = job(QUEUE="imaging", **ALLOCATION)
    _, said = process.communicate(timeout=60)

    assert 0 == process.returncode, said
    (row,) = connection.execute("select concurrency, queues, offers, state from worker").fetchall()
    assert row[:2] == (3, ["imaging"])
    assert isinstance(row[2], dict)
    assert {"cpu": 3, "memory_gib": 4.88, "gpu": 1}.items() <= row[2].items()
    assert row[3] == "stopped"
    assert connection.execute("select state::text from run").fetchall() == [("completed",)]


def test_a_job_hands_back_before_its_time_is_over(
    job: Callable[..., subprocess.Popen[str]], until: Until, connection: Connection
) -> None:
    """The signal that the script asks Slurm for reaches the worker itself, which hands back what does not end."""
    connection.execute("select spawn_task('default', 'cli.sleep', '{}', null)")
    asked = re.search(r"^#SBATCH --signal=B:TERM@(\d+)$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    grace = re.search(r"--grace (\d+)", SCRIPT.read_text(encoding="utf-8"))
    assert asked is not None
    assert grace is not None
    assert int(asked[1]) >= int(grace[1]) + 30

    process = job("--grace", "0.2", UNTIL="forever")  # an allocation that tells nothing of itself
    until(lambda: connection.execute("select from lease").fetchall())
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)

    assert 0 == process.returncode, said
    assert connection.execute("select attempt from ready").fetchall() == [(1,)]
    assert connection.execute("select concurrency from worker").fetchall() == [(1,)]


def test_a_job_that_is_asked_for_nonsense_says_so(job: Callable[..., subprocess.Popen[str]]) -> None:
    """A misspelt variable ends the job at once, as a wrong call."""
    process = job(UNTIL="dawn")
    _, said = process.communicate(timeout=60)

    assert (2, True) == (process.returncode, "'dawn'" in said)


def test_the_scripts_are_fit_to_be_run() -> None:
    """The script can be executed, and bash finds no fault in it."""
    assert os.access(SCRIPT, os.X_OK)
    checked = subprocess.run(["/bin/bash", "-n", SCRIPT], capture_output=True, text=True, check=False)

    assert (0, "") == (checked.returncode, checked.stderr)
