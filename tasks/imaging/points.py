"""Bright points: off the grid of pixels, with a spectrum and a flux that follows the drift of the sky through the beam.

While a dish stands still each source changes its flux; what a model without that leaves behind is a few per cent of
the flux, which in deep images of bright sources is far above the noise.  A point has the flux
f0 + f1 t + f2 t^2 + g1 v + g2 v^2 + h t v, with t from -1 to 1 over the recording and v over the band.  Positions and
fluxes are fitted to the visibilities by Gauss-Newton steps: the residual is that of the visibilities, exactly; products
of points with one another are taken from the point spread function, so that a step need not be exact for the next ones
to arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.beam_fit import RestoringBeam
from absurd.tasks.imaging.direct import padded_flux
from absurd.tasks.imaging.grid import Grid
from absurd.tasks.imaging.phasors import project

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Values = NDArray[np.complex64]
ROUNDS = 2
"""Steps of a fit; each takes the errors down to a tenth or so."""
_MOST = 64
"""Candidates at once."""
_COMPACT = 0.35
"""Components of a point lie within so many widths of the beam of their middle, root mean square."""
_TOGETHER = 0.75
"""Components within so many widths of the beam are one point."""
TERMS = ((0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1))
"""Powers of t and v of each term of a flux."""
_POWERS = 3


@dataclass(frozen=True, slots=True)
class Point:
    """A source that is one."""

    x: float
    """0-based pixel coordinates, which need not be whole."""
    y: float
    terms_jy: tuple[float, ...]
    """f0, f1, f2, g1, g2, h."""
    mean_jy: float
    """Of the recording and the band, by weight: its flux in the image."""


def candidates(
    model: Pixels, beam: RestoringBeam, cell_rad: float, least_jy: float, known: Sequence[Point]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pixels (y, x) of a model that might be one point each, the brightest first: within the beam of their brightest.

    Their flux is `least_jy` together, they lie close together, and are not of a point that is known.
    """
    ys, xs = np.nonzero(model)
    flux = model[ys, xs].astype(np.float64)
    free = np.ones(len(flux), np.bool_)
    p, q, r = beam.form(cell_rad)

    def away(y: float, x: float) -> Floats:
        """Squares of distances, in widths of the beam."""
        dy, dx = ys - y, xs - x
        squares: Floats = (p * dy * dy + q * dx * dy + r * dx * dx) / (4 * np.log(2))
        return squares

    for each in known:
        free &= away(each.y, each.x) > _TOGETHER**2
    found: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    while len(flux) and len(found) < _MOST:
        at = int(np.argmax(np.where(free, flux, -np.inf)))
        if not free[at] or flux[at] < least_jy / 20:  # a point between pixels has more of them, not that many
            break
        cluster = free & (away(ys[at], xs[at]) <= _TOGETHER**2)
        free &= ~cluster
        weight = np.maximum(flux[cluster], 0)
        y, x = (float(np.average(each[cluster], weights=weight)) for each in (ys, xs))
        if flux[cluster].sum() >= least_jy and np.average(away(y, x)[cluster], weights=weight) < _COMPACT**2:
            found.append((ys[cluster], xs[cluster]))
    return found


def as_point(model: Pixels, pixels: tuple[NDArray[np.intp], NDArray[np.intp]]) -> Point:
    """A steady point in place of components: their flux, at their middle."""
    flux = model[pixels].astype(np.float64)
    weight = np.maximum(flux, 0)
    y, x = (float(np.average(each, weights=weight)) for each in pixels)
    total = float(flux.sum())
    return Point(x, y, (total, *[0.0] * (len(TERMS) - 1)), total)


class PointFit:
    """Fits points to the visibilities of a grid, and takes them out."""

    def __init__(self, grid: Grid, psf: Pixels, beam: RestoringBeam) -> None:
        samples = grid.samples
        self._grid, self._psf, self._beam = grid, psf, beam
        self._direct = grid.direct
        times = samples.time_s[samples.starts[:-1]]
        self._t = _to_one(times)
        self._v = _to_one(samples.frequencies_hz)
        weight = np.stack([grid.weights @ self._v**each for each in range(2 * _POWERS - 1)], axis=1)
        self._share = np.add.reduceat(weight, samples.starts[:-1])
        """(time, power): sums over weights of the powers of v."""
        few = len(times), len(samples.frequencies_hz)
        self._used = [at for at, term in enumerate(TERMS) if all(map(lambda power, most: power < most, term, few))]
        by_row = grid.weights @ samples.frequencies_hz**2
        uv = 2 * np.pi * grid.direct.uvw_s[:, :2]
        curvature = np.stack([uv[:, 0] ** 2, uv[:, 0] * uv[:, 1], uv[:, 1] ** 2], axis=1) * by_row[:, None]
        self._curvature = np.add.reduceat(curvature, samples.starts[:-1])
        """(time, 3): sums over weights of (2 pi u)^2, (2 pi)^2 u v, (2 pi v)^2."""

    def fit(self, points: Sequence[Point], values: Values, rounds: int = ROUNDS) -> list[Point]:
        """Points nearest to visibilities (row, channel) that the rest of the model is taken out of, in that order."""
        cell = self._grid.geometry.cell_rad
        places, terms = _arrays(points)
        moments = np.array([[self._moment(one, other) for other in self._used] for one in self._used])
        reach = self._beam.minor_rad / 2
        for _ in range(rounds):
            flux = self._flux(terms)
            real, turned = self._sums(places, flux, values)
            normal = np.kron(self._products(places), moments)
            right = np.stack([(self._t[:, None] ** i * real[:, j]).sum(axis=0) for i, j in self._chosen()], axis=1)
            steps = np.linalg.solve(normal + 1e-6 * np.eye(len(normal)) * moments[0, 0], right.ravel())
            # By the flux in the middle of the band, which is enough for a step.
            uu, uv, vv = np.einsum("tp,tk->kp", flux[:, 0] ** 2, self._curvature)
            along, across = np.einsum("tp,tkp->kp", flux[:, 0], turned)
            size = uu * vv - uv * uv
            safe = np.where(size > 0, size, 1)
            east, north = (vv * along - uv * across) / safe, (uu * across - uv * along) / safe
            short = np.minimum(1, reach / np.maximum(np.hypot(east, north), 1e-30)) / cell
            terms[:, self._used] += steps.reshape(len(points), -1)
            places += np.stack([north * short, -east * short], axis=1)
        means = terms @ np.array([self._moment(0, each) for each in range(len(TERMS))])
        return [
            Point(float(x), float(y), tuple(map(float, each)), float(mean))
            for (y, x), each, mean in zip(places, terms, means, strict=True)
        ]

    def subtract(self, points: Sequence[Point], values: Values, sign: float = 1.0) -> None:
        """Take points out of visibilities (row, channel), in place; with -1 put them in again."""
        if not points:
            return
        places, terms = _arrays(points)
        flux = self._flux(sign * terms)
        self._direct.subtract(places, lambda time: self._spectra(flux[time]), values)

    def _chosen(self) -> list[tuple[int, int]]:
        return [TERMS[each] for each in self._used]

    def _moment(self, one: int, other: int) -> float:
        """The weighted mean of the product of two terms."""
        i, j = (TERMS[one][axis] + TERMS[other][axis] for axis in (0, 1))
        return float(self._t**i @ self._share[:, j])

    def _flux(self, terms: Floats) -> Floats:
        """(time, power of v, point)."""
        flux = np.zeros((len(self._t), _POWERS, len(terms)))
        for (i, j), each in zip(TERMS, terms.T, strict=True):
            flux[:, j] += self._t[:, None] ** i * each
        return flux

    def _sums(self, places: Floats, flux: Floats, values: Values) -> tuple[Floats, Floats]:
        """Sums of w r conj(e): real parts times powers of v (time, power, point); imaginary ones times 2 pi u, 2 pi v.

        r is what points leave of the visibilities, e = exp(2 pi i (u x + v y + w' (n - 1))).
        """
        direct, weights = self._direct, self._grid.weights
        frequencies, cosines = direct.frequencies_hz, direct.cosines(places)
        sums = np.zeros((len(self._t), _POWERS + 2, len(places)))

        def add(number: int, rows: slice) -> None:
            spectra = padded_flux(self._spectra(flux[number]))
            along, turned = np.zeros_like(spectra), np.zeros((2, spectra.shape[1]))
            project(
                values[rows], weights[rows], direct.uvw_s[rows], frequencies, direct.even, cosines, spectra, along,
                turned,
            )  # fmt: skip
            sums[number, :_POWERS] = self._v ** np.arange(_POWERS)[:, None] @ along[:, : len(places)]
            sums[number, _POWERS:] = 2 * np.pi * turned[:, : len(places)]

        direct.by_time(add)
        return sums[:, :_POWERS], sums[:, _POWERS:]

    def _spectra(self, flux: Floats) -> Floats:
        """(channel, point) of (power of v, point)."""
        spectra: Floats = self._v[:, None] ** np.arange(_POWERS) @ flux
        return spectra

    def _products(self, places: Floats) -> Floats:
        """(point, point): the point spread function from each to each, between pixels by its neighbours."""
        ny, nx = self._psf.shape
        y, x = np.moveaxis(places[:, None] - places[None], 2, 0) + np.array([ny // 2, nx // 2])[:, None, None]
        within = (y >= 0) & (y < ny - 1) & (x >= 0) & (x < nx - 1)
        y, x = np.where(within, y, 0), np.where(within, x, 0)
        below, left = np.floor(y).astype(int), np.floor(x).astype(int)
        up, right = y - below, x - left
        total = np.zeros(y.shape)
        for dy, share_y in ((0, 1 - up), (1, up)):
            for dx, share_x in ((0, 1 - right), (1, right)):
                total += share_y * share_x * self._psf[below + dy, left + dx]
        return np.where(within, total, 0)


def _to_one(values: Floats) -> Floats:
    """From -1 for the first to 1 for the last; 0 where there is one only."""
    span = (values[-1] - values[0]) / 2
    scaled: Floats = (values - values[0]) / span - 1 if span else np.zeros(len(values))
    return scaled


def _arrays(points: Sequence[Point]) -> tuple[Floats, Floats]:
    """(point, 2) y and x; (point, term)."""
    return np.array([[each.y, each.x] for each in points]), np.array([each.terms_jy for each in points])
