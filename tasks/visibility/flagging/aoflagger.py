"""AOFlagger, where it is installed: the program looks at a block of baselines in a Measurement Set of its own.

It writes flags into the set it is given, and is not told to keep those that are there, so it never gets the real one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from absurd.tasks.radio.errors import DependencyError, StageError, ValidationError
from absurd.tasks.visibility.flagging.low_pass import Bools
from absurd.tasks.visibility.flagging.recording import take
from absurd.tasks.visibility.flagging.strategy import AOFlagger
from absurd.tasks.visibility.visibilities import Visibilities

OUR_STRATEGY = Path(__file__).with_name("aoflagger.lua")
LONGEST_ERROR = 400
"""Characters of the program's own words in an error."""
STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Program:
    """An installed AOFlagger."""

    path: str
    version: str
    options: frozenset[str]
    """That its help names, such as ``-strategy``."""


@cache
def find_program(path: str = "aoflagger") -> Program:
    """The program on PATH, with its version and options.  Raises DependencyError if there is none that answers."""
    found = shutil.which(path)
    if found is None:
        raise DependencyError("AOFlagger is not installed", advice="apt-get install aoflagger, or another strategy")
    try:  # without arguments it tells its version and how it is called
        told = subprocess.run(
            [found], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DependencyError(f"{found} does not answer: {error}") from error
    said = told.stdout + told.stderr
    version = re.search(r"AOFlagger (\d[\w.]*)", said)
    options = frozenset(re.findall(r"^  (-[a-z][a-z-]*)", said, re.MULTILINE))
    if version is None or not {"-j", "-strategy"} <= options:
        raise DependencyError(f"{found} is no AOFlagger that is known: {' '.join(said.split())[:LONGEST_ERROR]}")
    return Program(found, version[1], options)


def check(settings: AOFlagger) -> Program:
    """The program, and that the strategy's file can be read; before hours of other work.

    Raises DependencyError, ValidationError.
    """
    program = find_program()
    if settings.lua is not None and not os.access(settings.lua, os.R_OK):
        raise ValidationError(f"the strategy {settings.lua} of AOFlagger cannot be read")
    return program


def command(program: Program, settings: AOFlagger, measurement_set: Path) -> list[str]:
    """How the program is called: one thread, the strategy that is asked for."""
    lua = OUR_STRATEGY if settings.lua is None else os.path.abspath(settings.lua)
    words = [program.path, "-j", "1", "-strategy", os.fspath(lua)]
    if "-column" in program.options:
        words += ["-column", "DATA"]
    return [*words, str(measurement_set)]


def aoflag(visibilities: Visibilities, settings: AOFlagger, told: Callable[[], None] = lambda: None) -> Bools:
    """(row, channel, correlation): what AOFlagger flags that was not flagged.

    The visibilities are written to a Measurement Set of their own in the folder for temporary files, in order of time
    and as one field: the program begins anew with each, and in a drift scan each integration is one.  What is flagged
    is written as 0: it has no weight there, but 1e36 or NaN times no weight is not nothing.

    Raises DependencyError, StageError.
    """
    from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set

    program = check(settings)
    changed = visibilities.with_(
        data=np.where(visibilities.flags, np.complex64(0), visibilities.data),
        field=np.zeros_like(visibilities.field),
        phase_centres=visibilities.phase_centres[:1],
    )
    order = np.argsort(visibilities.time_s, kind="stable")
    with tempfile.TemporaryDirectory(prefix="absurd-aoflagger-") as folder:
        path = Path(folder) / "block.ms"
        write_measurement_set(take(changed, order), path)
        run(command(program, settings, path), settings.seconds, told)
        flags = np.empty_like(visibilities.flags)
        flags[order] = read_measurement_set(path).flags
    new: Bools = flags & ~visibilities.flags
    return new


def run(words: list[str], seconds: float, told: Callable[[], None] = lambda: None) -> None:
    """Run the program to its end, and no longer than it may.

    Raises StageError with its own words when it fails; whatever `told`, which is called now and then, raises ends it.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise DependencyError(f"{words[0]} cannot be started: {error.strerror}") from error
        waited = 0.0
        try:
            while True:
                step = min(0.5, max(0.01, seconds - waited))
                try:
                    code = process.wait(step)
                    break
                except subprocess.TimeoutExpired:
                    waited += step
                    if waited >= seconds:
                        raise StageError(
                            f"AOFlagger has not ended after {seconds:g} s", advice="give it more, or another strategy"
                        ) from None
                    told()
        except BaseException:
            _stop(process)
            raise
        output.seek(0)
        said = output.read().decode(errors="replace")
    if code:
        raise StageError(f"AOFlagger failed: {_problem(said) or f'exit code {code}'}", exit_code=code)


def _stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _problem(said: str) -> str:
    """The end of what it said, where the reason stands."""
    return " ".join(said.split())[-LONGEST_ERROR:]
