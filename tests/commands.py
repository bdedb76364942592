"""Commands as texts name them: whether the programs have them, with their options."""

from __future__ import annotations

import re

import click

from absurd.cli.programs import programs

_WORD = re.compile(r"[a-z][a-z-]*")
_OPTION = re.compile(r"--?[a-z][a-z-]*")


def commands_in(text: str) -> list[str]:
    """What stands between backticks and begins with a program's name and a word; blocks are not looked into."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", prose)
    return [span for span in spans if span.partition(" ")[0] in programs() and " " in span]


def what_is_wrong(named: str) -> str | None:
    """The word of a command or the option that is not there; None if all are.  What stands for a value is anything."""
    program, *words = named.split()
    command: click.Command = programs()[program]
    path = [command]
    while isinstance(command, click.Group) and words and _WORD.fullmatch(words[0]):
        below = command.get_command(click.Context(command), words[0])
        if below is None:
            return words[0]
        command, words = below, words[1:]
        path.append(command)
    known = {"--help", "-h", "--version"}
    known.update(option for each in path for param in each.params for option in (*param.opts, *param.secondary_opts))
    options = [found[0] for word in words if (found := _OPTION.match(word))]
    return next((option for option in options if option not in known), None)
