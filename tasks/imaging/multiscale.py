"""Components of several widths, for what is not a point.

The widths are those of Cornwell (2008), truncated paraboloids.  Of all widths and places that one is taken off that
leaves the least behind: the square of the residual falls by R^2 / P, with R the residual and P the point spread
function smoothed with the width, once and twice, which is the choice of matching pursuit (Mallat and Zhang 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ducc0
import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.clean import Mask, minor_cycle, peak

Pixels = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
_SHARE = 0.6
"""Of its peak, down to which one width is cleaned before the choice is made anew."""
_MOST_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Blobs:
    """Components of all widths, as an image (y, x), Jy of a pixel."""

    image: Pixels
    number: int

    def __len__(self) -> int:
        return self.number

    def add_to(self, model: Pixels) -> None:
        model += self.image


class MultiScale:
    """Widths with their point spread functions."""

    def __init__(self, psf: Pixels, scales: Sequence[float]) -> None:
        self._shape = psf.shape
        self._psf = _spectrum(np.fft.ifftshift(psf))
        self._kernels = [_spectrum(np.fft.ifftshift(kernel(each, psf.shape))) for each in scales]
        self._twice = []
        for each in self._kernels:
            twice = np.fft.fftshift(self._image(self._psf * each * each))
            top = float(twice[psf.shape[0] // 2, psf.shape[1] // 2])
            self._twice.append((twice / np.float32(top), top))

    def peak(self, residual: Pixels, mask: Mask | None) -> float:
        """The highest of all widths, R / sqrt(P), Jy of a beam: noise is as high in each of them."""
        return max(self._peaks(_spectrum(residual), mask))

    def _peaks(self, left: Spectrum, mask: Mask | None) -> list[float]:
        pairs = zip(self._kernels, self._twice, strict=True)
        return [peak(self._image(left * each), mask) / top**0.5 for each, (_, top) in pairs]

    def minor_cycle(
        self, residual: Pixels, psf: Pixels, *, half: int, gain: float, limit_jy: float, most: int,
        mask: Mask | None = None,
    ) -> Blobs:  # fmt: skip
        """As `clean.minor_cycle`; the limit is one of `peak`."""
        left = _spectrum(residual)
        total, number = np.zeros_like(left), 0
        before = np.inf
        for _ in range(_MOST_ROUNDS):
            tops = self._peaks(left, mask)
            best = int(np.argmax(tops))
            if tops[best] <= limit_jy or number >= most or tops[best] > 1.2 * before:
                break
            before = min(before, tops[best])
            one, top = self._twice[best]
            # In units of the flux of a component, of which the peak is tops / sqrt(top).
            found = minor_cycle(
                self._image(left * self._kernels[best]) / np.float32(top), one, half=half, gain=gain,
                limit_jy=max(limit_jy, _SHARE * tops[best]) / top**0.5, most=most - number, mask=mask,
            )  # fmt: skip
            if not len(found):
                break
            number += len(found)
            image = np.zeros(self._shape, np.float32)
            found.add_to(image)
            added = _spectrum(image) * self._kernels[best]
            total += added
            left -= added * self._psf
        blobs = self._image(total)
        blobs[np.abs(blobs) < 1e-6 * np.abs(blobs).max(initial=0)] = 0  # what the transforms leave
        return Blobs(blobs, number)

    def _image(self, spectrum: Spectrum) -> Pixels:
        image: Pixels = ducc0.fft.c2r(spectrum, lastsize=self._shape[1], forward=False, inorm=2, nthreads=1)
        return image


def kernel(scale: float, shape: tuple[int, ...]) -> Pixels:
    """1 - (r / scale)^2 where that is positive, with the sum 1, in the middle pixel (ny / 2, nx / 2); of 0 a point."""
    image = np.zeros(shape, np.float32)
    y0, x0 = shape[0] // 2, shape[1] // 2
    reach = min(int(scale), y0 - 1, x0 - 1)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    part = np.maximum(0, 1 - (y * y + x * x) / scale**2) if scale > 0 else np.ones((1, 1))
    image[y0 - reach : y0 + reach + 1, x0 - reach : x0 + reach + 1] = part / part.sum()
    return image


def _spectrum(image: Pixels) -> Spectrum:
    spectrum: Spectrum = ducc0.fft.r2c(np.ascontiguousarray(image, np.float32), nthreads=1)
    return spectrum
