"""What is written here is what other programs take it for: sources are imaged where they are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from recordings import Recording

from absurd.tasks.quiet import quiet
from absurd.tasks.visibility.convert import convert_group
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.uvw import phase_to

PATIENCE = 120
_QUIETLY = "-no-update-model-required -quiet"
ANTENNAS = tuple(
    (float(east), float(north), float(up))
    for east, north, up in np.random.default_rng(17).normal(size=(14, 3)) * [250, 250, 3]
)


@pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed")
def test_wsclean_images_a_source_where_it_is(tmp_path: Path) -> None:
    """The brightest pixel is at the ICRS place of the brighter source, to a pixel, and has its flux."""
    recording = Recording(antennas=ANTENNAS, sources=((0.31, 0.22, 3.0), (-0.12, 0.43, 0.5)), integrations=4)
    files = [recording.write_subband(tmp_path / f"{number}.hdf5", number) for number in range(2)]
    convert_group(files, tmp_path / "drift.ms")
    drift = read_measurement_set(tmp_path / "drift.ms")
    drift = drift.with_(flags=drift.flags | drift.is_auto[:, None, None])
    middle = recording.centre[2]
    write_measurement_set(phase_to(drift, middle.ra.rad, middle.dec.rad), tmp_path / "out.ms")

    done = subprocess.run(
        f"wsclean -name image -size 600 600 -scale 8asec -pol XX -j 1 -niter 0 {_QUIETLY} out.ms".split(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    with quiet(), fits.open(tmp_path / "image-dirty.fits") as image:
        pixels, sky = np.squeeze(image[0].data), WCS(image[0].header).celestial
        row, column = np.unravel_index(np.argmax(pixels), pixels.shape)
        found: SkyCoord = sky.pixel_to_world(column, row)
    assert found.separation(recording.sky[0]).arcsec < 8
    assert pixels[row, column] == pytest.approx(3.0, rel=0.1)
