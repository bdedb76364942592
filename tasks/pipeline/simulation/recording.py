"""A recording that is simulated: what is fixed before the first visibility is computed, and the visibilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.pipeline.simulation import interference, sky
from absurd.tasks.pipeline.simulation.instrument import Instrument
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.radio import earth
from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.radio.telescope import Band, Telescope, load_telescope

Floats = NDArray[np.float64]

EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
"""MJD 0."""
_SKY, _INSTRUMENT, _INTERFERENCE, _NOISE, _LOST, _NAME = range(6)
"""What is drawn, each by a stream of its own: one thing more of the one changes nothing of the others."""


class Integration(NamedTuple):
    """What one sub-band holds of one integration, in the sign of a Measurement Set (see `Visibilities`)."""

    data: NDArray[np.complex64]
    """(baseline, channel, correlation), Jy times gains; channels ascending."""
    lost: NDArray[np.bool_]
    """(baseline,): no packets came, and the data are 0."""


@dataclass(frozen=True)
class Recording:
    """What is the same in all files of a simulation."""

    settings: SimulationSettings
    telescope: Telescope
    """With the antennas, channels and integrations that were asked for."""
    start_s: float
    """Of the first integration, seconds of UTC since MJD 0."""
    declination_rad: float
    """Apparent, of the phase centres, which are on the meridian."""
    sources: tuple[sky.Source, ...]

    @property
    def antennas(self) -> int:
        return len(self.telescope.stations)

    @property
    def subbands(self) -> range:
        """Numbers of those that are simulated, missing ones too."""
        return range(self.settings.subbands or self.telescope.band.subbands)

    @property
    def polarisations(self) -> tuple[str, ...]:
        """Of antennas: X and Y."""
        return tuple(dict.fromkeys(each[0] for each in self.telescope.correlations))

    @cached_property
    def frequencies_hz(self) -> Floats:
        """Of all channels that are simulated, ascending."""
        return np.sort(np.concatenate([self.telescope.band.subband_frequencies_hz(each) for each in self.subbands]))

    @cached_property
    def baselines(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Antennas of each baseline, antennas with themselves among them; the first is not above the second."""
        return np.triu_indices(self.antennas)

    @cached_property
    def uvw_m(self) -> Floats:
        """(baseline, 3), antenna 1 less antenna 2: at all times the same, since the phase centre is on the meridian."""
        one, two = self.baselines
        positions = self.telescope.positions_m
        return earth.meridian_uvw_m(positions[one] - positions[two], self.declination_rad, self.telescope)

    @property
    def noise_jy(self) -> float:
        """Standard deviation of the real part of a visibility."""
        return self.reference_noise_jy if self.settings.noise_jy is None else self.settings.noise_jy

    @property
    def reference_noise_jy(self) -> float:
        """As the telescope has it: SEFD / sqrt(2 x channel width x integration)."""
        return float(self.telescope.sefd_jy / np.sqrt(2 * self._samples))

    @property
    def _samples(self) -> float:
        return self.telescope.band.channel_width_hz * self.telescope.integration_s

    def group_start_s(self, group: int) -> float:
        """Of its first integration."""
        return self.start_s + group * self.telescope.integrations * self.telescope.integration_s

    def time_s(self, group: int) -> Floats:
        """Middles of the integrations."""
        middles = np.arange(self.telescope.integrations, dtype=np.float64) + 0.5
        value: Floats = self.group_start_s(group) + middles * self.telescope.integration_s
        return value

    def stamp(self, group: int, subband: int) -> datetime:
        """The time in the name of a file."""
        jitter = self.settings.jitter_s
        off = int(self._random(_NAME, group, subband).integers(-jitter, jitter + 1))
        return (EPOCH + timedelta(seconds=self.group_start_s(group) + off)).replace(microsecond=0)

    @cached_property
    def instrument(self) -> Instrument:
        names, best = self.telescope.antenna_names, self.telescope.reference_antennas
        spared = next((names.index(each) for each in best if each in names), 0)
        return Instrument(
            self._random(_INSTRUMENT),
            self.antennas,
            len(self.polarisations),
            self.telescope.band,
            gains=self.settings.gains,
            bandpass=self.settings.bandpass,
            dead=self.settings.dead,
            spared=spared,
        )

    def interference(self, group: int) -> tuple[list[interference.Interference], NDArray[np.bool_]]:
        """Transmissions, and their mask (integration, channel) over `frequencies_hz`."""
        return interference.draw(
            self._random(_INTERFERENCE, group),
            self.settings.interference,
            self.telescope.integrations,
            len(self.frequencies_hz),
            self.antennas,
            len(self.polarisations),
        )

    def lost(self, group: int, subband: int) -> NDArray[np.bool_]:
        """(integration, antenna): whose packets did not come."""
        drawn = self._random(_LOST, group, subband).uniform(size=(self.telescope.integrations, self.antennas))
        return np.asarray(drawn < self.settings.lost)

    def integrations(self, group: int, subband: int) -> Iterator[Integration]:
        """One after the other, in the order of time."""
        from absurd.tasks.pipeline.simulation.compute import add_rank_one, corrupt, predict

        times = self.time_s(group)
        frequencies = self.telescope.band.subband_frequencies_hz(subband)
        first = int(np.searchsorted(self.frequencies_hz, frequencies[0]))
        one, two = self.baselines
        gains = self.instrument.gains(times)
        bandpass = self.instrument.bandpass(frequencies)
        transmissions, _ = self.interference(group)
        lost = self.lost(group, subband)
        random = self._random(_NOISE, group, subband)
        shape = (len(one), len(frequencies), len(self.polarisations))
        is_auto = one == two
        own_power = self.noise_jy * np.sqrt(2 * self._samples)
        for at, (directions, flux) in enumerate(self._apparent(times, frequencies)):
            model = np.zeros(shape[:2], np.complex128)
            predict(self.uvw_m, directions, flux, frequencies[0], self.telescope.band.channel_width_hz, model)
            data = np.empty(shape, np.complex64)
            response = gains[at, :, None, :] * bandpass
            corrupt(model, response, one, two, own_power, data)
            for each in transmissions:
                low, high = (min(max(edge - first, 0), shape[1]) for edge in (each.channels.start, each.channels.stop))
                if low < high and each.integrations.start <= at < each.integrations.stop:
                    strength = each.strength * (self.noise_jy or self.reference_noise_jy)
                    add_rank_one(strength, each.voltages, one, two, low, high, data)
            noise = random.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
            noise *= np.float32(self.noise_jy)
            noise[is_auto] = noise[is_auto].real * np.float32(np.sqrt(2))
            data += noise
            is_lost = lost[at, one] | lost[at, two]
            data[is_lost] = 0
            yield Integration(data, is_lost)

    def _apparent(self, times: Floats, frequencies: Floats) -> Iterator[tuple[Floats, Floats]]:
        """At each time: l, m, n - 1 of sources (source, 3), and what the beam leaves of them (source, channel), Jy."""
        beam = None
        if self.settings.beam != "none":
            beam = beam_named(self.settings.beam, self.telescope.dish_diameter_m)
        ra, dec = (np.radians([getattr(each, name) for each in self.sources]) for name in ("ra", "dec"))
        flux = np.array([each.flux_at_jy(frequencies) for each in self.sources]).reshape(-1, len(frequencies))
        hour_angle, declination = earth.observed(ra, dec, times[:, None], self.telescope)
        for at in range(len(times)):
            cosines = earth.meridian_cosines(hour_angle[at], declination[at], self.declination_rad)
            distance = 2 * np.arcsin(np.sqrt(np.clip(-cosines[2] / 2, 0, 1)))
            is_up = np.cos(distance) > 0
            received = flux if beam is None else flux * beam.power(distance[:, None], frequencies)
            yield np.stack(cosines, axis=-1), np.where(is_up[:, None], received, 0)

    def _random(self, what: int, *of: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, what, *of])


def plan(settings: SimulationSettings) -> Recording:
    """Everything that is known before visibilities are computed.

    Raises ValidationError for settings that the telescope does not allow, ConfigurationError for the telescope itself,
    DataError for a table of sources that cannot be read.
    """
    telescope = _adapted(load_telescope(settings.telescope), settings)
    long = telescope.integrations * telescope.integration_s
    near = (settings.near - EPOCH).total_seconds()
    known = sky.calibrator(settings.calibrator) if settings.calibrator else None
    start = near
    if settings.start is None and known is not None:
        place = np.radians(known.ra), np.radians(known.dec)
        start = float(round(earth.transit_s(float(place[0]), float(place[1]), near, telescope) - long / 2))
    if settings.declination_deg is not None:
        declination = float(np.radians(settings.declination_deg))
    else:
        assert known is not None  # the settings have seen to it
        declination = float(earth.observed(np.radians(known.ra), np.radians(known.dec), start + long / 2, telescope)[1])
    recording = Recording(settings, telescope, start, declination, ())
    sources = [known] if known is not None else []
    if settings.sky is not None:
        sources += sky.read_sky(settings.sky)
    elif settings.sources:
        sources += _drawn(recording)
    return replace(recording, sources=tuple(sources))


def _drawn(recording: Recording) -> list[sky.Source]:
    settings, telescope = recording.settings, recording.telescope
    ends = np.array([recording.group_start_s(each) for each in (0, settings.groups)])
    ra, dec = (np.degrees(each) for each in earth.icrs(0.0, recording.declination_rad, ends, telescope))
    middle = float(np.mean(telescope.band.frequencies_hz))
    width = float(np.degrees(beam_named("airy", telescope.dish_diameter_m).fwhm_rad(middle)))
    return sky.draw(
        np.random.default_rng([settings.seed, _SKY]),
        settings.sources,
        ra_deg=(float(ra[0]), float(ra[0] + (ra[1] - ra[0]) % 360)),
        dec_deg=float(np.mean(dec)),
        radius_deg=width if settings.radius_deg is None else settings.radius_deg,
        flux_jy=(settings.faintest_jy, settings.brightest_jy),
        reference_hz=middle,
        counts_index=settings.counts_index,
    )


def _adapted(telescope: Telescope, settings: SimulationSettings) -> Telescope:
    """With fewer antennas, channels and integrations."""
    band = telescope.band
    for name, there in (("antennas", len(telescope.stations)), ("subbands", band.subbands)):
        if (wanted := getattr(settings, name)) is not None and wanted > there:
            raise ValidationError(f"{name} is {wanted}, and {telescope.name} has {there}", advice="take fewer")
    if unknown := [each for each in settings.missing if not 0 <= each < (settings.subbands or band.subbands)]:
        raise ValidationError(f"sub-band {unknown[0]} is missing anyway", advice="name those that are simulated")
    if settings.dead >= (settings.antennas or len(telescope.stations)):
        raise ValidationError(f"{settings.dead} antennas are dead", advice="leave one at least")
    if any(each[0] != each[1] for each in telescope.correlations):
        raise ValidationError(
            f"{telescope.name} has correlations {', '.join(telescope.correlations)}",
            advice="only XX, YY, RR, LL are made",
        )
    channels = settings.channels or band.channels
    return replace(
        telescope,
        stations=_spread(telescope, settings.antennas),
        integrations=settings.integrations or telescope.integrations,
        band=Band(
            band.lowest_hz, band.channel_width_hz * band.channels / channels, channels, band.subbands, band.descending
        ),
    )


def _spread(telescope: Telescope, number: int | None) -> tuple[tuple[str, float, float, float], ...]:
    """So many stations, evenly from the list; the best reference antenna takes the place of the one next to it."""
    names = telescope.antenna_names
    if number is None or number == len(names):
        return telescope.stations
    taken = np.linspace(0, len(names) - 1, number).round().astype(int)
    best = next((names.index(each) for each in telescope.reference_antennas if each in names), 0)
    taken[np.argmin(np.abs(taken - best))] = best
    return tuple(telescope.stations[each] for each in taken)
