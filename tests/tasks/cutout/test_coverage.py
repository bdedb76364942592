"""Which tracts and patches circles, polygons and boxes touch: against sphgeom, sampling, and a published list."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from absurd.tasks.cutout.coverage import touched_by_box, touched_by_circles, touched_by_polygon
from absurd.tasks.cutout.coverage_box import touched_by_ra_dec_box
from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.patches import CellPatches, LegacyPatches, PixelBox
from absurd.tasks.cutout.regions import RaDecBox
from absurd.tasks.cutout.sky_map import KNOWN, RingsSkyMap
from absurd.tasks.cutout.sphere import deproject, positions_of, separation, unit_vectors

CELLS = KNOWN["lsst_cells_v1"]
COARSE = [
    RingsSkyMap(5, 60.0, 0.5, LegacyPatches((700, 700), 40)),
    RingsSkyMap(5, 60.0, 0.5, CellPatches((70, 70), 10, 10, 1), ra_start=40.0),
]


@cache
def polygons_of(sky_map: RingsSkyMap) -> dict[tuple[int, int], Any]:
    """The outer boxes of all patches, by tract and patch, as sphgeom's polygons."""
    from lsst.sphgeom import ConvexPolygon, UnitVector3d

    polygons = {}
    for tract in map(sky_map.tract, range(sky_map.n_tracts)):
        for patch in range(tract.n_patches):
            corners = unit_vectors(tract.corners(tract.outer_box(patch)))
            polygons[tract.number, patch] = ConvexPolygon([UnitVector3d(*vector) for vector in corners])
    return polygons


@given(
    sky_map=st.sampled_from(COARSE),
    ra=st.floats(0, 360, exclude_max=True),
    dec=st.sampled_from([-90.0, -75.0, 0.0, 14.9, 89.5, 90.0]) | st.floats(-90, 90),
    radius=st.sampled_from([0.0, 1e-3, 0.7, 5.0, 30.0]),
)
@settings(max_examples=60, deadline=None)
def test_circles_touch_what_sphgeom_says(sky_map: RingsSkyMap, ra: float, dec: float, radius: float) -> None:
    """Anywhere, poles and 0h too: no patch is missed and none is made up, but for contact within a nanoarcsecond."""
    sphgeom = pytest.importorskip("lsst.sphgeom", reason="the extra [butler] is not installed")
    touched = touched_by_circles(sky_map, np.array([(ra, dec)]), radius)
    found = {pair for tract, patches in touched.of(0) for pair in ((tract, patch) for patch in patches)}
    centre = sphgeom.UnitVector3d(sphgeom.LonLat.fromDegrees(ra, dec))
    sure, never = (sphgeom.Circle(centre, sphgeom.Angle.fromDegrees(radius + margin)) for margin in (-1e-9, 1e-9))

    for pair, polygon in polygons_of(sky_map).items():
        if pair in found:
            assert not polygon.isDisjointFrom(never)
        else:
            assert radius < 1e-9 or polygon.isDisjointFrom(sure)


def test_a_circle_about_a_published_place() -> None:
    """Half a degree about Abell 360: all patches are in the list that was run for it, which is made of whole blocks.

    SITCOM technote on metadetection of that cluster: "the patches and tracts that fall fully or partially within 0.5
    degrees", given as blocks of each tract.
    """
    blocks = {
        10463: [row * 10 + column for row in range(3, 10) for column in range(5)],
        10464: [row * 10 + column for row in range(3, 10) for column in range(7, 10)],
        10704: [0, 1, 2, 3, 4, 5],
        10705: [8, 9],
    }

    found = dict(touched_by_circles(CELLS, np.array([(37.865017, 6.982205)]), 0.5).of(0))

    assert list(found) == list(blocks)
    assert all(set(patches) <= set(blocks[tract]) for tract, patches in found.items())
    assert found[10704] == blocks[10704]
    rows, columns = zip(*(divmod(patch, 10) for patch in found[10463]), strict=True)
    assert (min(rows), max(rows), min(columns), max(columns)) == (3, 9, 0, 4)


def test_many_circles_are_each_as_alone() -> None:
    """One call for positions all over the sky gives for each what a call for it alone gives, in order."""
    positions = positions_of(np.random.default_rng(4).normal(size=(40, 3)))

    touched = touched_by_circles(CELLS, positions, 0.2)

    for index, position in enumerate(positions):
        assert touched.of(index) == touched_by_circles(CELLS, position[None], 0.2).of(0)
    assert touched_by_circles(CELLS, np.empty((0, 2)), 0.2).of(0) == []


@given(
    sky_map=st.sampled_from(COARSE),
    ra=st.floats(0, 360, exclude_max=True),
    dec=st.sampled_from([-90.0, 0.0, 90.0]) | st.floats(-90, 90),
    angles=st.lists(st.integers(0, 359), min_size=3, max_size=6, unique=True),
    size=st.sampled_from([0.01, 0.05, 0.3]),
)
@settings(max_examples=40, deadline=None)
def test_polygons_touch_what_sphgeom_says(
    sky_map: RingsSkyMap, ra: float, dec: float, angles: list[int], size: float
) -> None:
    """A convex polygon, anywhere: the same patches as sphgeom's relation of polygons."""
    sphgeom = pytest.importorskip("lsst.sphgeom", reason="the extra [butler] is not installed")
    turns = np.radians(sorted(angles))
    corners = deproject(size * np.column_stack([np.cos(turns), np.sin(turns)]), np.array([ra, dec]))
    region = sphgeom.ConvexPolygon([sphgeom.UnitVector3d(*vector) for vector in unit_vectors(corners)])

    touched = touched_by_polygon(sky_map, corners)

    expected = [pair for pair, polygon in polygons_of(sky_map).items() if not polygon.isDisjointFrom(region)]
    assert list(zip(touched.tracts.tolist(), touched.patches.tolist(), strict=True)) == expected


@given(
    sky_map=st.sampled_from(COARSE),
    ra=st.floats(0, 360),
    dec=st.sampled_from([-90.0, 0.0, 60.0]) | st.floats(-90, 90),
    width=st.sampled_from([0.0, 0.3, 20.0, 170.0, 300.0, 360.0]),
    height=st.sampled_from([0.0, 0.2, 8.0, 70.0]),
)
@settings(max_examples=40, deadline=None)
def test_boxes_of_the_sky_touch_what_lies_in_them(
    sky_map: RingsSkyMap, ra: float, dec: float, width: float, height: float
) -> None:
    """Over 0h and the poles too: each patch with a sampled point in the box, and none that sphgeom says is apart."""
    pytest.importorskip("lsst.sphgeom", reason="the extra [butler] is not installed")
    ra_min, ra_max = (0.0, 360.0) if width == 360 else (ra, ra + width if ra + width <= 360 else (ra + width) % 360)
    region = RaDecBox(ra_min, ra_max, dec, min(90.0, dec + height))

    touched = touched_by_ra_dec_box(sky_map, region)

    found = set(zip(touched.tracts.tolist(), touched.patches.tolist(), strict=True))
    grown = region.to_sphgeom().dilatedBy(sphgeom_angle(1e-7), sphgeom_angle(1e-7))
    assert not [pair for pair in found if polygons_of(sky_map)[pair].isDisjointFrom(grown)]
    pairs, points = samples_of(sky_map)
    inside = region.contains(*points.reshape(-1, 2).T).reshape(points.shape[:2])
    assert {pair for pair, there in zip(pairs, inside, strict=True) if there.any()} <= found


def sphgeom_angle(degrees: float) -> Any:
    from lsst.sphgeom import Angle

    return Angle.fromDegrees(degrees)


@cache
def samples_of(sky_map: RingsSkyMap) -> tuple[list[tuple[int, int]], Any]:
    """Positions within each patch and on its edges, (patches, 81, 2)."""
    pairs, points = [], []
    for tract in map(sky_map.tract, range(sky_map.n_tracts)):
        for patch in range(tract.n_patches):
            box = tract.outer_box(patch)
            x, y = (np.linspace(low - 0.499, high - 0.501, 9) for low, high in ((box.x0, box.x1), (box.y0, box.y1)))
            pairs.append((tract.number, patch))
            points.append(tract.to_sky(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)))
    return pairs, np.array(points)


def test_a_box_over_the_edge_of_a_tract() -> None:
    """A box at a corner of a tract touches its own patch and those of all tracts that overlap there."""
    touched = touched_by_box(CELLS, 10463, PixelBox(-20, 100, 60, 180))

    assert [tract for tract, _ in touched.of(0)] == [10222, 10463, 10464]
    corners = CELLS.tract(10463).corners(PixelBox(-20, 100, 60, 180))
    for tract, patch in zip(touched.tracts.tolist(), touched.patches.tolist(), strict=True):
        box = CELLS.tract(tract).outer_box(patch)
        pixels = CELLS.tract(tract).to_pixel(corners)
        assert (pixels.max(axis=0) >= (box.x0 - 0.5, box.y0 - 0.5)).all()
        assert (pixels.min(axis=0) <= (box.x1 - 0.5, box.y1 - 0.5)).all()
    assert separation(corners, np.array(CELLS.tract(10463).centre)).max() < 1.3


def test_what_is_no_circle_or_too_large_is_refused() -> None:
    """A radius that is none, and a polygon of more than 60 degrees, are named."""
    place = np.array([(10.0, 10.0)])
    for radius in (-0.1, float("nan"), 181.0):
        with pytest.raises(DataIdValidationError, match="radius is"):
            touched_by_circles(CELLS, place, radius)
    turns = np.radians([90, 210, 330])
    triangle = deproject(np.tan(np.radians(61)) * np.column_stack([np.cos(turns), np.sin(turns)]), place[0])
    with pytest.raises(DataIdValidationError, match="61 degrees from its middle"):
        touched_by_polygon(CELLS, triangle)
