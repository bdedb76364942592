"""Closure phases of single triangles, as they are drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.simulate import simulate_in_memory
from absurd.tasks.qa.closure import closure_of, closure_phases, triangles_of
from absurd.tasks.visibility.visibilities import Visibilities

SMALL = SimulationSettings(antennas=7, subbands=2, channels=4, integrations=4, sources=0, noise_jy=0.3, lost=0.05)


@pytest.fixture(scope="module")
def small() -> Visibilities:
    """Of seven antennas, one of them dead."""
    return simulate_in_memory(replace(SMALL, dead=1))[0]


def test_triangles_tell_what_the_gate_tells() -> None:
    """All triangles with one antenna, of one integration, have the departure that the gate reckons from their sums."""
    made, *_ = simulate_in_memory(replace(SMALL, channels=16, lost=0.0))
    first = made.time_s == made.time_s[0]
    names = ("data", "flags", "weights", "uvw_m", "time_s", "exposure_s", "antenna1", "antenna2", "field", "scan")
    one = made.with_(**{name: getattr(made, name)[first] for name in names})
    one = one.with_(**{name: getattr(one, name)[..., :1] for name in names[:3]}, correlations=("XX",))

    told = closure_of(one, references=1)
    _, _, phases = closure_phases(one)

    reference = one.array.names.index(told.reference)
    with_it = np.any(np.array(triangles_of(7)) == reference, axis=0)
    found = np.abs(phases[0, 0, with_it])
    assert told.coherent == told.triangles == np.isfinite(found).sum()
    assert np.nanmedian(found) == pytest.approx(told.departure_deg, abs=1e-3)


def test_closure_phases_ignore_gains() -> None:
    """Gains of antennas change no closure phase, and those of a point are 0 but for the noise."""
    quiet = replace(SMALL, noise_jy=0.0, beam="none", lost=0.0)
    clean, *_ = simulate_in_memory(replace(quiet, gains="perfect", bandpass=False))
    dirty, *_ = simulate_in_memory(quiet)

    for each in (clean, dirty):
        times, triangles, phases = closure_phases(each)
        assert len(times) == 4
        assert triangles == math.comb(7, 3)
        assert np.abs(phases).max() < 1e-3


def test_closure_phases_of_noise_are_anything() -> None:
    """Without a source they are spread evenly: the mean of their phasors is 0 within its error."""
    noise, *_ = simulate_in_memory(replace(SMALL, antennas=12, integrations=30, calibrator=None, declination_deg=37.0))

    _, _, phases = closure_phases(noise)

    # Triangles share baselines: there are as many independent ones as baselines less antennas, plus one.
    independent = 30 * (66 - 11)
    assert abs(np.nanmean(np.exp(1j * np.radians(phases)))) < 4 / math.sqrt(independent)


def test_lost_baselines_leave_no_closure_phase(small: Visibilities) -> None:
    """A triangle has a phase where each of its baselines has a visibility in some channel; zeros are none."""
    one, two = small.antenna1, small.antenna2
    data = small.data.copy()
    data[(one == 0) & (two == 1)] = 0

    _, _, phases = closure_phases(small.with_(data=data))

    p, q, r = triangles_of(7)
    without = ((p == 0) | (q == 0) | (r == 0)) & ((p == 1) | (q == 1) | (r == 1))
    assert np.all(np.isnan(phases[:, :, without]))
    assert np.isfinite(phases[:, :, ~without]).mean() > 0.5


@pytest.mark.parametrize("antennas", [0, 1, 2, 3, 4, 20, 96])
def test_triangles_are_triangles(antennas: int) -> None:
    """Each has three antennas, none is there twice, all are there where they are few, and else from the whole list."""
    found = np.sort(np.array(triangles_of(antennas)), axis=0)

    assert found.shape == (3, min(400, math.comb(antennas, 3)))
    assert np.all(found[0] < found[1])
    assert np.all(found[1] < found[2])
    assert len({tuple(each) for each in found.T}) == found.shape[1]
    if found.size:
        assert found.min() == 0
        assert found.max() == antennas - 1
