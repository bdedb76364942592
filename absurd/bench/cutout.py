"""How many cut-outs a second: the batch engine beside what else cuts out of FITS, on the same files in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absurd.bench import coadds, cutters
from absurd.bench.figures import Figure
from absurd.tasks.cutout.batch import cut_stream
from absurd.tasks.cutout.targets import Targets

BUDGET = 20.0
"""Seconds after which a slow contestant is stopped: its rate is that of the positions it has come to."""

_MEMORY = """
import json, sys
from pathlib import Path
from absurd.bench.cutout import stream
print(json.dumps(stream(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
"""


def measure(
    *, rounds: int, side: int, positions: int, size: int, many: int, tell: Callable[[str], None]
) -> list[list[Figure]]:
    """Figures of each round: five-band cut-outs a second by contestant and kind of file, and what they are of another.

    Coadds of `side` x `side` pixels are made first, in a folder that goes afterwards.  In each round each contestant
    cuts `positions` boxes of `size` x `size` pixels out of each kind, beginning with another one each time.  At last
    `many` cut-outs are streamed in a process of their own, whose memory is watched.
    """
    found: list[list[Figure]] = []
    with tempfile.TemporaryDirectory(prefix="absurd_bench_") as name:
        folder = Path(name)
        coadds.make(folder, side, tell)
        known = cutters.contestants()
        names = list(known)
        for number in range(rounds):
            turn = number % len(names)
            rates = {}
            for kind in coadds.KINDS:
                for each in names[turn:] + names[:turn]:
                    rates[kind, each] = _rate(known[each], folder, kind, side, positions, size)
            found.append(_figures(rates, names))
            tell(f"Round {number + 1} of {rounds}: " + _told(found[-1]))
        tell(f"Streaming {many:,} positions")
        peak = _peak(folder, side, many, size)
    return [[*figures, peak] for figures in found]


def stream(folder: Path, side: int, n: int, size: int) -> tuple[int, float]:
    """Cut `n` boxes out of the plain images and keep none: how many there were, and the memory it took, in MiB.

    It is looked at when a batch is there, and the one before is not yet gone.  What the system counts as the most is
    no measure: a program inherits it from the one that has started it.
    """
    targets = Targets.on(coadds.positions_on(side, n), cutters.references(folder, coadds.KINDS[0]))
    done, most = 0, 0
    for batch in cut_stream(targets, (size, size)):
        done += len(batch)
        most = max(most, int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]))
    return done, most * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _rate(contestant: cutters.Contestant, folder: Path, kind: str, side: int, positions: int, size: int) -> float:
    """Cut-outs a second; the files are in memory, opened, and their headers read before.

    A system may take out of memory what nobody has read for a minute (as Linux with DAMON does); the files would then
    be read from the disk in some turns only, and the disk be measured.
    """
    for image in cutters.references(folder, kind):
        _read(Path(image.uri))
    with contestant(folder, kind, side, size) as cutter:
        began = time.perf_counter()
        done = 0
        for newly in cutter(coadds.positions_on(side, positions)):
            done += newly
            if time.perf_counter() - began > BUDGET:
                break
        return done / (time.perf_counter() - began)


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 22):
            pass


def _figures(rates: dict[tuple[str, str], float], names: Sequence[str]) -> list[Figure]:
    figures = [
        Figure(f"{kind}, {name}", rates[kind, name], "cut-outs/s", True if name == "absurd" else None)
        for kind in coadds.KINDS
        for name in names
    ]
    ratios = [
        Figure(f"{kind}, absurd over {name}", rates[kind, "absurd"] / rates[kind, name], "x")
        for kind in coadds.KINDS
        for name in names
        if name != "absurd"
    ]
    return figures + ratios


def _peak(folder: Path, side: int, many: int, size: int) -> Figure:
    told = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(folder), str(side), str(many), str(size)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    n, peak = json.loads(told.stdout)
    return Figure(f"peak memory, {n:,} cut-outs", peak, "MiB", higher=False)


def _told(figures: Sequence[Figure]) -> str:
    return "; ".join(f"{each.name} {each.value:,.3g} {each.unit}" for each in figures)
