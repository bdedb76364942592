"""CASA's tclean, in a process of a Python that has casatasks."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absurd.tasks.imaging.deconvolve import Stop, Tell
from absurd.tasks.imaging.engines.engine import Recording
from absurd.tasks.imaging.engines.outside import prepare, result_of, run_program
from absurd.tasks.imaging.imager import ImagingResult
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.radio.errors import ValidationError

_SCRIPT = """\
import json, sys
import casatasks
job = json.load(open("job.json"))
done = casatasks.tclean(vis="tile.ms", imagename="made", **job)
for name in ("image", "model", "residual", "psf"):
    casatasks.exportfits("made." + name, name + ".fits", overwrite=True)
print("stopcode", done.get("stopcode"))
"""
_GRIDDERS = {"wproject": "wproject", "widefield": "widefield", "wgridder": "wproject", "standard": "standard"}
_STOPS: dict[str, Stop] = {"1": "niter", "2": "threshold"}


@dataclass(frozen=True, slots=True)
class TcleanEngine:
    """Of one plane, without masks other than its own of the whole image."""

    scratch: Callable[[], Path]
    python: str = sys.executable
    """Path of a Python with casatasks and casadata."""
    name: str = "tclean"

    def image(self, recording: Recording, parameters: ImagingParameters, tell: Tell) -> list[ImagingResult]:
        """As `Engine.image`."""
        job = job_of(parameters)
        with tempfile.TemporaryDirectory(prefix="tclean_", dir=self.scratch()) as made:
            folder = Path(made)
            tell("reading")
            samples = prepare(recording.read(), parameters, folder / "tile.ms")
            (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
            (folder / "script.py").write_text(_SCRIPT, encoding="utf-8")
            tell("cleaning")
            told = run_program([self.python, "script.py"], folder, {"OMP_NUM_THREADS": "1"})
            stop = _STOPS.get(told.rpartition("stopcode")[2].strip(), "cycles")
            files = {each: folder / f"{each}.fits" for each in ("image", "model", "residual", "psf")}
            return [result_of(files, samples, parameters, self.name, stop)]


def job_of(parameters: ImagingParameters) -> dict[str, Any]:
    """The same parameters in tclean's words.  Raises ValidationError for what it has not, or is not given."""
    asked = [name for name in ("mask", "auto_mask", "auto_threshold") if getattr(parameters, name) is not None]
    if asked or parameters.planes > 1 or parameters.gridder == "idg":
        wrong = ", ".join(asked) or ("gridder idg" if parameters.gridder == "idg" else "planes")
        raise ValidationError(f"{wrong}: not with tclean", advice="take engine embedded")
    job: dict[str, Any] = {
        "imsize": list(parameters.image_size),
        "cell": f"{math.degrees(parameters.cell_rad) * 3600:.9g}arcsec",
        "stokes": "I",
        "specmode": "mfs",
        "gridder": "standard" if parameters.is_flat else _GRIDDERS[parameters.gridder],
        "deconvolver": parameters.deconvolver,
        "niter": parameters.niter,
        "threshold": f"{parameters.threshold_jy:.9g}Jy",
        "gain": parameters.gain,
        "weighting": parameters.weighting,
        "robust": parameters.robust,
        "uvrange": parameters.uvrange,
        "pblimit": -0.01,
        "calcpsf": True,
    }
    if job["gridder"] == "wproject":
        job["wprojplanes"] = parameters.wprojplanes
    if parameters.deconvolver == "multiscale":
        job["scales"] = list(parameters.scales)
    return job
