"""How fast tables are exported to Parquet, by this project and by others that are installed, side by side.

Each export is a process of its own, from its start to its end, as users run it.  Rounds are interleaved and each begins
with another contestant, so that a slow minute of the machine hits all of them.  Every file is read again: its rows
are counted, and one column is compared with the server's.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from absurd.bench import spent
from absurd.bench.arena import PATIENCE, until
from absurd.bench.export_tables import QUERIES, Checksum, Query, checksum, fill, scratch_database
from absurd.bench.figures import Figure
from absurd.config import Settings
from absurd.database_sync import SyncSession
from absurd.database_url import parse
from absurd.errors import ExecutionError, InvalidInputError

OURS = "absurd, 2 connections"
"""What a user gets who asks for nothing else."""
FLOOR = "COPY BINARY to nowhere"
SQL, OUT = "{sql}", "{out}"
SERVICE = "bench"
_SCRIPT = str(Path(__file__).with_name("exporters.py"))
_NUMPY = """
import sys
from absurd.tasks.export import export_query
export_query("service=bench", sys.argv[1], sys.argv[2], decoder="numpy")
"""
_TITLES = {
    "csv": "CSV in two stages",
    "adbc": "ADBC",
    "connectorx": "connectorx",
    "polars_connectorx": "polars, connectorx",
    "polars_adbc": "polars, ADBC",
    "duckdb": "duckdb",
    "duckdb_unordered": "duckdb, unordered",
}
NOT_PEERS = (FLOOR, "CSV in two stages")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program that exports; `versions` are those of the packages it needs."""

    name: str
    command: tuple[str, ...]
    """With `SQL` and `OUT` where they belong."""
    versions: dict[str, str]
    writes: bool = True

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("absurd")


@dataclass(frozen=True, slots=True)
class Result:
    """Medians of the runs of one contestant on one query, or why it failed."""

    query: str
    contestant: str
    runs: int = 0
    wall: float = 0.0
    """Seconds, as all times."""
    cpu: float = 0.0
    server_cpu: float | None = None
    peak: int = 0
    """Bytes of memory, the most of all runs."""
    size: int = 0
    """Bytes of the file."""
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured, in the order of queries and contestants."""

    rows: dict[str, int]
    contestants: list[Contestant]
    absent: list[str]
    results: list[Result]
    server: str

    def figures(self) -> list[Figure]:
        """The times of those that did not fail."""
        return [
            Figure(f"{each.query}, {each.contestant}", each.wall, "s", higher=False)
            for each in self.results
            if each.failed is None
        ]

    def of(self, query: str, contestant: str) -> Result | None:
        """A result that did not fail; None if it did, or is not there."""
        found = [each for each in self.results if (each.query, each.contestant) == (query, contestant)]
        return found[0] if found and found[0].failed is None else None

    def best_peer(self, query: str) -> Result | None:
        """The fastest of others than ours that wrote the file."""
        ours = {each.name for each in self.contestants if each.is_ours}
        peers = [
            each
            for each in self.results
            if each.query == query and each.failed is None and each.contestant not in {*ours, *NOT_PEERS}
        ]
        return min(peers, key=lambda each: each.wall, default=None)

    def to_json(self) -> dict[str, Any]:
        """Of dicts and lists alone."""
        return {
            "rows": self.rows,
            "contestants": {each.name: each.versions for each in self.contestants},
            "absent": self.absent,
            "results": [{name: getattr(each, name) for name in Result.__slots__} for each in self.results],
        }


Told = Callable[[str], None]


def compare(
    settings: Settings,
    *,
    scale: float,
    rounds: int,
    queries: Sequence[str] = (),
    only: Sequence[str] = (),
    pythons: Sequence[str] = (),
    told: Told = lambda line: None,
) -> Comparison:
    """Run everything, in a database of its own.

    `queries` and `only` (contestants) pick some by name; `pythons` are interpreters with more peers.  Raises
    InvalidInputError for a name that there is not, ConfigurationError without the right to make a database.
    """
    contestants, absent = _contestants(pythons)
    contestants = _picked(contestants, only, lambda each: each.name, "contestant")
    wanted = _picked(QUERIES, queries, lambda each: each.name, "table")
    results: list[Result] = []
    with scratch_database(settings) as (url, session), _environment(url) as environment:
        told("Making the tables.")
        rows = {table: fill(session, table, scale) for table in dict.fromkeys(each.table for each in wanted)}
        server = session.fetch("select current_setting('server_version') as it")[0]["it"]
        for query in wanted:
            truth = checksum(session, query)
            race = _Race(query, truth, session, environment, url)
            found: dict[str, list[Result]] = {each.name: [] for each in contestants}
            for n in range(rounds):
                first = n % len(contestants)
                for each in contestants[first:] + contestants[:first]:
                    if any(earlier.failed for earlier in found[each.name]):
                        continue
                    run = race.run(each)
                    found[each.name].append(run)
                    told(f"{query.name}, round {n + 1} of {rounds}, {each.name}: {run.failed or f'{run.wall:.2f} s'}")
            results += [_medians(found[each.name]) for each in contestants]
        return Comparison({each.name: rows[each.table] for each in wanted}, contestants, absent, results, server)


class _Race:
    """Runs contestants on one query."""

    def __init__(
        self, query: Query, truth: Checksum, session: SyncSession, environment: dict[str, str], url: str
    ) -> None:
        self._query = query
        self._truth = truth
        self._session = session
        self._environment = environment
        backend = session.fetch("select pg_backend_pid() as pid")[0]["pid"]
        self._server = spent.server_of(backend, parse(url)["dbname"])

    def run(self, contestant: Contestant) -> Result:
        """One export, and a look at its file."""
        with TemporaryDirectory(prefix="absurd-") as folder:
            out = Path(folder) / "out.parquet"
            before = 0.0 if self._server is None else spent.spent_by_children(self._server)
            command = [each.replace(SQL, self._query.sql).replace(OUT, str(out)) for each in contestant.command]
            run = spent.spend(command, self._environment | {"TMPDIR": folder}, PATIENCE)
            until(self._is_alone, "the connections of an exporter to end")
            if self._server is not None:
                run = replace(run, server_cpu=spent.spent_by_children(self._server) - before)
            failed = run.told if run.code else self._wrong(out) if contestant.writes else None
            size = out.stat().st_size if out.exists() else 0
        result = Result(self._query.name, contestant.name, 1, run.wall, run.cpu, run.server_cpu, run.peak, size)
        return result if failed is None else Result(self._query.name, contestant.name, failed=failed)

    def _is_alone(self) -> bool:
        others = "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        return not self._session.fetch(others)

    def _wrong(self, out: Path) -> str | None:
        """What is wrong with a file."""
        query = self._query
        found = Checksum(**_script(sys.executable, "check", str(out), query.column, query.kind))
        for name, value, right in zip(Checksum._fields, found, self._truth, strict=True):
            if value != right:
                words = {"rows": f"{value} rows of {right}", "nulls": f"{value} NULLs for {right} in {query.column}"}
                return f"wrong: {words.get(name, f'other values in {query.column}')}"
        return None


def _contestants(pythons: Sequence[str]) -> tuple[list[Contestant], list[str]]:
    """Those that can be run, and the names of those that cannot."""
    found: dict[str, Contestant] = {}
    for python in (sys.executable, *pythons):
        for name, versions in _script(python, "versions").items():
            command = (python, "-P", _SCRIPT, name, SQL, OUT)
            found.setdefault(name, Contestant(_TITLES[name], command, versions))
    ours = (sys.executable, "-P", "-m", "absurd.cli.export", "--json", "--service", SERVICE, "--sql", SQL, "--out", OUT)
    always = [
        Contestant(FLOOR, _floor(), {}, writes=False),
        Contestant(OURS, (*ours, "--connections", "2"), {}),
        Contestant("absurd, 1 connection", (*ours, "--connections", "1"), {}),
        Contestant("absurd, numpy", (sys.executable, "-P", "-c", _NUMPY, SQL, OUT), {}),
    ]
    present = [found[name] for name in _TITLES if name in found]
    return always + present, [title for name, title in _TITLES.items() if name not in found]


def _floor() -> tuple[str, ...]:
    """psql, whose start takes no time; where it is not installed, the same in Python."""
    psql = shutil.which("psql")
    if psql is None:
        return (sys.executable, "-P", _SCRIPT, "floor", SQL, OUT)
    copy = f"copy ({SQL}) to stdout (format binary)"
    return (psql, "-X", "-q", "-o", os.devnull, "-v", "ON_ERROR_STOP=1", "-c", copy, f"service={SERVICE}")


def _picked(all_: Sequence[Any], wanted: Sequence[str], name: Callable[[Any], str], what: str) -> list[Any]:
    names = [name(each) for each in all_]
    for each in wanted:
        if each not in names:
            raise InvalidInputError(f"there is no {what} {each!r} here; there are {', '.join(map(repr, names))}")
    return [each for each in all_ if not wanted or name(each) in wanted]


@contextmanager
def _environment(url: str) -> Iterator[dict[str, str]]:
    """Where the database is, for ours as a service and for others as a URL: never on a command line."""
    with TemporaryDirectory(prefix="absurd-") as folder:
        services = Path(folder) / "pg_service.conf"
        services.touch(mode=0o600)
        services.write_text(f"[{SERVICE}]\n" + "".join(f"{name}={value}\n" for name, value in parse(url).items()))
        ours = {"PGSERVICEFILE": str(services), "ABSURD_BENCH_URL": url}
        yield {name: value for name, value in os.environ.items() if not name.startswith("PG")} | ours


def _script(python: str, *words: str) -> Any:
    """What the script of the exporters prints.  Raises ExecutionError."""
    ended = subprocess.run([python, "-P", _SCRIPT, *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ExecutionError(f"{python} cannot run {_SCRIPT}: {ended.stderr.strip().splitlines()[-1]}")
    return json.loads(ended.stdout)


def _medians(runs: Sequence[Result]) -> Result:
    """Of runs of one contestant; the first failure, if there is one."""
    for each in runs:
        if each.failed is not None:
            return each
    servers = [each.server_cpu for each in runs if each.server_cpu is not None]
    return replace(
        runs[0],
        runs=len(runs),
        wall=statistics.median(each.wall for each in runs),
        cpu=statistics.median(each.cpu for each in runs),
        server_cpu=statistics.median(servers) if servers else None,
        peak=max(each.peak for each in runs),
        size=runs[0].size,
    )
