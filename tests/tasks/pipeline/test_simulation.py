"""The simulator: what its visibilities are, what it draws, and that the truth beside it is the truth."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from absurd.tasks.calibration.predict import predict
from absurd.tasks.calibration.sky_model import calibrator_component
from absurd.tasks.pipeline.simulation import sky
from absurd.tasks.pipeline.simulation.recording import EPOCH, plan
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.simulate import Simulated, simulate, simulate_in_memory
from absurd.tasks.pipeline.simulation.truth import read_truth, truth_of
from absurd.tasks.radio.beam import AiryBeam
from absurd.tasks.radio.errors import DataError, ValidationError
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT, load_telescope
from absurd.tasks.visibility.foreign import read_visibilities

SMALL = SimulationSettings(antennas=6, subbands=2, channels=4, integrations=3, sources=3, seed=7)
CLEAN = replace(SMALL, gains="perfect", bandpass=False, noise_jy=0.0, beam="none", sources=0)


def crosses(visibilities: Any) -> Any:
    """Rows of two antennas."""
    return ~visibilities.is_auto


def sky_of(folder: Path, *sources: sky.Source) -> str:
    """A table of these sources."""
    sky.write_sky(sources, folder / "sky.csv")
    return str(folder / "sky.csv")


# What visibilities are ----------------------------------------------------------------------------


def test_a_point_gives_what_the_path_lengths_say(tmp_path: Path) -> None:
    """Off the phase centre by a degree: S exp(2 pi i (r_p - r_q) . (s - s0) / wave), with the sky turned by astropy."""
    from astropy.coordinates import EarthLocation, HADec, SkyCoord
    from astropy.time import Time
    from astropy.utils.iers import conf

    settings = replace(CLEAN, sky=sky_of(tmp_path, sky.Source("a", 129.9, 56.3, 2.5)), calibrator=None,
                       declination_deg=55.4, start=datetime(2026, 1, 15, 9, 3, tzinfo=UTC))  # fmt: skip
    telescope = load_telescope("dsa110")

    visibilities, *_ = simulate_in_memory(settings)

    with conf.set_temp("auto_download", False):
        place = EarthLocation.from_geodetic(telescope.longitude_deg, telescope.latitude_deg, telescope.height_m)
        time = Time(visibilities.time_s / 86400, format="mjd", scale="utc")
        seen = SkyCoord(129.9, 56.3, unit="deg").transform_to(HADec(obstime=time, location=place))
    longitude = np.radians(telescope.longitude_deg)

    def towards(hour_angle: Any, declination: Any) -> Any:
        return np.stack(
            [
                np.cos(declination) * np.cos(longitude - hour_angle),
                np.cos(declination) * np.sin(longitude - hour_angle),
                np.sin(declination) * np.ones_like(hour_angle),
            ],
            axis=-1,
        )

    source, centre = towards(seen.ha.rad, seen.dec.rad), towards(np.zeros(len(time)), np.radians(55.4))
    places = visibilities.array.positions_m
    path = ((places[visibilities.antenna1] - places[visibilities.antenna2]) * (source - centre)).sum(axis=1)
    expected = 2.5 * np.exp(2j * np.pi * path[:, None] * visibilities.frequencies_hz / SPEED_OF_LIGHT)

    assert np.abs(path).max() > 5  # metres: many turns
    assert np.abs(visibilities.data[..., 0] - expected).max() < 2e-3  # a tenth of a millimetre is 0.003 rad at 2.5 Jy


def test_a_calibrator_transits_in_the_middle() -> None:
    """Without a start or a declination the calibrator is at the phase centre at mid-time: all phases are 0 there."""
    visibilities, *_ = simulate_in_memory(replace(CLEAN, integrations=25))

    middle = visibilities.time_s == np.unique(visibilities.time_s)[12]
    phase = np.degrees(np.angle(visibilities.data[middle & crosses(visibilities)]))
    flux = sky.calibrator("0834+555").flux_at_jy(visibilities.frequencies_hz)

    assert np.abs(phase).max() < 60  # the start is a whole second, in which the sky moves by 15 arcsec
    assert np.allclose(np.abs(visibilities.data[..., 0]), flux, rtol=1e-5)


def test_the_beam_stays_on_the_meridian(tmp_path: Path) -> None:
    """A source rises and falls as it drifts through the beam: at each time by the Airy pattern at its distance then."""
    settings = replace(CLEAN, beam="airy", antennas=2, integrations=9, declination_deg=55.0, calibrator=None)
    settings = replace(settings, start=datetime(2026, 1, 15, 9, 3, tzinfo=UTC))
    middle = simulate_in_memory(settings)[0].phase_centres[4]
    ra, dec = (float(each) for each in np.degrees([middle.ra_rad, middle.dec_rad]))

    visibilities, *_ = simulate_in_memory(
        replace(settings, sky=sky_of(tmp_path, sky.Source("off", ra, dec + 1.2, 1.0)))
    )

    amplitude = np.abs(visibilities.data[crosses(visibilities)][..., 0])
    centres = visibilities.phase_centres
    place = np.radians([ra, dec + 1.2])
    distance = np.array([separation(each.ra_rad, each.dec_rad, *place) for each in centres])
    expected = AiryBeam(4.65).power(distance[:, None], visibilities.frequencies_hz)
    assert np.allclose(amplitude, expected, rtol=1e-4)
    assert amplitude[:, 0].argmax() == 4


def separation(ra: float, dec: float, other_ra: float, other_dec: float) -> float:
    """Distance on the sky, radians."""
    haversine = np.sin((dec - other_dec) / 2) ** 2 + np.cos(dec) * np.cos(other_dec) * np.sin((ra - other_ra) / 2) ** 2
    return float(2 * np.arcsin(np.sqrt(haversine)))


def test_gains_do_what_the_truth_says() -> None:
    """V = g_p b_p model conj(g_q b_q), with the gains and the bandpass of the truth, for each polarisation."""
    clean, *_ = simulate_in_memory(CLEAN)
    dirty, gains, bandpass = simulate_in_memory(replace(CLEAN, gains="drifting", bandpass=True))

    response = gains.values[:, :, :1] * bandpass.values  # (time, antenna, channel, polarisation)
    at = np.searchsorted(gains.time_s, dirty.time_s)
    expected = clean.data * response[at, dirty.antenna1] * response[at, dirty.antenna2].conj()

    assert np.abs(dirty.data - expected).max() < 1e-4 * np.abs(expected).max()
    assert 0.02 < np.std(np.abs(gains.values)) < 0.3
    assert np.std(np.abs(bandpass.values)) > 0.02


def test_gains_change_smoothly() -> None:
    """From one integration to the next phases turn by less than two degrees; steady ones do not turn at all."""
    _, drifting, _ = simulate_in_memory(replace(CLEAN, gains="drifting", integrations=24, subbands=1))
    _, steady, _ = simulate_in_memory(replace(CLEAN, gains="steady", integrations=24, subbands=1))

    turned = np.degrees(np.angle(drifting.values[1:] / drifting.values[:-1]))
    assert 0 < np.abs(turned).max() < 2
    assert np.ptp(np.abs(steady.values), axis=0).max() == 0


def test_noise_is_that_of_the_telescope() -> None:
    """The real and the imaginary part scatter by SEFD / sqrt(2 dnu dt); antennas with themselves are real."""
    settings = replace(CLEAN, calibrator=None, declination_deg=37.0, noise_jy=None, antennas=12, integrations=20)
    telescope = load_telescope("dsa110")
    expected = telescope.sefd_jy / np.sqrt(2 * 11.71875e6 / 4 * telescope.integration_s)

    visibilities, *_ = simulate_in_memory(settings)

    data = visibilities.data[crosses(visibilities)]
    error = expected / np.sqrt(2 * data.size)
    assert plan(settings).noise_jy == pytest.approx(expected, rel=1e-12)
    assert np.std(data.real) == pytest.approx(expected, abs=5 * error)
    assert np.std(data.imag) == pytest.approx(expected, abs=5 * error)
    assert abs(data.mean()) < 5 * expected / np.sqrt(data.size)
    own = visibilities.data[visibilities.is_auto]
    assert not own.imag.any()
    assert own.real.mean() == pytest.approx(telescope.sefd_jy, rel=0.01)
    assert np.all(visibilities.weights == np.float32(1 / expected**2))


# What is drawn -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3])
def test_interference_is_where_the_mask_says(share: float) -> None:
    """The mask has the share asked for; within it data differ from those without, outside not by a bit."""
    quiet_settings = replace(SMALL, channels=48, integrations=10, noise_jy=0.5)
    settings = replace(quiet_settings, interference=share)

    clean, *_ = simulate_in_memory(quiet_settings)
    loud, *_ = simulate_in_memory(settings)

    mask = truth_of(plan(settings)).interference
    differs = (np.abs(loud.data - clean.data) > 1e-3 * 0.5).any(axis=2)
    by_cell = differs.reshape(10, -1, mask.shape[1])
    assert np.count_nonzero(mask) == round(share * mask.size)
    assert np.array_equal(by_cell.any(axis=1), mask)
    assert by_cell.all(axis=1)[mask].mean() > 0.97 if share else True
    assert np.array_equal(loud.data.reshape(10, -1, mask.shape[1], 2).swapaxes(1, 2)[~mask],
                          clean.data.reshape(10, -1, mask.shape[1], 2).swapaxes(1, 2)[~mask])  # fmt: skip


def test_dead_antennas_give_noise_alone() -> None:
    """As many as asked for, never the reference antenna; what they see of the sky is 0, in the truth too."""
    settings = replace(CLEAN, dead=2)

    visibilities, gains, _ = simulate_in_memory(settings)

    dead = plan(settings).instrument.dead
    is_dead = np.isin(visibilities.antenna1, dead) | np.isin(visibilities.antenna2, dead)
    assert len(dead) == 2
    assert "pad104" not in [visibilities.array.names[each] for each in dead]
    assert not visibilities.data[is_dead & crosses(visibilities)].any()
    assert visibilities.data[~is_dead].all()
    assert np.array_equal(np.flatnonzero(gains.flags.all(axis=(0, 2, 3))), dead)


def test_antennas_are_spread_over_the_array() -> None:
    """Few antennas still have long baselines, and the best reference antenna is one of them, whatever their number."""
    for number in (2, 3, 5, 16, 95, 96, None):
        recording = plan(replace(CLEAN, antennas=number))
        names = recording.telescope.antenna_names
        assert len(set(names)) == len(names) == (number or 96)
        assert "pad104" in names
        assert np.linalg.norm(recording.uvw_m, axis=1).max() > 500


def test_fluxes_are_distributed_as_told() -> None:
    """Between faintest and brightest, half of the sources are where N(> S) ~ S^-1.5 has its half; all are near."""
    found = sky.draw(np.random.default_rng(3), 20_000, ra_deg=(350.0, 370.0), dec_deg=60.0, radius_deg=2.0,
                     flux_jy=(0.01, 10.0), reference_hz=1.4e9)  # fmt: skip

    fluxes = np.array([each.flux_jy for each in found])
    assert fluxes.min() >= 0.01
    assert fluxes.max() <= 10
    assert np.mean(fluxes > 0.1) == pytest.approx((0.1**-1.5 - 10**-1.5) / (0.01**-1.5 - 10**-1.5), abs=5e-3)
    assert all(58 <= each.dec <= 62 and 0 <= each.ra < 360 for each in found)
    assert min(each.ra for each in found) < 1
    assert max(each.ra for each in found) > 359


def test_calibrators_have_the_scale_of_their_model() -> None:
    """What is simulated of 3C147 is what the solver's model of it says, at all frequencies, to the last digits."""
    frequencies = np.linspace(1.3e9, 1.5e9, 9)

    for name in ("3C48", "3C147", "3C286"):
        expected = calibrator_component(name).flux_at(frequencies)
        assert np.allclose(sky.calibrator(name).flux_at_jy(frequencies), expected, rtol=1e-14)
        assert np.allclose(sky.calibrator(name).as_component().flux_at(frequencies), expected, rtol=1e-14)


def test_the_solver_s_own_prediction_agrees(tmp_path: Path) -> None:
    """Files that are read back hold what the solver predicts for the sky of the truth: three parts that share no code.

    They agree to a thousandth of the calibrator, with sources in all of the beam and baselines of 1.6 km.
    """
    settings = replace(CLEAN, beam="airy", sources=5, faintest_jy=0.5, brightest_jy=0.6)
    made = simulate(settings, tmp_path)
    model = read_truth(made.truth).as_sky_model()
    assert len(model) == 6

    for visibilities in (read_visibilities(made.files[0]), simulate_in_memory(settings, subbands=[0])[0]):
        expected = predict(visibilities, model, beam=AiryBeam(4.65))

        assert np.abs(visibilities.data - expected)[crosses(visibilities)].max() < 1e-3 * 8.8


def test_one_thing_more_changes_nothing_of_the_others() -> None:
    """Gains and sky of a seed are the same whether there is interference or not, and in however many groups."""
    one, two = plan(SMALL), plan(replace(SMALL, groups=3, dead=1, lost=0.1, interference=0.1, jitter_s=5))

    frequencies = one.frequencies_hz
    assert one.sources[0] == two.sources[0]
    assert np.array_equal(one.instrument.bandpass(frequencies), two.instrument.bandpass(frequencies))
    alive = np.setdiff1d(np.arange(6), two.instrument.dead)
    assert np.array_equal(one.instrument.gains(one.time_s(0))[:, alive], two.instrument.gains(two.time_s(0))[:, alive])


# Files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """Two groups with everything in them."""
    settings = replace(SMALL, groups=2, interference=0.05, dead=1, lost=0.1, missing=(1,), jitter_s=30)
    return simulate(settings, tmp_path_factory.mktemp("incoming"))


def test_the_same_seed_gives_the_same_bytes(written: Simulated, tmp_path: Path) -> None:
    """Names and bytes of all files are those of another run; of another seed they are not."""
    again = simulate(written.recording.settings, tmp_path / "again")
    other = simulate(replace(written.recording.settings, seed=8), tmp_path / "other")

    def content(result: Simulated) -> dict[str, bytes]:
        files = [*map(Path, result.files), *(each for each in Path(result.truth).rglob("*") if each.is_file())]
        return {each.name: each.read_bytes() for each in files}

    assert content(again) == content(written)
    assert Path(other.files[0]).read_bytes() != Path(written.files[0]).read_bytes()


def test_names_are_those_of_the_array(written: Simulated) -> None:
    """`YYYY-MM-DDThh:mm:ss_sbNN.hdf5`, off by no more than the jitter; nothing of a missing sub-band, or unfinished."""
    names = [Path(each).name for each in written.files]
    recording = written.recording

    assert [each[-9:] for each in names] == ["sb00.hdf5", "sb00.hdf5"]
    for group, name in enumerate(names):
        stamp = datetime.fromisoformat(name[:19]).replace(tzinfo=UTC)
        assert abs((stamp - EPOCH).total_seconds() - recording.group_start_s(group)) <= 31
    assert sorted(each.name for each in Path(written.files[0]).parent.iterdir()) == sorted(
        [*names, Path(written.truth).name]
    )


def test_the_header_tells_what_the_array_tells(written: Simulated) -> None:
    """Older UVH5: drift, declination in radians, uvw in float32, channels from high to low, numbers of stations."""
    import h5py

    with h5py.File(written.files[0]) as file:
        header, extra, data = file["Header"], file["Header/extra_keywords"], file["Data"]
        told = {each: header[each][()] for each in header if each != "extra_keywords"}
        assert told["telescope_name"] == b"OVRO_MMA"
        assert told["phase_type"] == b"drift"
        assert told["uvw_array"].dtype == np.float32
        assert told["freq_array"].shape == (1, 4)
        assert np.all(np.diff(told["freq_array"][0]) < 0)
        assert told["freq_array"].max() + told["channel_width"] / 2 == pytest.approx(1498.75e6)
        assert np.array_equal(told["polarization_array"], [-5, -6])
        assert told["Nbls"] == 21
        assert data["visdata"].shape == (63, 1, 4, 2)
        assert data["visdata"].dtype == np.complex64
        assert extra["phase_center_dec"][()] == written.recording.declination_rad
        assert extra["ha_phase_center"][()] == 0
        names = [each.decode() for each in told["antenna_names"]]
        assert [int(each[3:]) - 1 for each in names] == told["antenna_numbers"].tolist()
        assert set(told["ant_1_array"]) == set(told["antenna_numbers"])


def test_uvw_and_data_have_the_sign_of_uvh5(written: Simulated) -> None:
    """In the file uvw is antenna 2 less antenna 1 and data are conjugate: the opposite of both in memory."""
    import h5py

    visibilities, *_ = simulate_in_memory(written.recording.settings, subbands=[0])

    with h5py.File(written.files[0]) as file:
        data, uvw = file["Data/visdata"][()][:, 0, ::-1], file["Header/uvw_array"][()]
        lost = file["Data/nsamples"][:, 0] == 0
        assert not file["Data/flags"][()].any()
    assert np.array_equal(data.conj(), visibilities.data)
    assert np.abs(uvw + np.tile(written.recording.uvw_m, (3, 1))).max() < 1e-4
    assert np.array_equal(lost, visibilities.flags)
    assert np.array_equal(lost, data == 0)
    assert 0.05 < lost.mean() < 0.4


def test_pyuvdata_reads_it(written: Simulated) -> None:
    """The library of the format takes the file: shapes, times, frequencies, antennas, and positions to a millimetre.

    But for uvw: the array writes float32, which the library's check refuses, as it does that of the real files.
    """
    import warnings

    from pyuvdata import UVData

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = UVData.from_file(written.files[0], file_type="uvh5", run_check=False)
        read.uvw_array = read.uvw_array.astype(np.float64)
        assert read.check()

    recording = written.recording
    assert read.Nblts == 63
    assert np.allclose(np.sort(read.freq_array.ravel()), recording.telescope.band.subband_frequencies_hz(0))
    assert np.allclose(np.unique(read.time_array), 2400000.5 + recording.time_s(0) / 86400, rtol=0, atol=1e-9)
    assert list(read.telescope.antenna_names) == list(recording.telescope.antenna_names)
    places = read.telescope.antenna_positions + np.array([each.value for each in read.telescope.location.geocentric])
    assert np.abs(places - recording.telescope.positions_m).max() < 1e-3


def test_the_truth_can_be_read(written: Simulated) -> None:
    """What lies beside the files is what was drawn: gains, bandpass, interference, sources, to the last digit."""
    told, truth = read_truth(written.truth), truth_of(written.recording)

    for name in ("gains", "bandpass", "interference", "lost", "time_s", "frequencies_hz"):
        assert np.array_equal(getattr(told, name), getattr(truth, name))
    assert told.sources == written.recording.sources
    assert told.antennas == written.recording.telescope.antenna_names
    assert told.facts["files"] == [Path(each).name for each in written.files]
    assert told.facts["settings"]["seed"] == 7
    assert told.as_gains().values.shape == (6, 6, 1, 2)
    assert told.as_bandpass().values.shape == (1, 6, 8, 2)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    """Whoever is interrupted leaves neither a file under its name nor an unfinished one."""

    def interrupt(done: int, total: int) -> None:
        if done == 4:  # in the second file
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(SMALL, tmp_path, interrupt)

    assert [each.name[-9:] for each in tmp_path.iterdir()] == ["sb00.hdf5"]


# What is refused ----------------------------------------------------------------------------------


def test_a_truth_takes_the_place_of_a_truth(tmp_path: Path) -> None:
    """Of an older one, and of nothing else that has its name."""
    truth = Path(simulate(SMALL, tmp_path).truth)
    simulate(SMALL, tmp_path)
    (truth / "notes").write_text("mine")

    with pytest.raises(ValidationError, match="holds notes, which is of no simulation"):
        simulate(SMALL, tmp_path)

    assert (truth / "notes").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"antennas": 1}, "antennas is 1"),
        ({"antennas": 97}, "DSA-110 has 96"),
        ({"subbands": 17}, "DSA-110 has 16"),
        ({"channels": 0}, "channels is 0"),
        ({"interference": 1.0}, "interference is 1.0: it is a share"),
        ({"noise_jy": -1.0}, "noise is -1 Jy"),
        ({"noise_jy": float("nan")}, "noise is nan Jy"),
        ({"faintest_jy": 2.0}, "sources from 2 to 0.5 Jy"),
        ({"calibrator": "Vega"}, "calibrator 'Vega' is not known: take one of 0834+555"),
        ({"calibrator": None}, "neither a declination nor a calibrator"),
        ({"declination_deg": 91.0}, "declination is 91"),
        ({"missing": (2,)}, "sub-band 2 is missing anyway"),
        ({"dead": 6}, "6 antennas are dead"),
        ({"start": datetime(2026, 1, 1)}, "without a time zone"),  # noqa: DTZ001
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], told: str) -> None:
    """Each setting has its bounds, and the error has the value and a way out."""
    with pytest.raises(ValidationError) as caught:
        plan(replace(SMALL, **changes))

    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ra,flux_jy\n1,2\n", "has no column dec"),
        ("ra,dec,flux_jy\n1,x,2\n", "line 2: dec is 'x', no number"),
        ("ra,dec,flux_jy\n1,2,\n", "line 2: flux_jy is '', no number"),
        ("ra,dec,flux_jy\n1,2,nan\n", "line 2: flux_jy is nan"),
        ("ra,dec,flux_jy\n1,95,2\n", "beyond the pole"),
        ("ra,dec,flux_jy\n1\n", "line 2: dec is '', no number"),
        ("ra,dec,flux_jy,spectrum\n1,2,3,-0.7 x\n", "line 2: spectrum is 'x', no number"),
        ("ra,dec,flux_jy,reference_hz\n1,2,3,0\n", "reference_hz is 0"),
    ],
)
def test_a_table_of_sources_that_is_none_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """With the file, the line and the column."""
    table = tmp_path / "sky.csv"
    table.write_text(text, encoding="utf-8")

    with pytest.raises(DataError) as caught:
        sky.read_sky(table)

    assert told in str(caught.value)
