"""Closure phases: whether visibilities hold a signal, whatever gains anybody has solved from them.

The product V_pq V_qr V_rp around a triangle of antennas has a phase that no antenna's gain changes.  For a point source
it is 0, for another sky that of its model; for noise it is any.  Gains can be solved on noise, and then corrected
visibilities agree with the model (Marti-Vidal and Marcaide 2008, A&A 480, 289); their closure phases do not.

The test.  One antenna r is the reference.  Each other pair p, q makes a triangle with it, of which the baseline pq is
in no other: (N - 1)(N - 2) / 2 triangles.  For each, the phasors exp(i (closure phase - the model's)) are summed over
times, channels and polarisations to Z_pq.  Suppose that there is noise alone, independent between baselines, and that
the noise of a baseline is as likely turned by any angle.  Then the phases of all Z_pq are independent and uniform,
given their lengths: turning all that baseline pq received turns Z_pq and no other.  Nothing is supposed of how times,
channels or polarisations of one baseline depend on one another, nor of amplitudes.  So, with S = Re sum Z and
Q = sum |Z|^2,

    P(S >= s) <= exp(-s^2 / Q),

because E exp(x cos phi) = I0(x) <= exp(x^2 / 4) for a uniform phi (compare the series), and Chernoff's bound is least
at 2 s / Q.  This is the test of a uniform circle against a known direction (the V test; Mardia and Jupp 2000,
Directional Statistics, 6.3) with a bound for its tail that holds for any number of triangles.  Several references are
tried, for the first may be deaf, and the probability is multiplied by their number.

What has to hold for that is that noise of one baseline tells nothing of that of another: so it is of receivers, whose
products over many samples are normal and uncorrelated between baselines, and so it is not of what several antennas
receive together, which is a signal.

Averaging visibilities after gains were applied, and then closing triangles, would not do: gains that were solved on
noise make the average close.  So the phasors of triangles are averaged, never the visibilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.visibilities import Visibilities

PARALLEL = ("XX", "YY", "RR", "LL", "I")
"""Correlations that a source without polarisation is in."""
REFERENCES = 5
"""How many reference antennas are tried."""
COHERENT = 10.0
"""A triangle counts as coherent where |Z|^2 is so many times what noise has on average: by chance one in 22,000."""
MOST_TRIANGLES = 400
"""Of more, so many are taken evenly from the list of them where each is looked at by itself."""
_SAME_TIME = 1e-3
"""Seconds by which rows of one integration may differ."""


@dataclass(frozen=True, slots=True)
class Closure:
    """What the closure phases tell, with the reference antenna that tells most."""

    log10_false_alarm: float
    """Of the probability that noise closes so well, at most; 0 or less."""
    mean_cosine: float
    """Of closure phase less the model's, over all samples: 1 is signal without noise, 0 noise."""
    snr: float
    """Of one visibility: amplitude of the source over the deviation of the real part; that which a point source would
    need for `mean_cosine`."""
    departure_deg: float
    """Median of |closure phase - the model's| over coherent triangles: not 0 where the model is wrong.
    NaN where none is coherent."""
    coherent: int
    triangles: int
    """Independent ones with data."""
    least_log10: float
    """What as many triangles could reach at most, without any noise: with few antennas nothing can be told."""
    samples: int
    """Of all triangles: times, channels and polarisations."""
    reference: str


def closure_of(
    visibilities: Visibilities, model: NDArray[np.complexfloating] | None = None, *, references: int = REFERENCES
) -> Closure:
    """Test whether the closure phases are those of `model`, (row, channel, correlation); without one 0, a point source.

    Zeros, flagged visibilities and those without a number count as absent, as do those whose model is no number.
    Raises DataError where no triangle of antennas has all three baselines in one integration.
    """
    parallel = [at for at, name in enumerate(visibilities.correlations) if name in PARALLEL]
    if not parallel:
        raise DataError(f"no correlation of {', '.join(visibilities.correlations)} is of parallel hands")
    integrations = _integrations(visibilities)
    tried = _references(visibilities, model, parallel, references)
    size = len(visibilities.array.names)
    sums = np.zeros((len(tried), size, size), np.complex128)
    counts = np.zeros(sums.shape, np.int64)
    for rows in integrations:  # one at a time: phasors take as much as the data
        phasors = _phasors(visibilities, model, rows, parallel)
        first, second = visibilities.antenna1[rows], visibilities.antenna2[rows]
        for at, reference in enumerate(tried):
            _close(phasors, first, second, _rows_with(reference, first, second, size), reference, sums[at], counts[at])
    found = [
        _judge(sums[at], counts[at], visibilities.array.names[reference])
        for at, reference in enumerate(tried)
        if counts[at].any()
    ]
    if not found:
        raise DataError("no three antennas have all their baselines in one integration, so no closure phase is there")
    best = min(found, key=lambda each: each.log10_false_alarm)
    tries = math.log10(len(found))
    return replace(
        best,
        log10_false_alarm=min(0.0, best.log10_false_alarm + tries),
        least_log10=min(0.0, best.least_log10 + tries),
    )


def closure_phases(visibilities: Visibilities) -> tuple[NDArray[np.float64], int, NDArray[np.float64]]:
    """Times of integrations, how many triangles, and phases (parallel correlation, time, triangle) in degrees.

    Times are seconds of UTC since MJD 0.  A phase is that of the sum over channels of the triangle's phasors, for some
    triangles of all antennas that have rows (`triangles_of`); NaN where a baseline has nothing.
    """
    parallel = [at for at, name in enumerate(visibilities.correlations) if name in PARALLEL]
    integrations = [rows for rows in _integrations(visibilities) if len(rows)]
    there = np.unique([visibilities.antenna1[~visibilities.is_auto], visibilities.antenna2[~visibilities.is_auto]])
    p, q, r = there[np.stack(triangles_of(len(there)))]
    size = len(visibilities.array.names)
    phases = np.full((len(parallel), len(integrations), len(p)), np.nan)
    for time, rows in enumerate(integrations):
        phasors = _phasors(visibilities, None, rows, parallel)
        phasors = np.concatenate([phasors, np.zeros_like(phasors[:1])])  # for what has no row
        row = np.full((size, size), len(rows))
        row[visibilities.antenna1[rows], visibilities.antenna2[rows]] = np.arange(len(rows))
        total = np.ones((len(p), *phasors.shape[1:]), np.complex128)
        for one, two in ((p, q), (q, r), (r, p)):
            total *= phasors[row[one, two]] + phasors[row[two, one]].conj()  # whichever of both stands first
        summed = total.sum(axis=1)
        phases[:, time] = np.where(summed == 0, np.nan, np.degrees(np.angle(summed))).T
    times = np.array([visibilities.time_s[rows[0]] for rows in integrations], np.float64)
    return times, len(p), phases


def triangles_of(antennas: int) -> tuple[NDArray[np.intp], ...]:
    """Numbers of three antennas each, evenly from the list of all triangles, which is long: by their number in it."""
    number = math.comb(antennas, 3)
    chosen = np.unique(np.linspace(0, number - 1, min(number, MOST_TRIANGLES)).round().astype(np.int64))
    found = np.zeros((3, len(chosen)), np.intp)
    left = chosen if number else chosen[:0]
    for place in (3, 2, 1):  # the combinatorial number system
        sizes = np.array([math.comb(each, place) for each in range(antennas + 1)])
        found[3 - place] = np.searchsorted(sizes, left, side="right") - 1
        left = left - sizes[found[3 - place]]
    return tuple(found)


def mean_cosine_of(snr: float) -> float:
    """Expected `Closure.mean_cosine` of a point source whose visibilities have this amplitude over deviation.

    The mean of exp(i phase) of a constant in complex noise, cubed: sqrt(pi / 8) s exp(-s^2 / 4) (I0 + I1)(s^2 / 4).
    """
    from scipy.special import ive

    return float((math.sqrt(math.pi / 8) * snr * (ive(0, snr**2 / 4) + ive(1, snr**2 / 4))) ** 3)


def _snr_of(mean_cosine: float) -> float:
    """Inverse of `mean_cosine_of`; 0 for what is not above 0, at most 1e4."""
    low, high = 0.0, 1e4
    if mean_cosine <= 0:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_cosine_of(middle) < mean_cosine else (low, middle)
    return low


def _phasors(
    visibilities: Visibilities,
    model: NDArray[np.complexfloating] | None,
    rows: NDArray[np.intp],
    parallel: list[int],
) -> NDArray[np.complex64]:
    """exp(i (phase - the model's)), (row, channel, parallel correlation); 0 where there is none."""
    phasors = _directions(visibilities.data[rows][:, :, parallel])
    if model is not None:
        phasors *= np.conj(_directions(np.asarray(model[rows][:, :, parallel], np.complex64)))
    phasors[visibilities.flags[rows][:, :, parallel]] = 0
    return phasors


def _directions(values: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Each divided by its amplitude; 0 for 0 and for what is no number."""
    with np.errstate(all="ignore"):
        amplitude = np.abs(values)
        directions: NDArray[np.complex64] = np.where(
            np.isfinite(amplitude) & (amplitude > 0), values / amplitude, 0
        ).astype(np.complex64)
    directions[~np.isfinite(directions)] = 0
    return directions


def _integrations(visibilities: Visibilities) -> list[NDArray[np.intp]]:
    """Rows of each integration, without those of an antenna with itself."""
    rows = np.flatnonzero(~visibilities.is_auto)
    rows = rows[np.argsort(visibilities.time_s[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(visibilities.time_s[rows]) > _SAME_TIME) + 1)


def _references(
    visibilities: Visibilities, model: NDArray[np.complexfloating] | None, parallel: list[int], most: int
) -> list[int]:
    """Antennas with the most visibilities that have a model: a choice that has nothing to do with phases."""
    usable = ~visibilities.flags[:, :, parallel] & (visibilities.data[:, :, parallel] != 0)
    if model is not None:
        usable &= np.isfinite(model[:, :, parallel])
    used = np.where(visibilities.is_auto, 0, np.count_nonzero(usable, axis=(1, 2)))
    size = len(visibilities.array.names)
    counts = np.bincount(visibilities.antenna1, used, size) + np.bincount(visibilities.antenna2, used, size)
    return [int(each) for each in np.argsort(-counts, kind="stable")[:most] if counts[each] > 0]


def _rows_with(reference: int, first: NDArray[np.int32], second: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """(antenna,): the row of its baseline with the reference, -1 where there is none."""
    to = np.full(size, -1, np.int64)
    rows = np.flatnonzero((first == reference) | (second == reference))
    to[np.where(first[rows] == reference, second[rows], first[rows])] = rows
    return to


def _judge(sums: NDArray[np.complex128], counts: NDArray[np.int64], reference: str) -> Closure:
    """What the sums of closure phasors over (p, q) tell, each over `counts` samples."""
    used = counts > 0
    z, n = sums[used], counts[used]
    total, power = float(z.real.sum()), float((np.abs(z) ** 2).sum())
    cosine = total / float(n.sum())
    coherent = np.abs(z) ** 2 > COHERENT * n
    return Closure(
        log10_false_alarm=-(total**2) / power / math.log(10) if total > 0 else 0.0,
        mean_cosine=cosine,
        snr=_snr_of(cosine),
        departure_deg=float(np.median(np.degrees(np.abs(np.angle(z[coherent]))))) if coherent.any() else math.nan,
        coherent=int(np.count_nonzero(coherent)),
        triangles=int(z.size),
        least_log10=-z.size / math.log(10),
        samples=int(n.sum()),
        reference=reference,
    )


@kernel
def _close(
    phasors: NDArray[np.complex64],
    first: NDArray[np.int32],
    second: NDArray[np.int32],
    to: NDArray[np.int64],
    reference: int,
    sums: NDArray[np.complex128],
    counts: NDArray[np.int64],
) -> None:
    """Add the closure phasors of one integration, over channels and correlations, to `sums` of (p, q) with p < q.

    `to` has for each antenna the row of its baseline with the reference, or -1.
    """
    channels, correlations = phasors.shape[1], phasors.shape[2]
    for row in range(first.size):
        p, q = first[row], second[row]
        if p == q or reference in (p, q) or to[p] < 0 or to[q] < 0:
            continue
        out, back = to[p], to[q]
        out_turned, back_turned = second[out] == reference, first[back] == reference
        total, count = 0j, 0
        for channel in range(channels):
            for correlation in range(correlations):
                one, two, three = (
                    phasors[out, channel, correlation],
                    phasors[row, channel, correlation],
                    phasors[back, channel, correlation],
                )
                if one == 0 or two == 0 or three == 0:
                    continue
                if out_turned:  # its row is p to reference, and the triangle goes from the reference to p
                    one = np.conj(one)
                if back_turned:
                    three = np.conj(three)
                total += one * two * three
                count += 1
        if p < q:
            sums[p, q] += total
            counts[p, q] += count
        else:  # around the triangle the other way
            sums[q, p] += np.conj(total)
            counts[q, p] += count
