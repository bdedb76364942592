"""PyBDSF as a finder, in a process of its own: its packages are not those of this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from absurd.tasks.photometry.params import DetectParams
from absurd.tasks.radio.errors import DependencyError, PhotometryError

_PROGRAM = """
import json, sys
import bdsf
image, catalogue, peak, island = sys.argv[1:5]
found = bdsf.process_image(image, thresh_pix=float(peak), thresh_isl=float(island), quiet=True, outdir=sys.argv[5])
rows = [
    {
        "ra": float(each.posn_sky_max[0] % 360), "dec": float(each.posn_sky_max[1]),
        "flux_jy": float(each.peak_flux_max),
        "error_jy": float(each.peak_flux_maxE), "rms_jy": float(each.rms_isl), "island": int(each.island_id),
        "island_jy": float(each.total_flux), "island_pixels": 0, "flags": 4 * (each.code != "S"),
    }
    for each in found.sources
]
json.dump(rows, open(catalogue, "w"))
"""
_SECONDS = 3600


def find(params: DetectParams, scratch: Path) -> dict[str, Any]:
    """Columns of the sources PyBDSF finds, the brightest first; `island_jy` is the integral of its Gaussians.

    Raises DependencyError where there is no PyBDSF, PhotometryError where it fails.
    """
    catalogue = scratch / "pybdsf.json"
    python = params.python or sys.executable
    limits = str(params.detection_sigma), str(params.island_sigma)
    image = str(Path(params.image).resolve())
    command = [python, "-c", _PROGRAM, image, str(catalogue), *limits, str(scratch)]
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except OSError as error:
        raise DependencyError(f"{python} cannot be run ({error})", advice="name a Python that has PyBDSF") from None
    except subprocess.TimeoutExpired:
        raise PhotometryError(f"PyBDSF was not done with {params.image} after {_SECONDS} s") from None
    if "No module named 'bdsf'" in done.stderr:
        raise DependencyError(f"{python} has no PyBDSF", advice="install bdsf there, or name another Python")
    if done.returncode or not catalogue.exists():
        said = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise PhotometryError(f"PyBDSF could not find the sources of {params.image} ({said[0]})")
    rows = sorted(json.loads(catalogue.read_text()), key=lambda each: -each["flux_jy"])
    names = ("ra", "dec", "flux_jy", "error_jy", "rms_jy", "island", "island_jy", "island_pixels", "flags")
    integers = {"island", "island_pixels", "flags"}
    return {name: np.array([each[name] for each in rows], dtype=int if name in integers else float) for name in names}
