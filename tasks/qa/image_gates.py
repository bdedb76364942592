"""Gates of images and mosaics: what is measured, from where on it warns, and from where on it lets nothing pass."""

from __future__ import annotations

from collections.abc import Mapping

from absurd.tasks.qa.gates import Gate, Limits

_OF_SKY: Mapping[str, Gate] = {
    "flux_scale": Gate(
        "Median of measured over catalogued flux densities, of single sources that should have 20 times the noise.",
        Limits(warn_below=0.9, fail_below=0.8, warn_above=1.1, fail_above=1.2),
    ),
    "completeness": Gate(
        "Of the catalogue's sources that should have 10 times the noise: the share that was found at 5.",
        Limits(warn_below=0.95, fail_below=0.6),
    ),
    "astrometry": Gate(
        "Median offset of found from catalogued positions, in widths of the beam.",
        Limits(warn_above=0.1, fail_above=0.3),
    ),
}
IMAGE_GATES: Mapping[str, Gate] = {
    "noise_mjy": Gate(
        "Robust scatter of the residual's pixels.", Limits(fail_above=17.1), "mJy/beam", is_required=True
    ),
    "thermal_ratio": Gate(
        "That scatter over the noise that the weights of the visibilities promise.",
        Limits(warn_below=0.8, fail_below=0.5, warn_above=1.5, fail_above=3),
    ),
    "dynamic_range": Gate("The brightest pixel over the scatter.", Limits(warn_below=30, fail_below=10)),
    **_OF_SKY,
}
MOSAIC_GATES: Mapping[str, Gate] = {
    "noise_map": Gate(
        "Robust variance of pixels over their noise in the noise map: 1 where it tells the scatter.",
        Limits(warn_below=0.9, fail_below=0.7, warn_above=1.1, fail_above=1.5),
        is_required=True,
    ),
    "noise_map_worst": Gate(
        "The same of the worst part, of 8 by 8 or fewer, or its inverse: 1 or more.",
        Limits(warn_above=1.5, fail_above=3),
    ),
    **_OF_SKY,
}
