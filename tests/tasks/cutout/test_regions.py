"""Regions of the sky: what they contain, against sphgeom and the definition, and what bounds them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from absurd.tasks.cutout.errors import DataIdValidationError, InvalidPositionError
from absurd.tasks.cutout.regions import Circle, Polygon, RaDecBox, Region, polygon_of
from absurd.tasks.cutout.sphere import deproject, edge_normals, positions_of, separation, unit_vectors

ra = st.sampled_from([0.0, 1e-9, 180.0, 359.999, 360.0]) | st.floats(0, 360)
dec = st.sampled_from([-90.0, -89.9999, 0.0, 89.9999, 90.0]) | st.floats(-90, 90)
circles = st.builds(Circle, ra, dec, st.sampled_from([0.0, 1e-6, 90.0, 179.0, 180.0]) | st.floats(0, 180))


@st.composite
def boxes(draw: st.DrawFn) -> RaDecBox:
    return RaDecBox(draw(ra), draw(ra), *sorted((draw(dec), draw(dec))))


@st.composite
def polygons(draw: st.DrawFn) -> Polygon:
    """Corners on a circle about any place, at whole degrees: convex, of any size below half the sky."""
    angles = draw(st.lists(st.integers(0, 359), min_size=3, max_size=7, unique=True))
    turns = np.radians(sorted(angles, reverse=draw(st.booleans())))
    size = math.tan(math.radians(draw(st.sampled_from([0.001, 0.5, 20.0, 80.0]))))
    corners = deproject(size * np.column_stack([np.cos(turns), np.sin(turns)]), np.array([draw(ra), draw(dec)]))
    return Polygon(corners)


def sample(region: Region, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Positions everywhere, at the poles, about 0h, and close to the region."""
    rng = np.random.default_rng(seed)
    bounds = region.bounds()
    low, high = bounds.ra[0]
    near = np.column_stack([rng.uniform(low, high, 300), rng.uniform(*bounds.dec, 300)])
    special = [(0.0, 90.0), (0.0, -90.0), (200.0, 90.0), (0.0, 0.0), (360.0, 0.0)]
    positions = np.concatenate([positions_of(rng.normal(size=(300, 3))), near, special])
    return positions[:, 0], positions[:, 1]


@example(Circle(0.0, 89.99999999999999, 0.0))
@given(region=circles | boxes() | polygons())
@settings(max_examples=250, deadline=None)
def test_regions_contain_what_sphgeom_says(region: Region) -> None:
    """Circles, boxes and polygons anywhere: the same positions as lsst.sphgeom, and all of them within the bounds."""
    pytest.importorskip("lsst.sphgeom", reason="the extra [butler] is not installed")
    ras, decs = sample(region)

    inside = region.contains(ras, decs)

    assert not (inside & ~region.bounds().contains(ras, decs)).any()
    other = region.to_sphgeom()
    expected = np.array([other.contains(math.radians(a), math.radians(d)) for a, d in zip(ras, decs, strict=True)])
    poles = np.abs(decs) == 90  # a place there may be in a box by any right ascension
    differ = np.flatnonzero((inside != expected) & ~poles)
    for index in differ:  # the edge itself is known to rounding only
        assert _from_edge(region, float(ras[index]), float(decs[index])) < 1e-12


def _from_edge(region: Region, a: float, d: float) -> float:
    """Degrees from a position to the nearest part of the edge, or of what the edge is continued to."""
    match region:
        case Circle():
            return abs(float(separation(np.array([(a, d)]), np.array([(region.ra, region.dec)]))[0]) - region.radius)
        case RaDecBox():
            beside = (abs((a - edge + 180) % 360 - 180) for edge in (region.ra_min, region.ra_max))
            return min(*beside, abs(d - region.dec_min), abs(d - region.dec_max))
        case Polygon():
            heights = edge_normals(unit_vectors(np.array(region.corners))) @ unit_vectors(np.array([a, d]))
            return math.degrees(float(np.abs(heights).min()))
    raise AssertionError(region)


@given(circle=circles, angle=st.floats(0, 2 * math.pi), fraction=st.floats(0, 2))
@settings(max_examples=200, deadline=None)
def test_circles_by_definition(circle: Circle, angle: float, fraction: float) -> None:
    """A position is in a circle if it is at most the radius from the centre, small circles and large ones."""
    distance = min(fraction * circle.radius, 180.0)
    place = _at(circle.ra, circle.dec, angle, distance)

    inside = bool(circle.contains(*place)[0])

    measured = float(separation(np.array([place]), np.array([(circle.ra, circle.dec)]))[0])
    if abs(measured - circle.radius) > 1e-6:
        assert inside == (measured < circle.radius)
    assert not inside or circle.bounds().contains(*(np.array([value]) for value in place)).all()


def _at(a: float, d: float, angle: float, distance: float) -> tuple[float, float]:
    centre = unit_vectors(np.array([a, d]))
    east = np.array([-math.sin(math.radians(a)), math.cos(math.radians(a)), 0.0])
    along = math.cos(angle) * east + math.sin(angle) * np.cross(centre, east)
    place = positions_of(math.cos(math.radians(distance)) * centre + math.sin(math.radians(distance)) * along)
    return float(place[0]), float(place[1])


@given(polygon=polygons())
@settings(max_examples=100, deadline=None)
def test_polygons_contain_their_corners_and_middles_of_edges(polygon: Polygon) -> None:
    """The edge is part of the region, the great circles between corners too, and the bounds hold them."""
    corners = unit_vectors(np.array(polygon.corners))
    edges = positions_of(corners + np.roll(corners, -1, axis=0))
    places = np.concatenate([np.array(polygon.corners), edges])

    assert polygon.contains(places[:, 0], places[:, 1]).all()
    assert polygon.bounds().contains(places[:, 0], places[:, 1]).all()


def test_bounds_are_tight() -> None:
    """Boxes bound by themselves; a circle over 0h by two ranges, at a pole by all right ascensions."""
    assert RaDecBox(10, 20, -5, 5).bounds().ra[0] == pytest.approx((10, 20), abs=1e-8)
    assert list(RaDecBox(350, 20, -5, 5).bounds().ra) == [
        pytest.approx((350, 360), abs=1e-8),
        pytest.approx((0, 20), abs=1e-8),
    ]
    assert RaDecBox(0, 360, -5, 5).bounds().ra == ((0.0, 360.0),)
    assert list(Circle(1, 60, 1).bounds().ra) == [
        pytest.approx((359.0, 360), abs=5e-3),
        pytest.approx((0, 3.0), abs=5e-3),
    ]
    assert Circle(1, 89.5, 1).bounds().ra == ((0.0, 360.0),)
    assert Circle(1, 89.5, 1).bounds().dec == pytest.approx((88.5, 90))
    square = Polygon([(40, 60), (80, 60), (80, 61), (40, 61)])
    assert square.bounds().ra[0] == pytest.approx((40, 80), abs=1e-7)
    # the great circle between two places on a parallel goes nearer to the pole
    highest = math.degrees(math.atan(math.tan(math.radians(61)) / math.cos(math.radians(20))))
    assert square.bounds().dec == pytest.approx((60, highest), abs=1e-8)


def test_boxes_over_0h_and_whole_circles() -> None:
    """From 350 to 10 goes over 0h; 0 and 360 are one place; from 0 to 360 is everything."""
    over, everything = RaDecBox(350, 10, -1, 1), RaDecBox(0, 360, -1, 1)

    assert over.contains([349, 350, 355, 360, 0, 10, 11], 0).tolist() == [False, True, True, True, True, True, False]
    assert everything.contains([0, 180, 360], 0).all()
    assert RaDecBox(300, 360, -1, 1).contains([0, 299], 0).tolist() == [True, False]
    assert RaDecBox(0, 10, -1, 1).contains([360, 11], 0).tolist() == [True, False]


@pytest.mark.parametrize(
    "corners",
    [
        [(0, 0), (10, 0)],
        [(0, 0), (10, 0), (20, 0)],
        [(0, 0), (10, 0), (10, 0), (0, 10)],
        [(0, 0), (10, 0), (2, 2), (0, 10)],
        [(0, 0), (10, 10), (10, 0), (0, 10)],
        [(18, 0), (30, 20), (6, 20), (30, 5), (6, 5)],
        [(0, 0), (120, 0), (240, 0)],
        [(0, 10), (90, -80), (180, 10), (270, -80)],
    ],
)
def test_what_is_no_convex_polygon_is_refused(corners: list[tuple[float, float]]) -> None:
    """Two corners, corners in a line, twice the same, a dent, crossing edges, a star, half the sky: each is told."""
    with pytest.raises(DataIdValidationError, match=r"polygon of \d corners"):
        Polygon(corners)


def test_regions_of_records_come_back() -> None:
    """A polygon goes to sphgeom and back with its corners."""
    pytest.importorskip("lsst.sphgeom", reason="the extra [butler] is not installed")
    polygon = Polygon([(359.5, -1), (0.5, -1), (0.5, 1), (359.5, 1)])

    back = polygon_of(polygon.to_sphgeom())

    first = int(np.argmin(separation(np.array(back.corners), np.array([359.5, -1.0]))))
    order = np.roll(np.array(back.corners), -first, axis=0)
    assert separation(order, np.array(polygon.corners)).max() < 1e-12
    assert Polygon(reversed(polygon.corners)).contains(0, 0).all()


def test_bad_numbers_are_named() -> None:
    """Positions out of range, NaN, radii below 0, declinations in the wrong order."""
    with pytest.raises(InvalidPositionError, match="ra is 400"):
        Circle(400, 0, 1)
    with pytest.raises(DataIdValidationError, match="radius is nan"):
        Circle(0, 0, float("nan"))
    with pytest.raises(DataIdValidationError, match="exchange them"):
        RaDecBox(0, 1, 5, -5)
    with pytest.raises(InvalidPositionError, match="position 1: dec is nan"):
        Circle(0, 0, 1).contains([0, 0], [0, float("nan")])
