"""Visibilities made for tests: noise, a sky and gains in an array of antennas, and gains solved from them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains, Kind
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

Complex = NDArray[np.complex128]
_HEADER = (
    "ant_1_array",
    "ant_2_array",
    "antenna_numbers",
    "antenna_positions",
    "polarization_array",
    "time_array",
    "uvw_array",
)
_POLARISATIONS = {-1: "RR", -2: "LL", -3: "RL", -4: "LR", -5: "XX", -6: "YY", -7: "XY", -8: "YX", 1: "I"}


def observed(
    random: np.random.Generator,
    *,
    antennas: int = 28,
    times: int = 1,
    channels: int = 16,
    correlations: tuple[str, ...] = ("XX", "YY"),
    snr: float = 0.0,
    directions: NDArray[np.float64] | None = None,
    fluxes: tuple[float, ...] = (1.0,),
    with_gains: bool = True,
) -> Visibilities:
    """Noise with deviation 1 of each part, and points whose fluxes are `fluxes` times `snr`, behind unknown gains.

    `directions` are (point, 2) direction cosines; without them all points are at the phase centre.
    """
    positions = random.uniform(-150, 150, (antennas, 3)) * (1, 1, 0.02)
    first, second = np.triu_indices(antennas, 1)
    baselines = len(first)
    first, second = np.tile(first, times), np.tile(second, times)
    uvw = positions[first] - positions[second]
    frequencies: NDArray[np.float64] = 1.3e9 + 1e6 * np.arange(channels, dtype=np.float64)
    if directions is None:
        directions = np.zeros((len(fluxes), 2))
    paths = np.einsum("ri,pi,c->prc", uvw[:, :2], directions, frequencies / 299_792_458.0)
    sky = snr * np.einsum("p,prc->rc", np.array(fluxes), np.exp(2j * np.pi * paths))
    gains = np.ones((antennas, channels, len(correlations)), np.complex128)
    if with_gains:
        one = gains[:, :1].shape
        slopes = random.normal(0, 0.05, one) * np.arange(channels)[None, :, None]
        gains *= random.uniform(0.7, 1.3, one) * np.exp(2j * np.pi * random.uniform(size=one) + 1j * slopes)
    data = sky[:, :, None] * gains[first] * np.conj(gains[second])
    data = data + random.normal(size=data.shape) + 1j * random.normal(size=data.shape)
    return visibilities_of(data, uvw, np.repeat(5e9 + 10.0 * np.arange(times), baselines), first, second, frequencies,
                           correlations, positions)  # fmt: skip


def visibilities_of(
    data: Complex,
    uvw_m: NDArray[np.float64],
    time_s: NDArray[np.float64],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    frequencies_hz: NDArray[np.float64],
    correlations: tuple[str, ...],
    positions_m: NDArray[np.float64],
) -> Visibilities:
    """Visibilities with no flags and weights of 1, of one field."""
    rows = len(data)
    return Visibilities(
        data=data.astype(np.complex64),
        flags=np.zeros(data.shape, np.bool_),
        weights=np.ones(data.shape, np.float32),
        uvw_m=uvw_m,
        time_s=time_s,
        exposure_s=np.full(rows, 10.0),
        antenna1=first.astype(np.int32),
        antenna2=second.astype(np.int32),
        field=np.zeros(rows, np.int32),
        frequencies_hz=frequencies_hz,
        channel_width_hz=np.full(len(frequencies_hz), 1e6),
        correlations=correlations,
        array=Array("test", tuple(f"a{n}" for n in range(len(positions_m))), positions_m, 5.0, np.zeros(3)),
        phase_centres=(PhaseCentre("made up", 1.0, 0.5),),
    )


@cache
def read_uvh5(path: Path) -> Visibilities:
    """A real recording, as it lies in the file, so that no code of ours is between it and what is tested."""
    with h5py.File(path) as file:
        header = file["Header"]
        told = {name: header[name][()] for name in _HEADER}
        shape = len(told["time_array"]), -1, len(told["polarization_array"])
        data, flags = (file["Data"][name][()].reshape(shape) for name in ("visdata", "flags"))
        frequencies = header["freq_array"][()].ravel()
    numbers = {int(number): at for at, number in enumerate(told["antenna_numbers"])}
    order = np.argsort(frequencies)
    made = visibilities_of(
        data[:, order],
        told["uvw_array"],
        (told["time_array"] - 2400000.5) * 86400,
        np.array([numbers[int(each)] for each in told["ant_1_array"]]),
        np.array([numbers[int(each)] for each in told["ant_2_array"]]),
        frequencies[order],
        tuple(_POLARISATIONS[int(each)] for each in told["polarization_array"]),
        told["antenna_positions"],
    )
    return made.with_(flags=flags[:, order])


def solved(visibilities: Visibilities, *, rounds: int = 60) -> tuple[Gains, Visibilities]:
    """Gains on a point source of 1 Jy, for each time, channel and hand, by StEFCal, and what they make of the data.

    Salvini and Wijnholds 2014, A&A 571, A97: g_p = sum_q V_pq g_q / sum_q |g_q|^2, every second step averaged.
    """
    times, at = np.unique(visibilities.time_s, return_inverse=True)
    antennas = len(visibilities.array.names)
    _, channels, hands = visibilities.data.shape
    one, two = visibilities.antenna1, visibilities.antenna2
    matrix = np.zeros((len(times), channels, hands, antennas, antennas), np.complex128)
    known = visibilities.usable & ~visibilities.is_auto[:, None, None]
    data = np.where(known, visibilities.data, 0).astype(np.complex128)
    matrix[at, :, :, one, two] = data
    matrix[at, :, :, two, one] = np.conj(data)
    there = matrix != 0
    gains = np.ones(matrix.shape[:-1], np.complex128)
    for number in range(rounds):
        power = (there * np.abs(gains[..., None, :]) ** 2).sum(-1)
        new = (matrix * gains[..., None, :]).sum(-1) / np.where(power > 0, power, 1)
        gains = (gains + new) / 2 if number % 2 else new
    values = np.moveaxis(gains, 3, 1)  # (time, antenna, channel, hand)
    divisor = values[at, one] * np.conj(values[at, two])
    corrected = visibilities.with_(
        data=np.where(known, data / np.where(divisor != 0, divisor, 1), 0).astype(np.complex64),
        weights=(visibilities.weights * np.abs(divisor) ** 2).astype(np.float32),
    )
    residual = np.sqrt(np.mean(np.abs(data - divisor)[known] ** 2) / 2)
    snr = (np.abs(values) / residual * np.sqrt(antennas - 1) * np.median(np.abs(values))).astype(np.float32)
    table = gains_of(values, "bandpass" if channels > 1 else "gain", visibilities, snr=snr)
    return table, corrected


def gains_of(
    values: Complex,
    kind: Kind,
    visibilities: Visibilities,
    *,
    snr: NDArray[np.float32] | float = 50.0,
    flags: NDArray[np.bool_] | None = None,
) -> Gains:
    """A table of gains, (time, antenna, channel, hand), of the antennas and channels of visibilities."""
    times, _, channels, hands = values.shape
    return Gains(
        kind=kind,
        values=values,
        flags=np.zeros(values.shape, np.bool_) if flags is None else flags,
        snr=np.broadcast_to(np.asarray(snr, np.float32), values.shape),
        time_s=5e9 + 10.0 * np.arange(times, dtype=np.float64),
        interval_s=np.full(times, 10.0),
        frequencies_hz=visibilities.frequencies_hz[:channels],
        polarisations=("X", "Y")[:hands],
        antennas=visibilities.array.names,
        reference=(visibilities.array.names[0],) * times,
    )
