"""``absurd token``: who may come in through the web interface."""

from __future__ import annotations

from typing import Any

import click

from absurd.cli.connection import database_of
from absurd.cli.output import Table, emit, json_option, moment, note
from absurd.cli.values import seconds
from absurd.cli.worker import ago

SCOPES = ("reader", "spawner", "operator", "admin")


@click.group()
def token() -> None:
    """Make, list and revoke tokens of the web interface."""


@token.command(epilog="Example: absurd token create night-shift --scope operator --lasts 90d")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    default="reader",
    show_default=True,
    help="What it allows; each allows what those before it do.",
)
@click.option("--lasts", type=seconds, help="For how long, such as 12h or 90d.  [until it is revoked]")
@json_option
@click.pass_context
def create(ctx: click.Context, name: str, scope: str, lasts: float | None, as_json: bool) -> None:
    """Make a token and print it; it is shown this once.

    The database keeps its SHA-256 alone.
    """
    from absurd.tokens import create_token, new_token

    made = new_token()
    with database_of(ctx) as database:
        found = database.run(create_token(name, scope, made, lasts))
    emit(found | {"token": made}, as_json=as_json, text=made)
    if not as_json:
        note("Keep it: it cannot be shown again.  Who has it sends `Authorization: Bearer TOKEN`.")


@token.command("list", epilog="Example: absurd token list --all")
@click.option("--all", "every", is_flag=True, help="Those that were revoked, too.")
@json_option
@click.pass_context
def list_(ctx: click.Context, every: bool, as_json: bool) -> None:
    """Show tokens by name, what each allows, and when it was last used."""
    from absurd.tokens import list_tokens

    with database_of(ctx) as database:
        found = database.run(list_tokens(all=every))
    rows = [
        (
            each["name"],
            each["scope"],
            moment(each["created_at"]),
            each["created_by"],
            ago(each["used_at"]) if each["used_at"] else "never",
            standing(each),
        )
        for each in found
    ]
    headers = ("token", "scope", "made", "by", "last used", "in force")
    emit(found, as_json=as_json, text=Table(headers, rows, shrink="token", empty="There are no tokens."))


def standing(found: dict[str, Any]) -> str:
    """Whether a token is let in."""
    if found["revoked_at"]:
        return f"revoked {moment(found['revoked_at'])}"
    if found["expired"]:
        return f"ended {moment(found['expires_at'])}"
    return f"until {moment(found['expires_at'])}" if found["expires_at"] else "yes"


@token.command(epilog="Example: absurd token revoke night-shift")
@click.argument("name")
@json_option
@click.pass_context
def revoke(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let a token in no more, from the next request on."""
    from absurd.tokens import revoke_token

    with database_of(ctx) as database:
        found = database.run(revoke_token(name))
    emit(found, as_json=as_json, text=f"Token {name} is revoked.")
