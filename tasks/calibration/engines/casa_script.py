"""Run by a Python that has casatasks, in a folder of its own: ``python casa_script.py job.json``.

Nothing of this package is imported: that Python need not have it.  Each calibration table ends as an .npz file of its
columns, with the row first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(job_path: str) -> int:
    """Make the calls of the job: 0, or 3 without casatasks."""
    try:
        import casatasks
        import casatools
        import numpy as np
    except ImportError:
        return 3
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    for step in job["steps"]:
        call = getattr(casatasks, step["task"])
        call(vis=job["ms"], caltable=step["table"], gaintable=step["apply"], **step["with"])
        if not Path(step["table"]).is_dir():
            sys.stderr.write(f"{step['task']} has made no table {step['table']}\n")
            return 1
        table = casatools.table()
        table.open(step["table"])
        names = ("TIME", "INTERVAL", "ANTENNA1", "ANTENNA2", "CPARAM", "FLAG", "SNR")
        columns: dict[str, Any] = {name: np.moveaxis(table.getcol(name), -1, 0) for name in names}
        table.close()
        for name in ("CPARAM", "FLAG", "SNR"):
            columns[name] = columns[name].swapaxes(1, 2)  # (row, channel, polarisation)
        np.savez(step["table"] + ".npz", **columns)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
