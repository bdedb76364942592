"""Visibilities of a model of the sky: the sum over its components, without a grid.

V(u, v, w) = sum S(f) A(f, distance) G(u, v) exp(2 pi i (u l + v m + w (n - 1))), with S the flux density, A the power
of the beam at the distance from its axis, and G the transform of a Gaussian component.  Phases are reckoned in double
precision, and what is given is in single.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.rows import channels_between
from absurd.tasks.calibration.sky_model import SkyModel, separation_rad
from absurd.tasks.radio.beam import Beam
from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT
from absurd.tasks.visibility.visibilities import PhaseCentre, Visibilities

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Pointing = Literal["phase centre", "meridian"]
_ALIGNED = ("XX", "YY", "RR", "LL", "I")
"""Correlations that light without polarisation is seen in."""
_MJD_0, _DAY = 2_400_000.5, 86_400.0


def predict(
    visibilities: Visibilities,
    sky: SkyModel,
    *,
    beam: Beam | None = None,
    pointing: Pointing = "phase centre",
    declination_rad: float | None = None,
    uv_range_wavelengths: tuple[float, float] = (0.0, math.inf),
) -> NDArray[np.complex64]:
    """(row, channel, correlation), Jy: what would be seen of `sky`, in the place of each visibility.

    Each row is predicted for its own phase centre.  Without a `beam` all flux densities are apparent ones.  Its axis
    points to the `phase centre` of each row (a tracking dish, or a drift scan with a phase centre on the meridian for
    each integration), or stands on the `meridian` at a declination (of date; that of the first phase centre if it is
    not given) while the sky drifts.  Sources below the horizon of the phase centre (n < 0) are not seen.
    On baselines out of the range for which `sky` holds, projected, at each channel, what would be seen is no number.

    Raises ValidationError for frequencies that a spectrum does not hold for.  The view may be of one array for all
    correlations: copy it to write into it.
    """
    shape = visibilities.data.shape
    if pointing not in ("phase centre", "meridian"):
        raise ValidationError(f"pointing {pointing!r} is not known", advice="take phase centre or meridian")
    aligned = np.array([name in _ALIGNED for name in visibilities.correlations])
    total = np.zeros(shape[:2], np.complex64)
    if len(sky) and shape[0]:
        _predict(visibilities, sky, beam, pointing, declination_rad, total)
    first, last = channels_between(visibilities, uv_range_wavelengths)
    for row in np.flatnonzero((first > 0) | (last < shape[1])):
        total[row, : first[row]] = total[row, last[row] :] = np.nan
    if aligned.all():
        return np.broadcast_to(total[:, :, None], shape)
    return np.where(aligned, total[:, :, None], np.complex64(0))


def direction_cosines(centre: PhaseCentre, ra_rad: Floats, dec_rad: Floats) -> Floats:
    """(..., 3): l to the east, m to the north and n - 1 of directions; n - 1 without loss of digits near the centre."""
    turn = ra_rad - centre.ra_rad
    sine, cosine = math.sin(centre.dec_rad), math.cos(centre.dec_rad)
    east = np.cos(dec_rad) * np.sin(turn)
    north = np.sin(dec_rad) * cosine - np.cos(dec_rad) * sine * np.cos(turn)
    haversine = np.sin((dec_rad - centre.dec_rad) / 2) ** 2 + np.cos(dec_rad) * cosine * np.sin(turn / 2) ** 2
    return np.stack([east, north, -2 * haversine], axis=-1)


def meridian_icrs(time_s: Floats, longitude_rad: float, declination_rad: float) -> tuple[Floats, Floats]:
    """Right ascension and declination (ICRS) of what is on the meridian at a declination of date, radians.

    To 15 arcsec: the Earth's rotation is taken to be UTC, which is enough for a beam.
    """
    import erfa

    days = np.asarray(time_s, np.float64) / _DAY
    right_ascension = erfa.era00(_MJD_0, days) + longitude_rad
    ra, dec, _ = erfa.atic13(right_ascension, np.full_like(days, declination_rad), _MJD_0, days)
    return np.asarray(ra), np.asarray(dec)


def _predict(
    visibilities: Visibilities,
    sky: SkyModel,
    beam: Beam | None,
    pointing: Pointing,
    declination_rad: float | None,
    total: NDArray[np.complex64],
) -> None:
    frequencies = visibilities.frequencies_hz
    ra = np.array([each.ra_rad for each in sky])
    dec = np.array([each.dec_rad for each in sky])
    flux = np.stack([each.flux_at(frequencies) for each in sky])
    shapes = np.array([[each.major_rad, each.minor_rad, each.position_angle_rad] for each in sky])
    cosines = np.stack([direction_cosines(centre, ra, dec) for centre in visibilities.phase_centres])
    steps = np.diff(frequencies)
    step = float(steps.mean()) if len(steps) else 0.0
    even = bool(len(steps) == 0 or np.abs(steps - step).max() < 1e-9 * abs(step))
    field = visibilities.field.astype(np.int64)
    uvw_s = visibilities.uvw_m / SPEED_OF_LIGHT
    for rows, axis_ra, axis_dec in _parts(visibilities, beam, pointing, declination_rad):
        apparent = flux
        if beam is not None:
            distance = separation_rad(np.array(axis_ra), np.array(axis_dec), ra, dec)
            apparent = flux * beam.power(distance[:, None], frequencies[None, :])
        _add(rows, uvw_s, field, cosines, np.ascontiguousarray(apparent), shapes, frequencies, step, even, total)


def _parts(
    visibilities: Visibilities, beam: Beam | None, pointing: Pointing, declination_rad: float | None
) -> list[tuple[Numbers, float, float]]:
    """Rows that see the sky through the beam at one place, with that place: right ascension and declination."""
    centres = visibilities.phase_centres
    if beam is None:
        return [(np.arange(len(visibilities.time_s)), 0.0, 0.0)]
    if pointing == "phase centre":
        axes = [(each.ra_rad, each.dec_rad) for each in centres]
        number = visibilities.field.astype(np.int64)
    else:
        times, number = np.unique(visibilities.time_s, return_inverse=True)
        x, y, _ = visibilities.array.position_m
        declination = centres[0].dec_rad if declination_rad is None else declination_rad
        ra, dec = meridian_icrs(times, math.atan2(y, x), declination)
        axes, number = list(zip(ra.tolist(), dec.tolist(), strict=True)), number.reshape(-1)
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(len(axes) + 1))
    return [
        (order[ends[each] : ends[each + 1]], *axes[each]) for each in range(len(axes)) if ends[each] < ends[each + 1]
    ]


@kernel
def _add(
    rows: Numbers, uvw_s: Floats, field: Numbers, cosines: Floats, flux: Floats, shapes: Floats,
    frequencies: Floats, step: float, even: bool, total: NDArray[np.complex64],
) -> None:  # fmt: skip
    channels = frequencies.shape[0]
    real = np.zeros(channels)
    imag = np.zeros(channels)
    two_pi = 2.0 * np.pi
    width = np.pi * np.pi / (4.0 * np.log(2.0))
    for at in range(rows.shape[0]):
        row = rows[at]
        u = uvw_s[row, 0]
        v = uvw_s[row, 1]
        w = uvw_s[row, 2]
        f = field[row]
        real[:] = 0.0
        imag[:] = 0.0
        for s in range(flux.shape[0]):
            if cosines[f, s, 2] < -1.0:
                continue
            delay = u * cosines[f, s, 0] + v * cosines[f, s, 1] + w * cosines[f, s, 2]
            narrow = 0.0
            if shapes[s, 0] > 0.0:
                sine = np.sin(shapes[s, 2])
                cosine = np.cos(shapes[s, 2])
                along = (u * sine + v * cosine) * shapes[s, 0]
                across = (u * cosine - v * sine) * shapes[s, 1]
                narrow = width * (along * along + across * across)
            turn = two_pi * delay * frequencies[0]
            x = np.cos(turn)
            y = np.sin(turn)
            turn_step = two_pi * delay * step
            dx = np.cos(turn_step)
            dy = np.sin(turn_step)
            for c in range(channels):
                if not even:
                    turn = two_pi * delay * frequencies[c]
                    x = np.cos(turn)
                    y = np.sin(turn)
                size = flux[s, c]
                if narrow > 0.0:
                    size *= np.exp(-narrow * frequencies[c] * frequencies[c])
                real[c] += size * x
                imag[c] += size * y
                x, y = x * dx - y * dy, x * dy + y * dx
        for c in range(channels):
            total[row, c] += complex(real[c], imag[c])
