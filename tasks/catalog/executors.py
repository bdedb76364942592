"""``catalog.*``: catalogues of sources on the queue."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from absurd.context import RunContext
from absurd.executor import executor
from absurd.tasks.catalog.params import CrossmatchParams

for module in ("astropy", "numpy", "pyarrow", "scipy"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[radio]", name=module)


@executor("catalog.crossmatch", runs_in="process")
def crossmatch(ctx: RunContext, params: CrossmatchParams) -> dict[str, Any]:
    """Tell which sources of two catalogues are the same: pairs of which each is the other's nearest.

    Rows of a Parquet file tell the pairs with their distances; the result tells how many there are, how many sources
    are in one catalogue alone, and by how much the catalogues lie beside one another.
    """
    import pyarrow.parquet as pq

    from absurd.tasks.artifact import write_aside
    from absurd.tasks.catalog.pairs import pair_catalogues

    table, told = pair_catalogues(params)
    with write_aside(ctx.artifact(params.out, kind="pairs"), private=True) as part:
        pq.write_table(table, part, compression="zstd")
    paths = [each if isinstance(each, str) else each.path for each in (params.first, params.second)]
    inputs = [{"path": os.path.abspath(each), "role": "catalogue"} for each in dict.fromkeys(paths)]
    ctx.product("table", {"path": params.out, "inputs": inputs, "facts": {"of": "pairs", "pairs": told["pairs"]}})
    return {"path": os.path.abspath(params.out), **told}
