"""The program ``absurd-scheduler``."""

from __future__ import annotations

import click

from absurd.cli.output import settings_of, shared_options
from absurd.cli.run import run


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: absurd-scheduler --database-url postgresql://absurd@db.example.org/absurd",
)
@click.option(
    "--metrics", metavar="ADDRESS:PORT", help="Where to answer Prometheus.  [ABSURD_SCHEDULER_METRICS; nowhere]"
)
@click.version_option(package_name="absurd", message="%(prog)s %(version)s")
@shared_options()
@click.pass_context
def absurd_scheduler(ctx: click.Context, metrics: str | None) -> None:
    """Make due work appear and take back what lost workers held, until told to stop.

    Start as many as you like, on any hosts: one does the work, the others stand by.
    """
    settings = settings_of(ctx, scheduler_metrics=metrics)
    from absurd.scheduler.daemon import serve
    from absurd.telemetry import configure_logging

    configure_logging(settings)
    serve(settings)


def main() -> None:
    """The console script ``absurd-scheduler``."""
    run(absurd_scheduler, "absurd-scheduler")


if __name__ == "__main__":
    main()
