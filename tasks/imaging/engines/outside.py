"""What imagers that are programs of their own have in common: a Measurement Set for them, and what they wrote."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.beam_fit import fit_beam
from absurd.tasks.imaging.deconvolve import Stop, noise
from absurd.tasks.imaging.geometry import Geometry
from absurd.tasks.imaging.imager import ImagingResult, dish_beam
from absurd.tasks.imaging.masks import read_mask
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.primary_beam import primary_beam
from absurd.tasks.imaging.samples import Samples, samples_of
from absurd.tasks.quiet import quiet
from absurd.tasks.radio.errors import DependencyError, ImagingError
from absurd.tasks.visibility.measurement_set import write_measurement_set
from absurd.tasks.visibility.uvw import phase_to
from absurd.tasks.visibility.visibilities import Visibilities

Pixels = NDArray[np.float32]
TIMEOUT_S = 3600.0


def prepare(visibilities: Visibilities, parameters: ImagingParameters, path: Path) -> Samples:
    """Write a Measurement Set with the centre of the image as its one phase centre; gives what is imaged of it."""
    samples = samples_of(visibilities, parameters)
    centre = samples.centre
    write_measurement_set(phase_to(visibilities, centre.ra_rad, centre.dec_rad, name=centre.name), path)
    return samples


def write_mask(parameters: ImagingParameters, geometry: Geometry, path: Path) -> None:
    """The mask, whatever it is given as, as FITS on the image's grid."""
    from astropy.io import fits

    assert parameters.mask is not None
    with quiet():
        mask = read_mask(parameters.mask, geometry).astype(np.float32)
        fits.writeto(path, mask[None, None], geometry.wcs.to_header())


def run_program(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run in a folder, in a group of its own that ends with it; gives what it printed.

    Raises DependencyError where the program is not there, ImagingError where it fails or takes an hour.
    """
    with (folder / "said").open("wb") as said:
        try:
            process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **(environment or {})}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except FileNotFoundError:
            raise DependencyError(
                f"{command[0]} is not installed", advice="install it, or take engine embedded"
            ) from None
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ImagingError(f"{command[0]} had not ended after {TIMEOUT_S:g} s, and was ended") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    told = (folder / "said").read_text(encoding="utf-8", errors="replace")
    if code:
        raise ImagingError(f"{command[0]} ended with code {code}: {told.strip()[-2000:] or 'it said nothing'}")
    return told


def result_of(
    files: Mapping[str, Path], part: Samples, parameters: ImagingParameters, engine: str, stop: Stop
) -> ImagingResult:
    """Of the images image, model, residual and psf of a plane; its beam is fitted as for the embedded engine."""
    nx, ny = parameters.image_size
    geometry = Geometry(part.centre, (ny, nx), parameters.cell_rad)
    images = {name: _read(path) for name, path in files.items()}
    by_channel = part.weights.sum(axis=0, dtype=np.float64)
    rms, top = noise(images["residual"]), float(np.nanmax(images["image"]))
    return ImagingResult(
        image=images["image"],
        model=images["model"],
        residual=images["residual"],
        psf=images["psf"],
        pb=primary_beam(part, part.weights, geometry, dish_beam(parameters, part)),
        geometry=geometry,
        beam=fit_beam(images["psf"], parameters.cell_rad),
        frequency_hz=float(np.average(part.frequencies_hz, weights=by_channel)),
        bandwidth_hz=float(np.abs(part.channel_width_hz).sum()),
        span_s=part.span_s,
        telescope=part.array.telescope,
        engine=engine,
        stopped_by=stop,
        statistics={"rms_jy": rms, "peak_jy": top, "dynamic_range": top / rms if rms else float("inf")},
    )


def _read(path: Path) -> Pixels:
    from astropy.io import fits

    with quiet(), fits.open(path, memmap=False) as units:
        pixels = np.squeeze(units[0].data).astype(np.float32)
    return np.ascontiguousarray(pixels)
