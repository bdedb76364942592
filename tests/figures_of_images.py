"""What the figures of images, mosaics and photometry measure."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
from imaged import drift, middle_of, pixel_of, source
from radio_skies import Field, add, draw, scattered, write
from single_run import run

from absurd.tasks.imaging.imager import image_visibilities
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.photometry.forced import measure
from absurd.tasks.photometry.shapes import beam_shape, beam_shapes, round_shape
from absurd.tasks.radio.sky_image import open_sky_image

Numbers = dict[str, float]
_PLACES = ((31.0, 17.0), (-43.0, 9.0), (12.0, -38.0), (-20.0, 41.0), (48.0, -30.0))
"""Arcminutes east and north."""


def imaging(snr: float) -> Numbers:
    """Of five sources with a flux density of so many thermal deviations, cleaned: how far the image is off."""
    thermal = 1.1e-3
    parameters = ImagingParameters(
        image_size=(512, 512), cell_size="15arcsec", threshold=3 * thermal, niter=5000, primary_beam="none",
        deconvolver="clark",
    )  # fmt: skip
    seen = drift([(*each, snr * thermal) for each in _PLACES], noise_jy=0.1, antennas=40, times=4, channels=4)
    result = image_visibilities(seen, parameters)
    ra, dec = (math.radians(each) for each in middle_of(seen))
    p, q, r = result.beam.form(result.geometry.cell_rad)
    off = []
    for each in _PLACES:
        x, y = pixel_of(result.geometry, source(ra, dec, *each, 1.0))
        ys, xs = np.mgrid[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
        form = np.exp(-(p * (ys - y) ** 2 + q * (xs - x) * (ys - y) + r * (xs - x) ** 2))
        flux = (form * result.image[ys, xs]).sum() / (form * form).sum()
        off.append(flux / (snr * thermal) - 1)
    noise = result.statistics["thermal_jy"] / (snr * thermal)
    return {"error of flux densities": 100 * float(np.sqrt(np.mean(np.square(off)))), "thermal noise": 100 * noise}


def mosaic(width: float) -> Numbers:
    """Of two tiles without noise to speak of: what a mosaic changes of flux densities."""
    rng = np.random.default_rng(3)
    fields = [Field(ra, 54.6, side=200, width=width, noise=1e-7) for ra in (359.6, 0.6)]
    places = scattered(rng, 0.1, 54.6, 25, across=0.7, up=0.8, apart=0.25)
    with tempfile.TemporaryDirectory() as name:
        sky = [(*each, 1.0) for each in places]
        tiles = [str(write(Path(name) / f"{n}.fits", each, draw(each, sky, rng))) for n, each in enumerate(fields)]
        run("imaging.mosaic", {"tiles": tiles, "out": f"{name}/m.fits"})
        image = open_sky_image(f"{name}/m.fits")
        assert image.beam is not None
        ra, dec = np.array(places).T
        x, y = image.wcs.wcs_world2pix(ra, dec, 0)
        shapes = beam_shapes(image, image.beam, ra, dec)
        found = measure(image.pixels(), x, y, beam_shape(image, image.beam), shapes=shapes)
    off = 100 * np.abs(found.flux - 1)
    return {"median": float(np.median(off)), "worst of 25": float(off.max())}


def blends(apart: float) -> Numbers:
    """Of pairs of 100 and 50 mJy in a noise of 0.5: how far the fainter flux density is off, by distance in beams."""
    rng = np.random.default_rng(5)
    pixels = draw(Field(150.0, 40.0, side=400, noise=0.0005, attenuated=False), [], rng)
    x, y = [], []
    for n in range(36):
        at, turn = (40.3 + 60 * (n % 6), 40.6 + 60 * (n // 6)), rng.uniform(0, 2 * np.pi)
        for place, peak in ((at, 0.1), ((at[0] + 5 * apart * np.cos(turn), at[1] + 5 * apart * np.sin(turn)), 0.05)):
            add(pixels, place[0], place[1], peak, 5, 5)
            x.append(place[0])
            y.append(place[1])
    beam = round_shape(5.0)
    together = measure(pixels, np.array(x), np.array(y), beam)
    alone = measure(pixels, np.array(x)[1::2], np.array(y)[1::2], beam)
    told = {"fitted together": together.flux[1::2], "each for itself": alone.flux}
    return {name: 100 * float(np.sqrt(np.mean((flux / 0.05 - 1) ** 2))) for name, flux in told.items()}
