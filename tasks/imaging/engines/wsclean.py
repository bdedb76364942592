"""WSClean (Offringa and others 2014), whatever version is on the path."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from absurd.tasks.imaging.deconvolve import Stop, Tell
from absurd.tasks.imaging.engines.engine import Recording
from absurd.tasks.imaging.engines.outside import prepare, result_of, run_program, write_mask
from absurd.tasks.imaging.geometry import Geometry
from absurd.tasks.imaging.image_set import parts_of
from absurd.tasks.imaging.imager import ImagingResult
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.radio.errors import DependencyError, ValidationError

_ARCSEC = 180 * 3600 / math.pi


@dataclass(frozen=True, slots=True)
class WSCleanEngine:
    """Of Stokes I, with its w-gridder; w is never left out, and Clark's is its own cleaning."""

    scratch: Callable[[], Path]
    program: str = "wsclean"
    name: str = "wsclean"

    def image(self, recording: Recording, parameters: ImagingParameters, tell: Tell) -> list[ImagingResult]:
        """As `Engine.image`."""
        known = options(self.program)
        with tempfile.TemporaryDirectory(prefix="wsclean_", dir=self.scratch()) as made:
            folder = Path(made)
            arguments = arguments_of(parameters, known)
            tell("reading")
            samples = prepare(recording.read(), parameters, folder / "tile.ms")
            parts = parts_of(samples, parameters)
            if parameters.mask is not None:
                nx, ny = parameters.image_size
                write_mask(parameters, Geometry(samples.centre, (ny, nx), parameters.cell_rad), folder / "mask.fits")
                arguments += ["-fits-mask", "mask.fits"]
            tell("cleaning")
            told = run_program([self.program, *arguments, "-name", "made", "tile.ms"], folder)
            results = []
            for plane, channels in parts.items():
                stem = "made" if parameters.planes == 1 else f"made-{plane:04d}"
                files = {each: folder / f"{stem}-{each}.fits" for each in ("image", "model", "residual", "psf")}
                if not parameters.niter:
                    files |= {"residual": folder / f"{stem}-image.fits"}
                results.append(
                    result_of(files, samples.channels(channels), parameters, self.name, _stop(told, parameters))
                )
            return results


@cache
def options(program: str) -> frozenset[str]:
    """Names of the options that this version has, without the dash.  Raises DependencyError where it is not there."""
    try:
        told = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False, errors="replace")
    except (FileNotFoundError, subprocess.TimeoutExpired):
        raise DependencyError(f"{program} is not installed", advice="install it, or take engine embedded") from None
    lines = (told.stdout + told.stderr).splitlines()
    return frozenset(name for line in lines for name in re.findall(r"(?:^|or )-([a-z][a-z0-9-]*)", line))


def arguments_of(parameters: ImagingParameters, known: Collection[str]) -> list[str]:
    """The same parameters in the words of a version with those options.

    Raises ValidationError for what it has not.
    """
    if parameters.deconvolver == "mtmfs":
        raise ValidationError("deconvolver mtmfs is one of tclean", advice="take engine tclean, or multiscale")
    if parameters.uvrange:
        raise ValidationError("uvrange is not given to WSClean", advice="take engine embedded, or flag what is outside")
    nx, ny = parameters.image_size
    told = ["-quiet", "-no-update-model-required", "-pol", "I", "-size", str(nx), str(ny)]
    told += ["-scale", f"{parameters.cell_rad * _ARCSEC:.9g}asec", "-weight", parameters.weighting]
    if parameters.weighting == "briggs":
        told.append(f"{parameters.robust:g}")
    told += ["-niter", str(parameters.niter), "-gain", f"{parameters.gain:g}", "-mgain", f"{parameters.mgain:g}"]
    told += ["-abs-threshold" if "abs-threshold" in known else "-threshold", f"{parameters.threshold_jy:.9g}"]
    gridder = "idg" if parameters.gridder == "idg" else "wgridder"
    told += ["-gridder", gridder] if "gridder" in known else [f"-use-{gridder}"]
    if parameters.deconvolver == "multiscale":
        told += ["-multiscale", "-multiscale-scales", ",".join(f"{each:g}" for each in parameters.scales)]
    for name, value in (("auto-mask", parameters.auto_mask), ("auto-threshold", parameters.auto_threshold)):
        if value is not None:
            told += [f"-{name}", f"{value:g}"]
    if parameters.planes > 1:
        told += ["-channels-out", str(parameters.planes)]
    return told


def _stop(told: str, parameters: ImagingParameters) -> Stop:
    """As far as it says so."""
    return "niter" if "aximum number of iterations" in told or not parameters.niter else "threshold"
