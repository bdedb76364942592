"""``absurd completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import click

from absurd.cli.output import emit, json_option
from absurd.cli.programs import programs

SHELLS = ("bash", "zsh", "fish")


@click.command(epilog='Example: eval "$(absurd completion bash)"')
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print what makes a shell complete commands, options and choices.

    To have it in each new shell, put the line of the example into ~/.bashrc or ~/.zshrc (zsh in the place of bash);
    for fish write it to ~/.config/fish/completions/absurd.fish.
    """
    script = "\n".join(_source(shell, name, program) for name, program in programs().items())
    emit({"shell": shell, "script": script}, as_json=as_json, text=script)


def _source(shell: str, name: str, program: click.Command) -> str:
    """As click writes it, without the look at the version of a bash that may not be here."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, shell
    written = kind(program, {}, name, f"_{name.replace('-', '_').upper()}_COMPLETE")
    return written.source_template % written.source_vars()
