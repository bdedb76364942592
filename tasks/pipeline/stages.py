"""What a configuration means to the stages: the params that each executor is given for it.

What a run is about, as its files, comes from who spawns it; all else from here.  A folder is given as text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from absurd.tasks.pipeline.config import Calibration, PipelineConfig
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.radio.quantity import angle_deg

Params = dict[str, Any]
MASK_DEVIATIONS, ISLAND_DEVIATIONS = 5.0, 3.0
"""Of the residual, above which a source is cleaned at all where masks are asked for; of an island's pixels."""
TFCROP_DEVIATIONS = 1.5
"""Deviations at which our search flags a single sample, over the cut-off that tfcrop would have: both usual values."""


def stage_params(config: PipelineConfig, stage: str) -> Params:
    """Params of an executor, such as ``calibration.solve``, or options of ``pipeline simulate``, by the configuration.

    Raises ValidationError for a stage that no key is for.
    """
    if stage not in _STAGES:
        raise ValidationError(f"no key of the configuration is for {stage!r}", advice=f"take {', '.join(_STAGES)}")
    return _STAGES[stage](config)


def stages() -> list[str]:
    """Stages that keys are for."""
    return list(_STAGES)


def _ingest(config: PipelineConfig) -> Params:
    """It hands the folder for Measurement Sets on to the conversions that it spawns."""
    services = config.services
    subbands = services.expected_subbands or _subbands(config)
    told: Params = {} if config.ms_creation.test_mode else {"telescope": config.telescope}  # what is simulated is less
    return told | {
        "folder": config.paths.folder("hdf5_dir"),
        "out": config.paths.folder("ms_stage1_dir"),
        "time_tolerance_s": services.group_tolerance_s,
        "declination_tolerance_deg": services.group_declination_tolerance_deg,
        "subbands": subbands,
        "min_subbands": services.min_subbands or max(1, 3 * subbands // 4),
        "timeout_s": 60 * services.partial_after_min,
    }


def _watch(config: PipelineConfig) -> Params:
    """What it has other names for than the executor."""
    told = _ingest(config) | {"log": _log(config)}
    names = {"time_tolerance_s": "tolerance", "declination_tolerance_deg": "dec_tolerance", "timeout_s": "timeout"}
    return {names.get(name, name): value for name, value in told.items()}


def _plan(config: PipelineConfig) -> Params:
    told = _ingest(config)
    policy = ("time_tolerance_s", "declination_tolerance_deg", "subbands", "min_subbands", "timeout_s")
    return {"folder": told["folder"], "policy": {name: told[name] for name in policy}, "log": _log(config)}


def _plot(config: PipelineConfig) -> Params:
    return {"log": _log(config)}


def _log(config: PipelineConfig) -> Params:
    """What a command says: the least level, whether to the terminal, and to which file."""
    logging, folder = config.logging, config.paths.folder("log_dir")
    file = str(Path(folder) / "pipeline.log") if logging.file_output and folder is not None else None
    return {"level": logging.level, "console": logging.console_output, "file": file}


def _flag(config: PipelineConfig) -> Params:
    flagging = config.calibration.flagging
    if flagging.strategy != "default":
        return {"strategy": flagging.strategy}
    cutoffs = {"sum_threshold": flagging.tfcrop_timecutoff, "together": flagging.tfcrop_freqcutoff}
    return {
        "strategy": flagging.strategy,
        "steps": {step: {"first_threshold": TFCROP_DEVIATIONS * each} for step, each in cutoffs.items()},
    }


def _solve(config: PipelineConfig) -> Params:
    calibration, sky = config.calibration, config.skymodel
    return {
        "telescope": config.telescope,
        "out": config.paths.folder("cal_tables_dir"),
        "catalogs": config.paths.folder("skymodels_dir"),
        "engine": calibration.engine,
        "radius_deg": sky.field.radius_deg,
        "most_sources": sky.field.n_sources,
        "faintest_jy": sky.flux.min_flux_jy,
        "prebp": _solution(calibration, "prebp"),
        "bcal": _solution(calibration, "bcal")
        | {
            "combine": list(calibration.bcal_combine),
            "fillgaps": calibration.bcal_fillgaps,
            "minblperant": calibration.bcal_minblperant,
        },
        "gcal": _solution(calibration, "gcal") | {"mode": calibration.gcal_mode},
        "validity_hours": calibration.validity_hours,
        "declination_tolerance_deg": calibration.declination_tolerance_deg,
    }


def _solution(calibration: Calibration, which: str) -> Params:
    """Of one kind of solutions: interval, least signal to noise, baselines and reference antennas."""
    refant = calibration.bcal_refant or calibration.gcal_refant if which == "bcal" else calibration.gcal_refant
    return {
        "solint": calibration[f"{which}_solint"],
        "minsnr": calibration[f"{which}_minsnr"],
        "uvrange": calibration[f"{which}_uvrange"],
        "refant": [each.strip() for each in refant.split(",") if each.strip()],
    }


def _apply(config: PipelineConfig) -> Params:
    """For how long sets hold, each of them says: the keys of that are for those that are solved."""
    return {"gains": config.paths.folder("cal_tables_dir")}


def _qa(config: PipelineConfig) -> Params:
    return {
        "telescope": config.telescope,
        "reports": config.paths.folder("log_dir"),
        "catalogs": config.paths.folder("skymodels_dir"),
        "quarantine": config.quality.quarantine,
        "limits": config.quality.limits,
    }


def _qa_image(config: PipelineConfig) -> Params:
    return _qa_of_sky(config) | {"limits": config.quality.image_limits}


def _qa_mosaic(config: PipelineConfig) -> Params:
    return _qa_of_sky(config) | {"limits": config.quality.mosaic_limits}


def _qa_of_sky(config: PipelineConfig) -> Params:
    return {
        "reports": config.paths.folder("log_dir"),
        "catalogue": config.paths.placed(config.quality.catalogue),
        "quarantine": config.quality.quarantine,
    }


def _simulate(config: PipelineConfig) -> Params:
    creation, sky = config.ms_creation, config.skymodel
    settings = {
        "telescope": config.telescope,
        "antennas": creation.n_antennas,
        "channels": -(-creation.n_frequencies // _subbands(config)),
        "integrations": creation.n_times,
        "declination_deg": config.calibration.fixed_declination_deg,
        "sources": sky.field.n_sources,
        "radius_deg": sky.field.radius_deg,
        "faintest_jy": sky.flux.min_flux_jy,
        "brightest_jy": sky.flux.max_flux_jy,
        "counts_index": sky.flux.power_law_index,
    }
    return {
        "folder": config.paths.folder("hdf5_dir"),
        "test_mode": creation.test_mode,
        "settings": settings,
        "log": _log(config),
    }


# Images and what follows: `out` is a name in the folder of the stage, for which the block's own is put ----------


def _image(config: PipelineConfig) -> Params:
    imaging = config.imaging
    direct = (
        *("engine", "gridder", "wprojplanes", "deconvolver", "niter", "threshold", "image_size", "cell_size"),
        *("weighting", "robust", "pblimit", "pbcor", "planes"),
    )
    return {name: imaging[name] for name in direct} | {
        "out": _file(config, "images_dir", "image.fits"),
        "mask": config.paths.placed(imaging.mask),
        "auto_mask": MASK_DEVIATIONS if imaging.use_clean_mask else None,
        "kept": "all" if imaging.save_fits else "read",
    }


def _mosaic(config: PipelineConfig) -> Params:
    mosaicking = config.mosaicking
    return {
        "out": _file(config, "mosaics_dir", "mosaic.fits"),
        "telescope": config.telescope,
        "weighting": mosaicking.mosaic_type,
        "nx": mosaicking.mosaic_nx,
        "ny": mosaicking.mosaic_ny,
        "cell_arcsec": 3600 * angle_deg(mosaicking.mosaic_cell),
    }


def _detect(config: PipelineConfig) -> Params:
    detection = config.photometry.detection
    return {
        "out": _file(config, "photometry_dir", "sources/sources.parquet"),
        "detection_sigma": detection.threshold_sigma,
        "island_sigma": min(ISLAND_DEVIATIONS, detection.threshold_sigma),
        "fwhm_pixels": detection.fwhm_pixels,
    }


def _forced(config: PipelineConfig) -> Params:
    aperture = config.photometry.aperture
    return {
        "out": _file(config, "photometry_dir", "measurements/measurements.parquet"),
        "detection_sigma": config.photometry.detection.threshold_sigma,
        "aperture_arcsec": aperture.radius_arcsec,
        "ring_arcsec": [aperture.inner_annulus_arcsec, aperture.outer_annulus_arcsec],
    }


def _variability(config: PipelineConfig) -> Params:
    which = config.photometry.classification
    return {
        "out": _file(config, "photometry_dir", "variability/variability.parquet"),
        "photometry": [_file(config, "photometry_dir", "measurements")],
        "light_curves": _file(config, "photometry_dir", "light_curves/light_curves.parquet"),
        "target_flux_range_jy": which.target_flux_range,
        "reference_flux_range_jy": which.reference_flux_range,
        "reference_separation_arcsec": which.min_separation_arcsec,
    }


def _file(config: PipelineConfig, folder: str, name: str) -> str:
    return str(Path(config.paths.folder(folder) or ".") / name)


def _run(config: PipelineConfig) -> Params:
    services = config.services
    return {
        "environment": config.environment,
        "folder": config.paths.folder("ms_stage1_dir"),
        "duration_s": 60 * services.mosaic_duration_min,
        "overlap_s": 60 * services.mosaic_overlap_min,
        "recording_s": 60 * services.ms_chunk_duration_min,
        "max_concurrent_blocks": services.max_concurrent_blocks,
        "calibrator_radius_deg": config.calibration.calibrator_radius_deg or config.skymodel.field.radius_deg,
        "mosaics": config.mosaicking.save_fits,
        "log": _log(config),
    }


def _subbands(config: PipelineConfig) -> int:
    from absurd.tasks.radio.telescope import load_telescope

    return load_telescope(config.telescope).band.subbands


_STAGES: dict[str, Callable[[PipelineConfig], Params]] = {
    "pipeline simulate": _simulate,
    "pipeline watch": _watch,
    "pipeline plan": _plan,
    "pipeline plot": _plot,
    "pipeline run": _run,
    "visibility.ingest": _ingest,
    "visibility.flag": _flag,
    "calibration.solve": _solve,
    "calibration.apply": _apply,
    "qa.calibration": _qa,
    "imaging.image": _image,
    "qa.image": _qa_image,
    "imaging.mosaic": _mosaic,
    "qa.mosaic": _qa_mosaic,
    "photometry.detect": _detect,
    "photometry.forced": _forced,
    "photometry.variability": _variability,
}
