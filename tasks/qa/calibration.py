"""Measures of a calibration: of its visibilities, of its gains, and of both together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.qa.closure import PARALLEL, closure_of
from absurd.tasks.qa.gates import GATES, Gate
from absurd.tasks.qa.report import Measure, QualityReport, measure, report_on
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.visibilities import Visibilities

Complex = NDArray[np.complexfloating]
DEAD = 0.05
"""An antenna with at most so many of its visibilities usable is none."""
OUTLIER = 1e3
"""Amplitudes above so many medians are no source's."""
_NOISE_SAMPLES = 4_000_000
"""Visibilities that the noise is taken of, at most about."""
FEWEST = 3
"""Differences from which a scatter is told."""


def check_calibration(
    visibilities: Visibilities,
    *,
    gains: Sequence[Gains] = (),
    model: Complex | None = None,
    corrected: Visibilities | None = None,
    flux_jy: float | None = None,
    sefd_jy: float | None = None,
    gates: Mapping[str, Gate] = GATES,
    subject: str = "calibration",
) -> QualityReport:
    """Measure a calibration at all gates.

    `visibilities` are those observed, before any gains, and `corrected` the same with the gains taken off, with their
    weights.  `model` are the sky's, (row, channel, correlation); `flux_jy` stands in for those of a point source at the
    phase centre.  The model has to come from a catalogue: one that was made from the same visibilities agrees with
    their noise; what it has no number for is left out.  `sefd_jy` is the system equivalent flux density of an antenna,
    Jy.  What cannot be measured fails where it has to be.
    """
    usable = visibilities.usable & (visibilities.data != 0) & ~visibilities.is_auto[:, None, None]
    measures = [*_of_data(visibilities, usable, gates), _antennas(visibilities, usable, gains, gates["antennas"])]
    measures += _closure(visibilities, model, gates)
    for each in gains:
        measures += _of_gains(each, _with_data(visibilities, usable), gates)
    if model is None and flux_jy is not None:
        model = _point(visibilities, flux_jy)
    if gains or corrected is not None:
        measures += _of_corrected(usable, corrected, model, gates)
        measures.append(_sensitivity(usable, corrected, model, sefd_jy, gates["sensitivity"]))
    return report_on(subject, measures)


# Of the visibilities -----------------------------------------------------------------------------


def _of_data(visibilities: Visibilities, usable: NDArray[np.bool_], gates: Mapping[str, Gate]) -> Iterator[Measure]:
    cross = ~visibilities.is_auto
    data, flags = visibilities.data[cross], visibilities.flags[cross]
    gate = gates["unusable_fraction"]
    if not data.size:
        yield measure("unusable_fraction", gate, None, note="there are no visibilities of different antennas")
        return
    infinite = ~np.isfinite(data)
    parts = {"flagged": flags, "not finite": ~flags & infinite, "zero": ~flags & (data == 0)}
    note = ", ".join(f"{name} {100 * np.count_nonzero(each) / data.size:.3g} %" for name, each in parts.items())
    yield measure("unusable_fraction", gate, 1 - np.count_nonzero(usable) / data.size, note=note)
    amplitudes = np.abs(visibilities.data[usable])
    if amplitudes.size:
        median = float(np.median(amplitudes))
        share = np.count_nonzero(amplitudes > OUTLIER * median) / amplitudes.size
        note = f"median {median:.4g}, largest {float(amplitudes.max()):.4g}"
        yield measure("outlier_fraction", gates["outlier_fraction"], share, note=note)


def _with_data(visibilities: Visibilities, usable: NDArray[np.bool_]) -> dict[str, bool]:
    """Of the antennas that have rows: whether enough of their visibilities are usable."""
    size = len(visibilities.array.names)
    cross, per_row = ~visibilities.is_auto, usable[0].size if usable.shape[0] else 0
    rows, used = np.zeros(size), np.zeros(size)
    for antenna in (visibilities.antenna1, visibilities.antenna2):
        rows += np.bincount(antenna[cross], minlength=size)
        used += np.bincount(antenna[cross], np.count_nonzero(usable[cross], axis=(1, 2)), size)
    return {
        name: bool(used[at] > DEAD * rows[at] * per_row)
        for at, name in enumerate(visibilities.array.names)
        if rows[at] > 0
    }


def _antennas(visibilities: Visibilities, usable: NDArray[np.bool_], gains: Sequence[Gains], gate: Gate) -> Measure:
    alive = _with_data(visibilities, usable)
    for each in gains:
        solved = ~each.flags.all(axis=3)  # (time, antenna, channel): of any polarisation
        share = dict(zip(each.antennas, solved.mean(axis=(0, 2)), strict=True))
        alive = {name: is_so and share.get(name, 0.0) > 0.5 for name, is_so in alive.items()}
    lost = [name for name, is_so in alive.items() if not is_so]
    note = f"of {len(alive)}; without: {_some(lost)}" if lost else f"of {len(alive)}"
    return measure("antennas", gate, float(sum(alive.values())), note=note)


def _closure(visibilities: Visibilities, model: Complex | None, gates: Mapping[str, Gate]) -> Iterator[Measure]:
    alarm, departure = "closure_log10_false_alarm", "closure_departure_deg"
    try:
        told = closure_of(visibilities, model)
    except DataError as error:
        yield measure(alarm, gates[alarm], None, note=error.message)
        return
    against = "a point source" if model is None else "the model"
    note = (
        f"mean cosine {told.mean_cosine:.3g} against {against}, as of signal to noise {told.snr:.2g} a visibility; "
        f"{told.triangles} independent triangles with {told.reference}, {told.samples} samples"
    )
    limit = gates[alarm].limits.fail_above or 0.0
    if told.least_log10 > limit:
        note = f"{told.triangles} independent triangles are too few to tell noise from anything: {note}"
        shortest, longest = float(visibilities.exposure_s.min()), float(visibilities.exposure_s.max())
        if longest > 1.5 * shortest:
            note = f"rows are averaged over {shortest:g} to {longest:g} s, and few baselines share times; {note}"
    elif told.log10_false_alarm > limit:
        note = f"closure phases are not to be told from those of noise: {note}"
    yield measure(alarm, gates[alarm], told.log10_false_alarm, note=note)
    value = None if math.isnan(told.departure_deg) else told.departure_deg
    note = f"{told.coherent} of {told.triangles} triangles are coherent"
    yield measure(departure, gates[departure], value, note=note)


# Of the gains ------------------------------------------------------------------------------------


def _of_gains(gains: Gains, with_data: Mapping[str, bool], gates: Mapping[str, Gate]) -> Iterator[Measure]:
    """Of antennas with data; of all where no name is the visibilities'."""
    chosen = [at for at, name in enumerate(gains.antennas) if with_data.get(name, False)]
    chosen = chosen or list(range(len(gains.antennas)))
    values, flags, snr = gains.values[:, chosen], gains.flags[:, chosen], gains.snr[:, chosen]
    names = [gains.antennas[at] for at in chosen]
    good = ~flags & np.isfinite(values)
    yield measure(
        "flagged_solutions",
        gates["flagged_solutions"],
        1 - float(good.mean()) if good.size else 1.0,
        of=gains.kind,
        note=_grade(1 - float(good.mean())) if good.size else "there is none",
    )
    found = snr[np.isfinite(snr) & (snr > 0)]  # of flagged solutions too: what is left of noise looks like a signal
    value = float(np.median(found)) if found.size else None
    yield measure("solution_snr", gates["solution_snr"], value, of=gains.kind, may_lack=False)
    if gains.kind != "delay":
        middle = float(np.median(np.abs(values[good]))) if good.any() else None
        yield measure("gain_amplitude", gates["gain_amplitude"], middle, of=gains.kind)
        yield _amplitude_range(values, good, names, gains.kind, gates["amplitude_range"])
        yield _phase_scatter(values, good, gains.kind, gates["phase_scatter_deg"])


def _grade(fraction: float) -> str:
    """The word for a fraction of flagged solutions."""
    grades = ((0.03, "pristine"), (0.05, "good"), (0.1, "moderate"), (0.2, "high"))
    return next((word for limit, word in grades if fraction < limit), "excessive")


def _amplitude_range(values: Complex, good: NDArray[np.bool_], names: Sequence[str], kind: str, gate: Gate) -> Measure:
    amplitudes = np.abs(values)
    medians = {
        name: float(np.median(amplitudes[:, at][good[:, at]])) for at, name in enumerate(names) if good[:, at].any()
    }
    middle = float(np.median(list(medians.values()))) if medians else 0.0
    if not middle > 0:
        return measure("amplitude_range", gate, None, of=kind, note="no gain has an amplitude", may_lack=False)
    ratios = {name: max(each / middle, middle / each) if each > 0 else math.inf for name, each in medians.items()}
    worst = max(ratios, key=lambda name: ratios[name])
    note = f"{worst}: {medians[worst]:.4g}, where the median antenna has {middle:.4g}"
    return measure("amplitude_range", gate, ratios[worst], of=kind, note=note)


def _phase_scatter(values: Complex, good: NDArray[np.bool_], kind: str, gate: Gate) -> Measure:
    """From one channel to the next in a bandpass, from one time to the next in a gain.

    Of turns d between neighbours, the circular deviation sqrt(-2 ln |mean exp(i d)|) over sqrt(2): steady turning, as
    of a delay or a drift, counts for nothing.
    """
    axis, what = (2, "channels") if kind == "bandpass" else (0, "times")
    turned, both = np.moveaxis(values, axis, 0), np.moveaxis(good, axis, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = turned[1:] * np.conj(turned[:-1])
        steps = steps / np.abs(steps)
    known = both[1:] & both[:-1] & np.isfinite(steps)
    counts = known.sum(axis=0)
    enough = counts >= FEWEST
    if not enough.any():
        return measure("phase_scatter_deg", gate, None, of=kind, note=f"too few {what}")
    length = np.abs(np.where(known, steps, 0).sum(axis=0)[enough]) / counts[enough]
    scatter = np.degrees(np.sqrt(-2 * np.log(np.clip(length, 1e-12, 1)))) / math.sqrt(2)
    return measure("phase_scatter_deg", gate, float(np.median(scatter)), of=kind, note=f"between {what}")


# Of what comes out -------------------------------------------------------------------------------


def _of_corrected(
    usable: NDArray[np.bool_],
    corrected: Visibilities | None,
    model: Complex | None,
    gates: Mapping[str, Gate],
) -> Iterator[Measure]:
    """By baselines: each one's corrected visibilities over the model's, averaged by weight and the model's power."""
    names = ("model_ratio", "residual_phase_deg", "flux_scale")
    if corrected is None or model is None:
        missing = " and ".join(
            what for what, each in (("corrected visibilities", corrected), ("a model", model)) if each is None
        )
        for name in names:
            yield measure(name, gates[name], None, note=f"without {missing}")
        return
    ratios, weights = _baselines(corrected, usable & corrected.usable, model)
    if not ratios.size:
        for name in names:
            yield measure(name, gates[name], None, note="nothing usable has a model", may_lack=False)
        return
    middle = float(np.median(np.abs(ratios)))
    yield measure("model_ratio", gates["model_ratio"], max(middle, 1 / middle) if middle > 0 else math.inf)
    cosine = float(np.mean(np.cos(np.angle(ratios))))
    scatter = math.degrees(math.sqrt(-2 * math.log(min(1.0, max(cosine, 1e-12)))))
    yield measure("residual_phase_deg", gates["residual_phase_deg"], scatter, note=f"{ratios.size} baselines")
    scale = float(np.sum(weights * ratios.real) / np.sum(weights))
    yield measure("flux_scale", gates["flux_scale"], scale)


def _sensitivity(
    usable: NDArray[np.bool_],
    corrected: Visibilities | None,
    model: Complex | None,
    sefd_jy: float | None,
    gate: Gate,
) -> Measure:
    """From what is left of neighbouring channels: the noise of a part is sqrt(median |difference|^2 / (4 ln 2)).

    That of the system is SEFD / sqrt(2 bandwidth time) (Thompson, Moran and Swenson 2017, eq. 6.62).
    """
    name = "sensitivity"
    if corrected is None or sefd_jy is None:
        missing = "corrected visibilities" if corrected is None else "a telescope whose noise is known"
        return measure(name, gate, None, note=f"without {missing}")
    parallel = [at for at, each in enumerate(corrected.correlations) if each in PARALLEL]
    every = slice(None, None, -(-corrected.data[..., parallel].size // _NOISE_SAMPLES) or 1)
    used = (usable & corrected.usable)[every][..., parallel]
    left = corrected.data[every][..., parallel] - (0 if model is None else model[every][..., parallel])
    used &= np.isfinite(left)
    both = used[:, 1:] & used[:, :-1]
    if np.count_nonzero(both) < FEWEST:
        return measure(name, gate, None, note="too few channels beside one another are usable")
    steps = np.abs(np.diff(left, axis=1)[both].astype(np.complex128)) ** 2
    noise = math.sqrt(float(np.median(steps)) / (4 * math.log(2)))
    bandwidth, time = float(np.median(np.abs(corrected.channel_width_hz))), float(np.median(corrected.exposure_s))
    if not bandwidth * time > 0:
        return measure(name, gate, None, note="neither bandwidth nor time is told")
    system = sefd_jy / math.sqrt(2 * bandwidth * time)
    return measure(name, gate, noise / system, note=f"{noise:.3g} Jy, of {sefd_jy:.4g} Jy of the system {system:.3g}")


def _baselines(
    corrected: Visibilities, usable: NDArray[np.bool_], model: Complex
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """For each baseline: corrected over model, and the weight of that."""
    parallel = [at for at, name in enumerate(corrected.correlations) if name in PARALLEL]
    size = len(corrected.array.names)
    low = np.minimum(corrected.antenna1, corrected.antenna2).astype(np.intp)
    high = np.maximum(corrected.antenna1, corrected.antenna2)
    weights, products = np.zeros(low.size), np.zeros(low.size, np.complex128)
    for at in parallel:  # one correlation at a time, for the memory
        weight, values = corrected.weights[:, :, at], corrected.data[:, :, at]
        used = usable[:, :, at] & np.isfinite(model[:, :, at]) & (weight > 0)
        wanted = np.where(used, model[:, :, at], 0).astype(np.complex128)  # in single precision 1e36 would be too much
        wanted_weighted = np.where(used, weight, 0).astype(np.float64) * np.conj(wanted)
        weights += (wanted_weighted * wanted).real.sum(axis=1)
        products += (wanted_weighted * np.where(used, values, 0)).sum(axis=1)
    turned = np.where(corrected.antenna1 <= corrected.antenna2, products, np.conj(products))
    baseline = low * size + high
    real, imaginary, total = (
        np.bincount(baseline, part, size * size).astype(np.float64) for part in (turned.real, turned.imag, weights)
    )
    known = total > 0
    ratios = np.empty(np.count_nonzero(known), np.complex128)
    ratios.real, ratios.imag = real[known] / total[known], imaginary[known] / total[known]
    return ratios, total[known]


def _point(visibilities: Visibilities, flux_jy: float) -> Complex:
    """A point source without polarisation at the phase centre; half of I + Q is I."""
    row = np.array([flux_jy if name in PARALLEL else 0.0 for name in visibilities.correlations], np.complex64)
    return np.broadcast_to(row, visibilities.data.shape)


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
