"""Configurations: environments, files laid over them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from absurd.errors import AbsurdError, InvalidInputError
from absurd.tasks import pipeline
from absurd.tasks.pipeline import ConfigurationError, PipelineError, environment_names, load_pipeline_config
from absurd.tasks.pipeline.config import PipelineConfig
from absurd.tasks.pipeline.environments import described_keys, known_keys, pipeline_config_schema

SEED_KEYS = {
    "paths": ("log_dir", "ms_stage1_dir", "cal_tables_dir", "images_dir", "mosaics_dir", "skymodels_dir",
              "photometry_dir", "hdf5_dir"),
    "services": ("mosaic_duration_min", "mosaic_overlap_min", "ms_chunk_duration_min", "max_concurrent_blocks"),
    "calibration": ("fixed_declination_deg", "gcal_refant", "gcal_mode", "gcal_solint", "gcal_minsnr", "gcal_uvrange",
                    "flagging.tfcrop_timecutoff", "flagging.tfcrop_freqcutoff"),
    "imaging": ("deconvolver", "gridder", "wprojplanes", "niter", "threshold", "interactive", "image_size",
                "cell_size", "weighting", "robust", "pblimit", "pbcor", "savemodel", "use_clean_mask", "save_fits"),
    "mosaicking": ("mosaic_type", "mosaic_nx", "mosaic_ny", "mosaic_cell", "save_fits"),
    "photometry": ("detection.fwhm_pixels", "detection.threshold_sigma", "classification.target_flux_range",
                   "classification.reference_flux_range", "classification.min_separation_arcsec",
                   "aperture.radius_arcsec", "aperture.inner_annulus_arcsec", "aperture.outer_annulus_arcsec"),
    "skymodel": ("field.radius_deg", "field.n_sources", "flux.min_flux_jy", "flux.max_flux_jy",
                 "flux.power_law_index"),
    "ms_creation": ("test_mode", "n_antennas", "n_frequencies", "n_times"),
    "logging": ("level", "console_output", "file_output"),
}  # fmt: skip


def test_the_seeds_call_and_keys() -> None:
    """The call of the seed gives its structure and its values; each of its keys is there, by attribute and by name."""
    config = pipeline.load_pipeline_config(environment="development")

    assert config.environment == "development"
    assert {f"{section}.{key}" for section, keys in SEED_KEYS.items() for key in keys} <= set(known_keys())
    assert config["paths"]["log_dir"] == config.paths.log_dir == "logs"
    assert dict(load_pipeline_config("production")["calibration"])["gcal_refant"] == "pad001"
    usual = load_pipeline_config("production")
    assert (usual.services.mosaic_duration_min, usual.services.mosaic_overlap_min) == (60, 10)
    assert (usual.services.ms_chunk_duration_min, usual.services.max_concurrent_blocks) == (5, 4)
    assert (usual.calibration.gcal_mode, usual.calibration.gcal_solint) == ("ap", "30min")
    assert usual.calibration.fixed_declination_deg == 37.0
    assert (usual.imaging.deconvolver, usual.imaging.gridder, usual.imaging.niter) == ("hogbom", "wproject", 5000)
    assert (usual.imaging.threshold, usual.imaging.image_size, usual.imaging.cell_size) == (
        "1mJy",
        [4800, 4800],
        "3arcsec",
    )


def test_every_environment_is_whole() -> None:
    """Each loads, and differs from the others; no key of a section is lost where its layer names only some."""
    loaded = {name: load_pipeline_config(name) for name in environment_names()}

    assert set(loaded) == {"development", "production", "testing"}
    assert loaded["development"].imaging.niter == 100
    assert loaded["development"].imaging.weighting == "briggs"
    assert loaded["testing"].ms_creation.n_antennas >= 10  # fewer would not pass the gates
    assert len({each.model_dump_json() for each in loaded.values()}) == 3


def test_a_file_is_laid_over_at_every_depth(tmp_path: Path) -> None:
    """Tables are merged, lists and values replaced, in TOML as in YAML; overrides go over the file."""
    (tmp_path / "site.toml").write_text(
        'telescope = "dsa110"\n[photometry.aperture]\nradius_arcsec = 12.0\n[imaging]\nimage_size = [64, 32]\n'
    )
    (tmp_path / "site.yaml").write_text(
        "telescope: dsa110\nphotometry:\n  aperture:\n    radius_arcsec: 12.0\nimaging:\n  image_size: [64, 32]\n"
    )

    toml, yaml = (load_pipeline_config(path=tmp_path / name) for name in ("site.toml", "site.yaml"))

    assert toml == yaml
    assert toml.photometry.aperture.radius_arcsec == 12
    assert toml.photometry.aperture.outer_annulus_arcsec == 150
    assert (toml.imaging.image_size, toml.imaging.niter) == ([64, 32], 100)
    over = load_pipeline_config(path=tmp_path / "site.toml", overrides={"imaging": {"image_size": [128, 128]}})
    assert over.imaging.image_size == [128, 128]
    assert over.photometry.aperture.radius_arcsec == 12


def test_a_file_with_a_section_for_each_environment(tmp_path: Path) -> None:
    """That of the environment goes over what all have in common, key by key, where YAML's own merge loses keys."""
    (tmp_path / "all.yaml").write_text(
        "base_config: &base\n  imaging: {niter: 7, robust: 0.0}\n  services: {mosaic_duration_min: 30}\n"
        "development:\n  <<: *base\n  imaging: {niter: 9}\ntesting:\n  imaging: {niter: 11}\n"
    )

    for name, niter in (("development", 9), ("testing", 11), ("production", 7)):
        config = load_pipeline_config(name, tmp_path / "all.yaml")
        assert (config.imaging.niter, config.imaging.robust) == (niter, 0.0), name
        assert config.services.mosaic_duration_min == 30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[calibration]\ngcal_refnat = 'a'", r"refnat in .*site\.toml is .*; did you mean calibration\.gcal_refant\?"),
        ("niter = 5", r"niter in .* is not a key .*; did you mean imaging\.niter\?"),
        ("[imagin]\nniter = 5", r"imagin in .*; did you mean imaging\?"),
        ("imaging = 5", "imaging in .* is 5; it must be a table of keys"),
        ("[imaging]\nniter = 'many'", "imaging.niter in .*site.toml is 'many': input should be a valid integer"),
        ("[imaging]\nniter = true", "imaging.niter in .* is True"),
        ("[imaging]\nniter = -1", "imaging.niter in .* is -1: input should be greater than or equal to 0"),
        ("[imaging]\nrobust = nan", "imaging.robust in .* is nan"),
        ("[imaging]\nthreshold = '1MJy'", "imaging.threshold in .* is '1MJy': '1MJy' is not a flux density"),
        ("[imaging]\ncell_size = '3 seconds'", "imaging.cell_size in .*: '3 seconds' is not an angle"),
        ("[imaging]\nimage_size = [4800]", "imaging.image_size in .*at least 2 items"),
        ("[calibration]\ngcal_solint = 'soon'", "calibration.gcal_solint in .*: 'soon' is not a duration"),
        ("[calibration]\ngcal_mode = 'x'", "gcal_mode in .* is 'x': input should be 'p', 'a' or 'ap'"),
        ("[calibration]\ngcal_refant = 'a,,b'", "gcal_refant in .*write names of antennas"),
        ("[calibration]\nfixed_declination_deg = 91.0", "fixed_declination_deg in .* is 91.0"),
        ("[services]\nmosaic_overlap_min = 5.0", "services in .*: mosaic_overlap_min must be less than"),
        ("[services]\nms_chunk_duration_min = 90.0", "ms_chunk_duration_min must be at most"),
        ("[photometry.aperture]\nradius_arcsec = 70.0", r"photometry\.aperture in .*: radius_arcsec must be at most"),
        ("[quality.limits]\nantenas = {}", "quality in .*: gate 'antenas' is not known: did you mean antennas"),
        ("environment = 'production'", "is of environment 'production', and 'development' was asked for"),
        ("a = ", "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Key, value and file are named, with the nearest key or what it must be; as an error of the pipeline's own."""
    (tmp_path / "site.toml").write_text(text)

    with pytest.raises(ConfigurationError, match=said) as raised:
        load_pipeline_config(path=tmp_path / "site.toml")
    assert isinstance(raised.value, PipelineError)
    assert isinstance(raised.value, InvalidInputError)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("absent.toml", None, "No such file"),
        ("list.yaml", "- 1\n- 2\n", "must hold a table of keys, it holds a list"),
        ("twice.yaml", "imaging: {niter: 1}\nimaging: {niter: 2}\n", "'imaging' more than once"),
        ("docstring.yaml", '"""\nAbout this.\n"""\n\nimaging:\n  niter: 1\n', "cannot be read"),
        ("mixed.yaml", "testing: {}\nimaging: {}\n", "all its keys must stand in one: imaging do not"),
        ("code.yaml", "imaging: !!python/object/apply:os.getcwd []\n", "cannot be read"),
        ("latin.toml", b"# \xe9\n", "not UTF-8"),
    ],
)
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, name: str, text: Any, said: str) -> None:
    """What is absent, no table, ambiguous, or runs code."""
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(ConfigurationError, match=said):
        load_pipeline_config(path=tmp_path / name)


def test_an_unknown_environment_is_refused() -> None:
    """With the one that was perhaps meant, and all there are."""
    with pytest.raises(ConfigurationError, match=r"'prodution'; did you mean production\?; there are development, pro"):
        load_pipeline_config("prodution")


def test_nothing_around_has_a_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither variables nor the working folder change what is loaded."""
    before = load_pipeline_config()
    for name in known_keys():
        monkeypatch.setenv(f"ABSURD_{name.replace('.', '_').upper()}", "1")
        monkeypatch.setenv(name.rpartition(".")[2].upper(), "1")
    monkeypatch.chdir(tmp_path)

    assert load_pipeline_config() == before


def test_the_schema_tells_all_keys() -> None:
    """Each with its meaning and the stages that read it; it is JSON."""
    schema = json.loads(json.dumps(pipeline_config_schema()))

    assert schema["additionalProperties"] is False
    told = dict(described_keys(PipelineConfig))
    assert set(told) == set(known_keys())
    for name, field in told.items():
        assert field.description, name
        assert field.json_schema_extra["read_by"], name
    assert schema["$defs"]["Imaging"]["properties"]["niter"]["minimum"] == 0


def test_the_errors_of_the_seed_are_exported() -> None:
    """By the names that the seed's users catch; each is an error of the platform with a code of its own."""
    names = ("PipelineError", "DataError", "ConfigurationError", "StageError", "CalibrationError", "ImagingError",
             "MosaickingError", "PhotometryError", "ServiceError", "MessageQueueError", "StateManagementError",
             "ValidationError", "DependencyError", "QualityError")  # fmt: skip
    classes = [getattr(pipeline, name) for name in names]

    assert all(issubclass(each, PipelineError) and issubclass(each, AbsurdError) for each in classes)
    assert len({each.code for each in classes}) == len(names)
    assert set(names) <= set(pipeline.__all__)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = pipeline.nothing_like_it


def test_a_configuration_cannot_be_changed_in_place() -> None:
    """Those who share one see the same."""
    config = load_pipeline_config()

    with pytest.raises(ValueError, match="frozen"):
        config.imaging.niter = 5
    assert isinstance(config, BaseModel)
    assert config.paths.folder("log_dir") == "logs"
