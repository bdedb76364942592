"""Light curves on one flux scale, and what became of each source: tables for `photometry.variability`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from absurd.tasks.photometry.light_curve import LightCurves, light_curves
from absurd.tasks.photometry.normalise import Scale, pick_references, scale_of
from absurd.tasks.photometry.params import VariabilityParams
from absurd.tasks.photometry.rows import read_tables
from absurd.tasks.photometry.variability import (
    pairs_false_alarm,
    scattering_score,
    statistics,
    transient,
    variable,
)
from absurd.tasks.quiet import quiet
from absurd.tasks.radio.apart import require_apart
from absurd.tasks.radio.errors import PhotometryError

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What light curves tell."""

    sources: Any
    """Arrow table, a row for each source."""
    curves: Any
    """Arrow table, a row for each source and epoch."""
    scale: Scale | None
    light_curves: LightCurves

    def told(self) -> dict[str, Any]:
        """What is worth knowing of it, as JSON."""
        names = self.sources.column("source_id").to_pylist()
        kinds = self.sources.column("kind").to_pylist()
        counts = {kind: kinds.count(kind) for kind in ("steady", "variable", "transient", "not judged")}
        named = {
            kind: [name for name, each in zip(names, kinds, strict=True) if each == kind]
            for kind in ("variable", "transient")
        }
        epochs: list[dict[str, Any]] = [
            {"image": image, "observed": time.isoformat()}
            for image, time in zip(self.light_curves.epochs, self.light_curves.observed, strict=True)
        ]
        if self.scale is not None:
            for n, each in enumerate(epochs):
                each |= {"scale": float(self.scale.factor[n]), "references": int(self.scale.used[n])}
        return {"sources": len(names), "counts": counts, **named, "epochs": epochs}


def find_changes(params: VariabilityParams) -> Changes:
    """Bring measurements to one flux scale, and judge each source.

    Raises DataError for files that hold no measurements, PhotometryError for too few references, ValidationError for
    files that would be replaced.
    """
    require_apart(params.photometry, *filter(None, (params.out, params.light_curves)))
    table = read_tables(params.photometry)
    curves = light_curves(table)
    flux, error, scale = curves.flux, curves.error, None
    if params.normalise:
        scale = scale_of(flux, error, _references(curves, params), baseline_epochs=params.baseline_epochs)
        flux, error = scale.apply(flux, error)
    found = statistics(flux, error)
    changing = variable(found, false_alarm=params.false_alarm, least_epochs=params.min_epochs, least_v=params.min_v)
    passing = transient(flux, error, detection_sigma=params.transient_sigma)
    score, confidence = scattering_score(found, params.ese_preset)
    judged = (found.epochs >= params.min_epochs) & _within(found.mean, params.target_flux_range_jy)
    kinds = np.select([~judged, passing, changing], ["not judged", "transient", "variable"], "steady")
    sources = _table(
        {
            "source_id": (list(curves.sources), "name of the source"),
            "ra": (curves.ra_deg, "right ascension, degrees, ICRS"),
            "dec": (curves.dec_deg, "declination, degrees, ICRS"),
            "epochs": (found.epochs, "measurements"),
            "detections": (curves.detected.sum(axis=1), "epochs in which it was detected"),
            "mean_jy": (found.mean, "mean flux density, Jy/beam"),
            "weighted_mean_jy": (found.weighted_mean, "mean weighted by errors, Jy/beam"),
            "eta": (found.eta, "reduced chi squared about the weighted mean"),
            "v": (found.v, "standard deviation over the mean"),
            "vs": (found.vs, "difference of two epochs over its error, the largest"),
            "m": (found.m, "difference of the same two over their mean"),
            "sigma_deviation": (found.sigma_deviation, "largest distance from the mean, in standard deviations"),
            "false_alarm": (found.false_alarm, "probability of such an eta of a steady source"),
            "pair_false_alarm": (pairs_false_alarm(found.vs, found.epochs), "bound on that of such a vs"),
            "ese_score": (score, "extreme scattering event, 0 to 10"),
            "ese_confidence": (confidence, "high, medium or low"),
            "reference": ([n in (scale.references if scale else ()) for n in range(len(score))], "of the flux scale"),
            "kind": (kinds.tolist(), "steady, variable, transient or not judged"),
        }
    )
    return Changes(sources, _curves(curves, flux, error, scale), scale, curves)


def _references(curves: LightCurves, params: VariabilityParams) -> tuple[int, ...]:
    if not params.references:
        return pick_references(
            curves.flux,
            curves.error,
            usable=~curves.blended & _fit(curves, params),
            least_snr=params.reference_snr,
            most=params.most_references,
        )
    unknown = [each for each in params.references if each not in curves.sources]
    if unknown:
        raise PhotometryError(f"reference {unknown[0]!r} was not measured", advice="name sources of the measurements")
    return tuple(curves.sources.index(each) for each in params.references)


def _fit(curves: LightCurves, params: VariabilityParams) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which sources are as bright, and as far from any other, as references are to be."""
    with quiet():
        bright = _within(np.nanmedian(curves.flux, axis=1), params.reference_flux_range_jy)
    return bright & (nearest_arcsec(curves.ra_deg, curves.dec_deg) >= params.reference_separation_arcsec)


def nearest_arcsec(ra_deg: Floats, dec_deg: Floats) -> Floats:
    """From each position to the nearest other one, arcseconds; infinite for one alone."""
    from scipy.spatial import cKDTree

    if len(ra_deg) < 2:
        return np.full(len(ra_deg), np.inf)
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    places = np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    chord = cKDTree(places).query(places, k=2)[0][:, 1]
    nearest: Floats = np.degrees(2 * np.arcsin(np.minimum(chord / 2, 1))) * 3600
    return nearest


def _within(flux: Floats, bounds: tuple[float, float] | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if bounds is None:
        return np.ones(len(flux), bool)
    return (flux >= bounds[0]) & (flux <= bounds[1])


def _curves(curves: LightCurves, flux: Floats, error: Floats, scale: Scale | None) -> Any:
    """Row by source and epoch, also where nothing was measured."""
    count, epochs = flux.shape
    factor = scale.factor if scale else np.ones(epochs)
    return _table(
        {
            "source_id": ([each for each in curves.sources for _ in range(epochs)], "name of the source"),
            "image": (list(curves.epochs) * count, "path of the image"),
            "observed": (list(curves.observed) * count, "when it was observed, UTC"),
            "flux_jy": (flux.ravel(), "flux density on one scale, Jy/beam"),
            "error_jy": (error.ravel(), "its standard deviation, with the scale's"),
            "measured_jy": (curves.flux.ravel(), "as it was measured"),
            "scale": (np.tile(factor, count), "what it was divided by"),
            "upper_limit_jy": ((curves.limit / factor).ravel(), "on the same scale, of a source that was not detected"),
            "detected": (curves.detected.ravel(), "whether the source was detected"),
        }
    )


def _table(columns: dict[str, tuple[Any, str]]) -> Any:
    import pyarrow as pa

    arrays, fields = [], []
    for name, (values, meaning) in columns.items():
        array = pa.array(values, from_pandas=True)
        if pa.types.is_timestamp(array.type):
            array = array.cast(pa.timestamp("us", tz="UTC"))
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"description": meaning}))
    return pa.table(arrays, schema=pa.schema(fields))
