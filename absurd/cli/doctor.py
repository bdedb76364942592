"""``absurd doctor``: is everything there that absurd needs, and what to do where it is not."""

from __future__ import annotations

import click

from absurd.cli.output import emit, json_option, plural, settings_of, styled


@click.command(epilog="Example: absurd doctor")
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check this machine, the database and the workers.

    Exits with 1 if something does not work.  The embedded server is started if it is the database to use.
    """
    from absurd.cli.checks import Finding, examine

    found: list[Finding] = []
    for finding in examine(settings_of(ctx)):
        found.append(finding)
        if not as_json:  # line by line: some checks take their time
            click.echo(line(finding.level, finding.name, finding.message, finding.action))
    failed = sum(each.level == "fail" for each in found)
    warned = sum(each.level == "warn" for each in found)
    counts = f"{plural(failed, 'check')} failed, {plural(warned, 'warning')}."
    verdict = counts if failed or warned else "All is well."
    emit(found, as_json=as_json, text=f"\n{verdict}")
    if failed:
        ctx.exit(1)


def line(level: str, name: str, message: str, action: str | None) -> str:
    """One check: level, what was looked at, what was found; below it what to do."""
    first = f"{styled(level, f'{level:<4}')}  {name:<12}  {message}"
    return f"{first}\n{'':20}{click.style('→', dim=True)} {action}" if action else first
