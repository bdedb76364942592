"""What each key of the pipeline's configuration does: another value, and the params of stages that it changes."""

from __future__ import annotations

from typing import Any

GONE = object()
"""A param that is not given any more."""
Effects = dict[str, Any]
"""By stage and param, as in ``calibration.solve gcal.minsnr``: what the param becomes."""
COMMANDS = ("pipeline simulate", "pipeline watch", "pipeline plan", "pipeline plot", "pipeline run")


def _log(param: str, value: Any) -> Effects:
    """Of what each command says."""
    return {f"{command} log.{param}": value for command in COMMANDS}


def _intake(name: str, of_watch: str, value: Any) -> Effects:
    """Of the policy by which sub-bands are grouped, under the names that it has in each stage."""
    return {
        f"visibility.ingest {name}": value,
        f"pipeline watch {of_watch}": value,
        f"pipeline plan policy.{name}": value,
    }


def _solve(**params: Any) -> Effects:
    """Of solutions: ``bcal__minsnr`` is ``bcal.minsnr``."""
    return {f"calibration.solve {name.replace('__', '.')}": value for name, value in params.items()}


def _one(stage: str, **params: Any) -> Effects:
    """Of one stage: ``settings__sources`` is ``settings.sources``."""
    return {f"{stage} {name.replace('__', '.')}": value for name, value in params.items()}


def _simulated(**settings: Any) -> Effects:
    return {f"pipeline simulate settings.{name}": value for name, value in settings.items()}


def _products(folder: str) -> Effects:
    """Of photometry."""
    return {
        "photometry.detect out": f"{folder}/sources/sources.parquet",
        "photometry.forced out": f"{folder}/measurements/measurements.parquet",
        "photometry.variability out": f"{folder}/variability/variability.parquet",
        "photometry.variability photometry": [f"{folder}/measurements"],
        "photometry.variability light_curves": f"{folder}/light_curves/light_curves.parquet",
    }


def _arriving(folder: str) -> Effects:
    stages = ("visibility.ingest", "pipeline watch", "pipeline plan", "pipeline simulate")
    return {f"{stage} folder": folder for stage in stages}


def _measurement_sets(folder: str) -> Effects:
    return {"visibility.ingest out": folder, "pipeline watch out": folder, "pipeline run folder": folder}


def _gains(folder: str) -> Effects:
    return {"calibration.solve out": folder, "calibration.apply gains": folder}


EFFECTS: dict[str, tuple[Any, Effects]] = {
    "telescope": (
        "OTHER.toml",  # of 8 sub-bands
        _intake("subbands", "subbands", 8)
        | _intake("min_subbands", "min_subbands", 6)
        | _solve(telescope="OTHER.toml")
        | _one("qa.calibration", telescope="OTHER.toml")
        | _one("imaging.mosaic", telescope="OTHER.toml")
        | _simulated(telescope="OTHER.toml", channels=16),
    ),
    "paths.base_dir": (
        "site",
        _arriving("site/data/hdf5")
        | _measurement_sets("site/data/ms_stage1")
        | _gains("site/data/cal_tables")
        | _one("qa.calibration", reports="site/logs")
        | _one("qa.image", reports="site/logs")
        | _one("qa.mosaic", reports="site/logs")
        | _one("imaging.image", out="site/data/images/image.fits")
        | _one("imaging.mosaic", out="site/data/mosaics/mosaic.fits")
        | _products("site/data/photometry")
        | _log("file", "site/logs/pipeline.log"),
    ),
    "paths.hdf5_dir": ("other", _arriving("other")),
    "paths.ms_stage1_dir": ("other", _measurement_sets("other")),
    "paths.cal_tables_dir": ("other", _gains("other")),
    "paths.skymodels_dir": ("other", _solve(catalogs="other") | _one("qa.calibration", catalogs="other")),
    "paths.log_dir": (
        "other",
        _one("qa.calibration", reports="other")
        | _one("qa.image", reports="other")
        | _one("qa.mosaic", reports="other")
        | _log("file", "other/pipeline.log"),
    ),
    "paths.images_dir": ("other", _one("imaging.image", out="other/image.fits")),
    "paths.mosaics_dir": ("other", _one("imaging.mosaic", out="other/mosaic.fits")),
    "paths.photometry_dir": ("other", _products("other")),
    "services.group_tolerance_s": (30.0, _intake("time_tolerance_s", "tolerance", 30.0)),
    "services.expected_subbands": (
        8,
        _intake("subbands", "subbands", 8) | _intake("min_subbands", "min_subbands", 6),
    ),
    "services.min_subbands": (5, _intake("min_subbands", "min_subbands", 5)),
    "services.group_declination_tolerance_deg": (0.2, _intake("declination_tolerance_deg", "dec_tolerance", 0.2)),
    "services.partial_after_min": (2.5, _intake("timeout_s", "timeout", 150.0)),
    "services.mosaic_duration_min": (7.0, _one("pipeline run", duration_s=420.0)),
    "services.mosaic_overlap_min": (0.5, _one("pipeline run", overlap_s=30.0)),
    "services.ms_chunk_duration_min": (2.0, _one("pipeline run", recording_s=120.0)),
    "services.max_concurrent_blocks": (3, _one("pipeline run", max_concurrent_blocks=3)),
    "calibration.flagging.strategy": (
        "quick",
        _one(
            "visibility.flag",
            strategy="quick",
            steps__sum_threshold__first_threshold=GONE,
            steps__together__first_threshold=GONE,
        ),
    ),
    "calibration.flagging.tfcrop_timecutoff": (
        5.0,
        _one("visibility.flag", steps__sum_threshold__first_threshold=7.5),
    ),
    "calibration.flagging.tfcrop_freqcutoff": (6.0, _one("visibility.flag", steps__together__first_threshold=9.0)),
    "calibration.fixed_declination_deg": (30.0, _simulated(declination_deg=30.0)),
    "calibration.engine": ("casatasks", _solve(engine="casatasks")),
    "calibration.gcal_refant": (
        "pad105, pad106",
        {f"calibration.solve {which}.refant": ["pad105", "pad106"] for which in ("prebp", "bcal", "gcal")},
    ),
    "calibration.gcal_mode": ("p", _solve(gcal__mode="p")),
    "calibration.gcal_solint": ("int", _solve(gcal__solint="int")),
    "calibration.gcal_minsnr": (4.5, _solve(gcal__minsnr=4.5)),
    "calibration.gcal_uvrange": ("<500m", _solve(gcal__uvrange="<500m")),
    "calibration.bcal_refant": ("pad107", _solve(bcal__refant=["pad107"])),
    "calibration.bcal_solint": ("10min", _solve(bcal__solint="10min")),
    "calibration.bcal_minsnr": (6.5, _solve(bcal__minsnr=6.5)),
    "calibration.bcal_uvrange": ("<600m", _solve(bcal__uvrange="<600m")),
    "calibration.bcal_combine": (["scan"], _solve(bcal__combine=["scan"])),
    "calibration.bcal_fillgaps": (5, _solve(bcal__fillgaps=5)),
    "calibration.bcal_minblperant": (6, _solve(bcal__minblperant=6)),
    "calibration.prebp_solint": ("30s", _solve(prebp__solint="30s")),
    "calibration.prebp_minsnr": (2.5, _solve(prebp__minsnr=2.5)),
    "calibration.prebp_uvrange": ("<700m", _solve(prebp__uvrange="<700m")),
    "calibration.calibrator_radius_deg": (0.5, _one("pipeline run", calibrator_radius_deg=0.5)),
    "calibration.validity_hours": (6.0, _solve(validity_hours=6.0)),
    "calibration.declination_tolerance_deg": (2.0, _solve(declination_tolerance_deg=2.0)),
    "quality.quarantine": (
        False,
        _one("qa.calibration", quarantine=False)
        | _one("qa.image", quarantine=False)
        | _one("qa.mosaic", quarantine=False),
    ),
    "quality.image_limits": ({"noise_mjy": {"fail_above": 5}}, _one("qa.image", limits__noise_mjy__fail_above=5)),
    "quality.mosaic_limits": ({"noise_map": {"fail_above": 5}}, _one("qa.mosaic", limits__noise_map__fail_above=5)),
    "quality.catalogue": (
        "nvss.fits",
        _one("qa.image", catalogue="nvss.fits") | _one("qa.mosaic", catalogue="nvss.fits"),
    ),
    "quality.limits": ({"antennas": {"fail_below": 6}}, _one("qa.calibration", limits__antennas__fail_below=6)),
    "imaging.deconvolver": ("multiscale", _one("imaging.image", deconvolver="multiscale")),
    "imaging.engine": ("wsclean", _one("imaging.image", engine="wsclean")),
    "imaging.gridder": ("idg", _one("imaging.image", gridder="idg")),
    "imaging.wprojplanes": (64, _one("imaging.image", wprojplanes=64)),
    "imaging.niter": (50, _one("imaging.image", niter=50)),
    "imaging.threshold": ("2mJy", _one("imaging.image", threshold="2mJy")),
    "imaging.image_size": ([64, 32], _one("imaging.image", image_size=[64, 32])),
    "imaging.cell_size": ("2arcsec", _one("imaging.image", cell_size="2arcsec")),
    "imaging.weighting": ("natural", _one("imaging.image", weighting="natural")),
    "imaging.robust": (-1.0, _one("imaging.image", robust=-1.0)),
    "imaging.pblimit": (0.2, _one("imaging.image", pblimit=0.2)),
    "imaging.pbcor": (False, _one("imaging.image", pbcor=False)),
    "imaging.planes": (3, _one("imaging.image", planes=3)),
    "imaging.mask": ("sources.reg", _one("imaging.image", mask="sources.reg")),
    "imaging.use_clean_mask": (True, _one("imaging.image", auto_mask=5.0)),
    "imaging.save_fits": (False, _one("imaging.image", kept="read")),
    "mosaicking.mosaic_type": ("pbweight", _one("imaging.mosaic", weighting="pbweight")),
    "mosaicking.mosaic_nx": (3000, _one("imaging.mosaic", nx=3000)),
    "mosaicking.mosaic_ny": (500, _one("imaging.mosaic", ny=500)),
    "mosaicking.mosaic_cell": ("2arcmin", _one("imaging.mosaic", cell_arcsec=120.0)),
    "mosaicking.save_fits": (False, _one("pipeline run", mosaics=False)),
    "photometry.detection.fwhm_pixels": (4.0, _one("photometry.detect", fwhm_pixels=4.0)),
    "photometry.detection.threshold_sigma": (
        2.5,
        _one("photometry.detect", detection_sigma=2.5, island_sigma=2.5)
        | _one("photometry.forced", detection_sigma=2.5),
    ),
    "photometry.classification.target_flux_range": (
        [0.1, 0.2],
        _one("photometry.variability", target_flux_range_jy=[0.1, 0.2]),
    ),
    "photometry.classification.reference_flux_range": (
        [0.3, 0.4],
        _one("photometry.variability", reference_flux_range_jy=[0.3, 0.4]),
    ),
    "photometry.classification.min_separation_arcsec": (
        20.0,
        _one("photometry.variability", reference_separation_arcsec=20.0),
    ),
    "photometry.aperture.radius_arcsec": (20.0, _one("photometry.forced", aperture_arcsec=20.0)),
    "photometry.aperture.inner_annulus_arcsec": (50.0, _one("photometry.forced", ring_arcsec=[50.0, 150.0])),
    "photometry.aperture.outer_annulus_arcsec": (120.0, _one("photometry.forced", ring_arcsec=[60.0, 120.0])),
    "skymodel.field.radius_deg": (
        1.5,
        _solve(radius_deg=1.5) | _simulated(radius_deg=1.5) | _one("pipeline run", calibrator_radius_deg=1.5),
    ),
    "skymodel.field.n_sources": (10, _solve(most_sources=10) | _simulated(sources=10)),
    "skymodel.flux.min_flux_jy": (0.002, _solve(faintest_jy=0.002) | _simulated(faintest_jy=0.002)),
    "skymodel.flux.max_flux_jy": (0.9, _simulated(brightest_jy=0.9)),
    "skymodel.flux.power_law_index": (-2.0, _simulated(counts_index=-2.0)),
    "ms_creation.test_mode": (
        False,
        _one("visibility.ingest", telescope="dsa110")
        | _one("pipeline watch", telescope="dsa110")
        | _one("pipeline simulate", test_mode=False),
    ),
    "ms_creation.n_antennas": (20, _simulated(antennas=20)),
    "ms_creation.n_frequencies": (160, _simulated(channels=10)),
    "ms_creation.n_times": (12, _simulated(integrations=12)),
    "logging.level": ("ERROR", _log("level", "ERROR")),
    "logging.console_output": (False, _log("console", False)),
    "logging.file_output": (False, _log("file", None)),
}
"""Over the environment for development."""
