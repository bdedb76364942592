"""The loops of the simulator, compiled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT

_TURN = 2 * math.pi / SPEED_OF_LIGHT


@kernel
def predict(
    uvw_m: NDArray[np.float64],
    directions: NDArray[np.float64],
    flux_jy: NDArray[np.float64],
    first_hz: float,
    step_hz: float,
    model: NDArray[np.complex128],
) -> None:
    """Add the visibilities of points, S exp(+2 pi i (u l + v m + w (n - 1))), to the model.

    It is (baseline, channel), `directions` are l, m and n - 1 (source, 3), `flux_jy` is (source, channel).  Phases of
    channels go on from the first by a turn that stays: over a thousand of them they are off by less than 1e-12.
    """
    for row in range(uvw_m.shape[0]):
        u, v, w = uvw_m[row, 0], uvw_m[row, 1], uvw_m[row, 2]
        for source in range(directions.shape[0]):
            path = _TURN * (u * directions[source, 0] + v * directions[source, 1] + w * directions[source, 2])
            real, imag = math.cos(path * first_hz), math.sin(path * first_hz)
            step_real, step_imag = math.cos(path * step_hz), math.sin(path * step_hz)
            for channel in range(model.shape[1]):
                flux = flux_jy[source, channel]
                model[row, channel] += complex(flux * real, flux * imag)
                real, imag = real * step_real - imag * step_imag, real * step_imag + imag * step_real


@kernel
def corrupt(
    model: NDArray[np.complex128],
    response: NDArray[np.complex128],
    one: NDArray[np.intp],
    two: NDArray[np.intp],
    own_power_jy: float,
    data: NDArray[np.complex64],
) -> None:
    """g_p model conj(g_q) into `data` (baseline, channel, polarisation); `response` is (antenna, channel, …).

    An antenna with itself has the power of its own noise beside, also where it is dead to the sky.
    """
    for row in range(model.shape[0]):
        p, q = one[row], two[row]
        for channel in range(model.shape[1]):
            for polarisation in range(response.shape[2]):
                left, right = response[p, channel, polarisation], response[q, channel, polarisation]
                value = left * model[row, channel] * right.conjugate()
                if p == q:
                    power = left.real**2 + left.imag**2
                    value = complex(value.real + own_power_jy * (power if power > 0 else 1.0), 0.0)
                data[row, channel, polarisation] = value


@kernel
def add_rank_one(
    strength: float,
    voltages: NDArray[np.complex128],
    one: NDArray[np.intp],
    two: NDArray[np.intp],
    low: int,
    high: int,
    data: NDArray[np.complex64],
) -> None:
    """Add strength v_p conj(v_q) to channels from `low` to before `high`; `voltages` are (antenna, polarisation)."""
    for row in range(data.shape[0]):
        for polarisation in range(voltages.shape[1]):
            value = strength * voltages[one[row], polarisation] * voltages[two[row], polarisation].conjugate()
            for channel in range(low, high):
                data[row, channel, polarisation] += value
