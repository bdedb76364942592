"""``absurd metrics``: what Prometheus is told, and the files that come along for it."""

from __future__ import annotations

from pathlib import Path

import click

from absurd.cli.connection import database_of
from absurd.cli.output import emit, json_option


@click.group()
def metrics() -> None:
    """Show the metrics of the queue; print alert rules and a dashboard over them."""


@metrics.command(epilog="Example: absurd metrics show > /var/lib/node_exporter/absurd.prom")
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Show the metrics of the whole queue as Prometheus reads them."""
    from absurd import inspection
    from absurd.metrics import exposition
    from absurd.readings import read_queue

    with database_of(ctx) as database:
        samples = read_queue(database.run(inspection.get_status()), database.run(inspection.get_metrics()))
    found = [{"name": each.name, "labels": each.labels, "value": float(each.value)} for each in samples]
    emit(found, as_json=as_json, text=exposition(samples).rstrip("\n"))


@metrics.command(epilog="Example: absurd metrics alerts > /etc/prometheus/absurd.yaml")
@json_option
def alerts(as_json: bool) -> None:
    """Print alert rules for Prometheus; with --json where the file of them is."""
    from absurd.monitoring import ALERTS

    _print(ALERTS, as_json=as_json)


@metrics.command(epilog="Example: absurd metrics dashboard > absurd.json")
@json_option
def dashboard(as_json: bool) -> None:
    """Print a dashboard for Grafana; with --json where the file of it is."""
    from absurd.monitoring import DASHBOARD

    _print(DASHBOARD, as_json=as_json)


def _print(file: Path, *, as_json: bool) -> None:
    emit({"path": str(file)}, as_json=as_json, text=file.read_text(encoding="utf-8").rstrip("\n"))
