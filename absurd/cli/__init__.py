"""The command ``absurd``: each command parses, calls one function of the core, and prints."""

from __future__ import annotations

import click

from absurd.cli.group import LazyGroup
from absurd.cli.output import shared_options
from absurd.cli.run import run

SECTIONS = {
    "Run": {
        "up": "absurd.cli.up:up",
        "demo": "absurd.cli.demo:demo",
        "serve": "absurd.cli.serve:serve",
        "doctor": "absurd.cli.doctor:doctor",
        "db": "absurd.cli.database:db",
        "bench": "absurd.cli.bench:bench",
    },
    "Work": {
        "spawn": "absurd.cli.spawn:spawn",
        "task": "absurd.cli.task:task",
        "workflow": "absurd.cli.workflow:workflow",
        "dlq": "absurd.cli.dead_letter:dlq",
        "queue": "absurd.cli.queue:queue",
        "resource": "absurd.cli.resource:resource",
        "executor": "absurd.cli.executor:executor",
        "event": "absurd.cli.event:event",
        "schedule": "absurd.cli.schedule:schedule",
    },
    "Astronomy": {
        "catalog": "absurd.cli.sky_catalog:catalog",
        "cutout": "absurd.cli.cutout:cutout",
        "export": "absurd.cli.export:export",
        "extract-catalog": "absurd.cli.extract_catalog:extract_catalog",
        "pipeline": "absurd.cli.pipeline:pipeline",
        "session": "absurd.cli.session:session",
    },
    "Look": {
        "status": "absurd.cli.status:status",
        "top": "absurd.cli.top:top",
        "worker": "absurd.cli.worker:worker",
        "alert": "absurd.cli.alert:alert",
        "metrics": "absurd.cli.metrics:metrics",
        "token": "absurd.cli.token:token",
        "explain": "absurd.cli.explain:explain",
        "sbom": "absurd.cli.sbom:sbom",
        "completion": "absurd.cli.completion:completion",
        "man": "absurd.cli.manual:man",
    },
}


@click.command(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: absurd spawn export.query sql='select 1 as n' out=n.parquet --wait --here",
)
@click.version_option(package_name="absurd", message="%(prog)s %(version)s")
@shared_options()
def absurd() -> None:
    """Durable tasks on PostgreSQL for observatories.

    Without --database-url (or ABSURD_DATABASE_URL) an embedded PostgreSQL server is started on demand.
    """


def main() -> None:
    """The console script ``absurd``."""
    run(absurd, "absurd")
