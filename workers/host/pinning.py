"""How many threads a run's libraries may start: so that runs side by side share the cores, and do not fight for them.

Libraries read these variables when they are loaded, once for the life of a process.  So a child process is started for
a number of threads, and used again only for runs of the same number: to set the pools of libraries that are loaded
already would reach some of them, and of these only what is loaded at that moment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from absurd.executor import Executor
from absurd.model import Claim
from absurd.workers.host.memory import needs_of
from absurd.workers.host.offers import cores

VARIABLES = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def cpu_threads(claim: Claim | None, executor: Executor | None, concurrency: int) -> int:
    """How many threads a run may have: what its task needs of ``cpu``, rounded up, else its share of the cores."""
    wanted = None if claim is None or executor is None else needs_of(claim, executor).get("cpu")
    return max(1, math.ceil(wanted) if wanted else cores() // concurrency)


def thread_variables(threads: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of a process for so many threads; those that `environ` sets stand as they are."""
    return {name: str(threads) for name in VARIABLES if name not in environ}
