"""What is gridded: visibilities of Stokes I, phased to the centre of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.errors import DataError
from absurd.tasks.radio.quantity import uv_range
from absurd.tasks.visibility.uvw import phase_to
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

Floats = NDArray[np.float64]
_PAIRS = (("I",), ("XX", "YY"), ("RR", "LL"))


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Stokes I of cross correlations, in order of time, all with one phase centre."""

    values: NDArray[np.complex64]
    """(row, channel), Jy; 0 where the weight is."""
    weights: NDArray[np.float32]
    """(row, channel): 1 / variance of the real part; 0 where nothing is to be used."""
    uvw_m: Floats
    """(row, 3)."""
    frequencies_hz: Floats
    channel_width_hz: Floats
    time_s: Floats
    """(row,), ascending: the middle of each integration."""
    span_s: tuple[float, float]
    """Begin of the first integration and end of the last, of what is used."""
    starts: NDArray[np.intp]
    """(time + 1,): where the rows of each time begin, and the end."""
    centre: PhaseCentre
    pointings: Floats
    """(pointing, 3): right ascension and declination (ICRS, radians) to which dishes looked, and their weight."""
    array: Array

    def channels(self, some: slice) -> Samples:
        """Those of some channels."""
        from dataclasses import replace

        return replace(
            self,
            values=np.ascontiguousarray(self.values[:, some]),
            weights=np.ascontiguousarray(self.weights[:, some]),
            frequencies_hz=self.frequencies_hz[some],
            channel_width_hz=self.channel_width_hz[some],
        )


def samples_of(visibilities: Visibilities, parameters: ImagingParameters) -> Samples:
    """Stokes I is the mean of the two parallel hands where neither is flagged; of one hand alone, where there is one.

    Raises DataError where nothing is usable.
    """
    values, weights = _stokes_i(visibilities)
    weights[visibilities.is_auto] = 0
    if parameters.uvrange:
        weights *= uv_range(parameters.uvrange).contains(visibilities.uvw_m, visibilities.frequencies_hz)
    by_field = np.bincount(visibilities.field, weights.sum(axis=1), len(visibilities.phase_centres)).astype(np.float64)
    if not by_field.any():
        raise DataError("no visibility is usable", advice="all are flagged, have no weight or are out of uvrange")
    centre = _centre(visibilities.phase_centres, by_field, parameters)
    intensity = visibilities.with_(
        data=values[:, :, None],
        flags=(weights == 0)[:, :, None],
        weights=weights[:, :, None],
        correlations=("I",),
    )
    phased = intensity
    if any((each.ra_rad, each.dec_rad) != (centre.ra_rad, centre.dec_rad) for each in visibilities.phase_centres):
        phased = phase_to(intensity, centre.ra_rad, centre.dec_rad, name=centre.name)
    keep = np.flatnonzero(weights.any(axis=1))
    order = keep[np.argsort(visibilities.time_s[keep], kind="stable")]
    everything = len(order) == len(weights) and bool((np.diff(order) == 1).all())
    take = slice(None) if everything else order
    time, half = visibilities.time_s[take], visibilities.exposure_s[take] / 2
    starts = np.concatenate([[0], np.flatnonzero(np.diff(time)) + 1, [len(time)]]).astype(np.intp)
    seen = np.flatnonzero(by_field)
    pointings = [
        (visibilities.phase_centres[each].ra_rad, visibilities.phase_centres[each].dec_rad, by_field[each])
        for each in seen
    ]
    return Samples(
        phased.data[take, :, 0],
        weights[take],
        phased.uvw_m[take],
        visibilities.frequencies_hz,
        visibilities.channel_width_hz,
        time,
        (float((time - half).min()), float((time + half).max())),
        starts,
        centre,
        np.array(pointings),
        visibilities.array,
    )


def _stokes_i(visibilities: Visibilities) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    names = visibilities.correlations
    hands = next((pair for pair in _PAIRS if set(pair) <= set(names)), None)
    if hands is None:
        alone = [each for pair in _PAIRS for each in pair if each in names]
        if not alone:
            raise DataError(f"correlations {', '.join(names)} tell nothing of Stokes I")
        hands = (alone[0],)
    one, two = names.index(hands[0]), names.index(hands[-1])
    values = np.empty(visibilities.data.shape[:2], np.complex64)
    weights = np.empty(values.shape, np.float32)
    _mean(visibilities.data, visibilities.flags, visibilities.weights, one, two, values, weights)
    return values, weights


@kernel
def _mean(
    data: NDArray[np.complex64],
    flags: NDArray[np.bool_],
    weights: NDArray[np.float32],
    one: int,
    two: int,
    values: NDArray[np.complex64],
    total: NDArray[np.float32],
) -> None:
    """The mean of two correlations and its weight; of one and the same it is that."""
    for row in range(values.shape[0]):
        for channel in range(values.shape[1]):
            left, right = weights[row, channel, one], weights[row, channel, two]
            value = np.complex64(0.5) * (data[row, channel, one] + data[row, channel, two])
            usable = not (flags[row, channel, one] or flags[row, channel, two]) and left > 0 and right > 0
            if usable and np.isfinite(value.real) and np.isfinite(value.imag):
                values[row, channel] = value
                total[row, channel] = left if one == two else 4.0 * left * right / (left + right)
            else:
                values[row, channel] = 0
                total[row, channel] = 0


def _centre(fields: tuple[PhaseCentre, ...], weight: Floats, parameters: ImagingParameters) -> PhaseCentre:
    """The one that is asked for, or the middle of what was looked at: the mean of unit vectors, by weight."""
    if parameters.centre is not None:
        ra, dec = parameters.centre
        return PhaseCentre("image", math.radians(ra), math.radians(dec))
    if np.count_nonzero(weight) == 1:
        return fields[int(np.argmax(weight))]
    ra, dec = np.array([[each.ra_rad, each.dec_rad] for each in fields]).T
    x, y, z = (
        float((weight * each).sum()) for each in (np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec))
    )
    return PhaseCentre("image", math.atan2(y, x) % math.tau, math.atan2(z, math.hypot(x, y)))
