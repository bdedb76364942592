"""What the queue costs a batch of cut-outs: processor time of worker and server, beside the same batch without one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from absurd.bench import coadds
from absurd.bench.arena import QUEUE, Arena
from absurd.bench.figures import Figure
from absurd.bench.spent import server_of, spent_by, spent_by_all
from absurd.errors import ExecutionError

BANDS = "gri"
WARM_UP = 50
"""Cut-outs that come before, so that what is imported, connected and started is there."""

_HERE = """
import json, sys, time
from absurd.tasks.cutout.cutting import cut_here
from absurd.tasks.cutout.params import BatchParams
for text in sys.argv[1:]:
    begun = time.process_time()
    made = cut_here(BatchParams(**json.loads(text)), None)
print(json.dumps([made.accepted + made.rejected, time.process_time() - begun]))
"""


def measure(arena: Arena, *, positions: int, side: int, size: int) -> list[Figure]:
    """Cut `positions` boxes of `size` x `size` pixels in three bands to tensors, in a process and then on the queue.

    Both have cut a few before.  Processor time is in milliseconds of a cut-out; that of the server is of all its
    processes, so that it should have nothing else to do.  The share of the queue is the difference of two large
    numbers, and varies with what else the machine does; that of worker and server alone hardly does.
    """
    with tempfile.TemporaryDirectory(prefix="absurd_bench_") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        coadds.make(folder / "images", side, kinds=coadds.KINDS[:1], bands=BANDS)
        batches = [_batch(folder, side, size, n, number) for number, n in enumerate((WARM_UP, positions))]
        here = _spent_here(batches, positions)
        again = [each | {"out": f"{each['out']}_queue"} for each in batches]
        cutting, worker, server = _spent_on_queue(arena, again, positions)
    spent = {"in a process": here, "cutting on the queue": cutting, "worker": worker, "server": server}
    shares = {
        "share of worker and server": (worker + server) / here,
        "share of the queue": (cutting + worker + server - here) / here,
    }
    return [
        *(Figure(name, 1000 * each / positions, "ms", higher=False) for name, each in spent.items()),
        *(Figure(name, 100 * each, "%", higher=False) for name, each in shares.items()),
    ]


def _batch(folder: Path, side: int, size: int, n: int, number: int) -> dict[str, Any]:
    """Params of a batch whose positions are in a table."""
    table = folder / f"{number}.csv"
    there = coadds.positions_on(side, n)
    table.write_text("\n".join(["ra,dec", *(f"{ra!r},{dec!r}" for ra, dec in there.tolist())]), encoding="ascii")
    how = {"size": size, "unit": "pixel", "bands": list(BANDS), "fits": False, "tensors": "none"}
    return {"positions": str(table), "source": str(folder / "images"), "out": str(folder / f"out{number}"), **how}


def _spent_here(batches: list[dict[str, Any]], positions: int) -> float:
    """Seconds of processor time of the last batch."""
    told = subprocess.run(
        [sys.executable, "-c", _HERE, *map(json.dumps, batches)], check=True, stdout=subprocess.PIPE, text=True
    )
    cut, spent = json.loads(told.stdout)
    _check(cut, positions)
    return float(spent)


def _spent_on_queue(arena: Arena, batches: list[dict[str, Any]], positions: int) -> list[float]:
    """Seconds of processor time of the processes that cut, of their worker and of the server, for the last batch."""
    database = str(arena.fetch("current_database()"))
    server = server_of(int(arena.fetch("pg_backend_pid()")), database)
    if server is None:
        raise ExecutionError("the server is on another machine: its processor time cannot be looked at from here")

    def look(worker: int) -> tuple[float, float, float]:
        own = spent_by(worker)
        return spent_by_all(worker) - own, own, spent_by_all(server)

    with arena.workers(1, 1) as (worker,):
        for each in batches:
            before = look(worker)
            result = arena.client.wait(arena.client.spawn("cutout.batch", each, queue=QUEUE)).result
            after = look(worker)
    _check(result["accepted"] + result["rejected"], positions)
    return [now - then for now, then in zip(after, before, strict=True)]


def _check(cut: int, positions: int) -> None:
    if cut != positions:
        raise ExecutionError(f"of {positions} positions {cut} were cut: this should never be")
