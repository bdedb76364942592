"""The coordinate converter: numbers and arrays, every way there and back, edges of patches, what is refused."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from absurd.tasks.cutout.cache import CacheManager
from absurd.tasks.cutout.coordinates import BLOCK, CoordinateConverter
from absurd.tasks.cutout.errors import CoordinateConversionError, DataIdValidationError, InvalidPositionError
from absurd.tasks.cutout.geometry import box_at
from absurd.tasks.cutout.patches import LegacyPatches
from absurd.tasks.cutout.sky_map import KNOWN, RingsSkyMap
from absurd.tasks.cutout.sphere import Floats, positions_of, separation

CELLS = CoordinateConverter(KNOWN["lsst_cells_v1"])
HSC = CoordinateConverter(KNOWN["hsc_rings_v1"])

ra = st.sampled_from([0.0, 180.0, 359.9999999, 360.0]) | st.floats(0, 360)
dec = st.sampled_from([-90.0, -89.99, 0.0, 89.99, 90.0]) | st.floats(-90, 90)
converters = st.sampled_from([CELLS, HSC])


def positions(count: int, seed: int = 8) -> Floats:
    return positions_of(np.random.default_rng(seed).normal(size=(count, 3)))


@given(converter=converters, ra=ra, dec=dec)
@settings(max_examples=200, deadline=None)
def test_every_way_there_and_back(converter: CoordinateConverter, ra: float, dec: float) -> None:
    """Position to tract, patch and pixel, of the tract's grid and of the patch's image, and back: one place."""
    tract, patch = converter.radec_to_tract_patch(ra, dec)

    x, y = converter.sky_to_pixel(ra, dec, tract)
    local_x, local_y = converter.sky_to_pixel(ra, dec, tract, patch)

    place = np.array([(ra, dec)])
    for back in (converter.pixel_to_sky(x, y, tract), converter.pixel_to_sky(local_x, local_y, tract, patch)):
        assert separation(np.array([back]), place)[0] * 3600 < 1e-8
    grid = converter.sky_map.tract(tract)
    outer = grid.outer_box(patch)
    assert (x - local_x, y - local_y) == pytest.approx((outer.x0, outer.y0), abs=1e-7)
    assert grid.inner_box(patch).x0 - 0.5 <= x < grid.inner_box(patch).x1 - 0.5
    inner = grid.inner_box(patch)
    middle = converter.sky_to_pixel(*converter.tract_patch_to_radec(tract, patch), tract)
    assert middle == pytest.approx(((inner.x0 + inner.x1 - 1) / 2, (inner.y0 + inner.y1 - 1) / 2), abs=1e-6)


def test_arrays_give_what_single_numbers_give() -> None:
    """More positions than one block: each as alone, in order, as integers that a Butler takes."""
    places = positions(BLOCK + 100)
    picked = [0, 1, BLOCK - 1, BLOCK, BLOCK + 99]

    tracts, patches = CELLS.radec_to_tract_patch(places[:, 0], places[:, 1])
    x, y = CELLS.sky_to_pixel(places[:, 0], places[:, 1], tracts, patches)
    ras, decs = CELLS.tract_patch_to_radec(tracts, patches)

    assert tracts.dtype == patches.dtype == np.int64
    for index in picked:
        place = places[index].tolist()
        one = CELLS.radec_to_tract_patch(place[0], place[1])
        assert one == (tracts[index], patches[index]) and type(one[0]) is type(one[1]) is int
        assert CELLS.sky_to_pixel(place[0], place[1], one[0], one[1]) == (x[index], y[index])
        assert CELLS.tract_patch_to_radec(*one) == pytest.approx((ras[index], decs[index]))
    assert [values.size for values in CELLS.radec_to_tract_patch([], [])] == [0, 0]


def test_positions_are_converted_together() -> None:
    """As many calls of Python functions for 20,000 positions as for 2: the work is done by whole arrays."""

    def calls(count: int) -> int:
        places = positions(count)
        seen = 0

        def count_calls(_frame: FrameType, event: str, _argument: Any) -> None:
            nonlocal seen
            seen += event in {"call", "c_call"}

        before = sys.getprofile()
        sys.setprofile(count_calls)
        try:
            CELLS.radec_to_tract_patch(places[:, 0], places[:, 1])
        finally:
            sys.setprofile(before)
        return seen

    calls(2)  # the sky map's own arrays are made once

    assert calls(20_000) == calls(2) < 200


def test_a_circle_of_one_position_and_of_many() -> None:
    """All tracts and patches that a circle touches, the position's own among them, alone or of an array."""
    places = positions(20)
    touched = HSC.radec_to_tract_patch_radius(places[:, 0], places[:, 1], 0.05)
    tracts, patches = HSC.radec_to_tract_patch(places[:, 0], places[:, 1])

    for index, place in enumerate(places):
        found = HSC.radec_to_tract_patch_radius(float(place[0]), float(place[1]), 0.05)
        assert found == touched.of(index)
        assert int(patches[index]) in dict(found)[int(tracts[index])]
    assert len(HSC.radec_to_tract_patch_radius(0.0, 90.0, 1.0)) > 5


def test_patches_by_name_and_by_number() -> None:
    """A patch "x,y" is number y * nx + x; both may be given, alone and in arrays, and what is none is named."""
    assert HSC.patch_numbers("5,1").tolist() == [14]
    assert HSC.patch_numbers(["0,8", "72", "8,0"]).tolist() == [72, 72, 8]
    assert HSC.patch_numbers([80, 0]).tolist() == [80, 0]
    assert HSC.tract_patch_to_radec(9615, "5,1") == HSC.tract_patch_to_radec(9615, 14)
    assert HSC.tract_patch_to_radec(9615) == HSC.sky_map.tract(9615).centre
    for wrong in ("9,0", "0,9", "-1,0", "1,2,3", "x", "", 81, -1, 2.5, True):
        with pytest.raises(DataIdValidationError, match="must be a number from 0 to 80"):
            HSC.patch_numbers(wrong)
    with pytest.raises(DataIdValidationError, match="position 2: patch is 81"):
        HSC.patch_numbers([1, 2, 81])


def test_boxes_are_placed_as_cut_outs_are() -> None:
    """The box of a position on its tract's grid is the one that a cut-out there has, even and odd sides."""
    places = positions(50)
    for shape in ((64, 64), (33, 50), (1, 1)):
        located, boxes = CELLS.boxes(places[:, 0], places[:, 1], shape)
        for pixel, box in zip(located.pixels, boxes, strict=True):
            expected = box_at(float(pixel[0]), float(pixel[1]), shape, (30000, 30000))
            assert (box.x0, box.y0) == expected.origin and box.shape == shape


@pytest.mark.parametrize("converter", [CELLS, HSC], ids=["cells", "legacy"])
def test_what_is_within_one_patch(converter: CoordinateConverter) -> None:
    """A box is in its patch's image or is not, to the pixel, by the overlap of the patches."""
    nx, ny = converter.sky_map.n_patches
    grid, patch, reach = converter.sky_map.tract(5000), (ny // 2) * nx + nx // 2, converter.sky_map.patches.border
    inner = grid.inner_box(patch)
    inside, beside = (converter.pixel_to_sky(x, inner.y0 + 500.0, 5000) for x in (inner.x0 + 500.0, inner.x1 - 1.3))

    assert converter.radec_to_tract_patch(*beside) == (5000, patch)
    assert converter.within_patch(*inside, (10, 10)).tolist() == [True]
    # a box of n pixels reaches n / 2 - 1 beyond the pixel at the inner box's end
    assert converter.within_patch(*beside, (10, 2 * reach + 2)).tolist() == [True]
    assert converter.within_patch(*beside, (10, 2 * reach + 4)).tolist() == [False]


def test_distances_to_edges_of_patches() -> None:
    """Half a pixel beyond the outermost centre is the edge; off the tract the distance is negative."""
    grid = HSC.sky_map.tract(9615)
    pixels = np.array([(0.0, 2000.0), (3999.0, 2000.0), (2000.0, 1000.0), (4010.0, 4100.0), (-10.5, 100.0)])
    place = HSC.pixel_to_sky(18010.0, 18100.0, 9615)

    assert grid.distance_to_patch_edge(pixels) == pytest.approx([0.5, 0.5, 1000.5, 10.5, -10.0])
    assert HSC.distance_to_patch_edge(*place) == pytest.approx([19999.5 - 18100])


@pytest.mark.parametrize(
    ("ras", "decs", "index", "message"),
    [
        ([1, 2, -10], [0, 0, 0], 2, "ra is -10; it must be a number of degrees from 0 to 360; that is 350 on the"),
        ([1, 370, 2], 0, 1, "ra is 370.*that is 10 on the circle"),
        ([400, 400], 0, 0, "ra is 400"),
        ([1, float("nan")], 0, 1, "ra is nan"),
        (1, [0, float("inf")], 1, "dec is inf"),
        (1, [0, 90.0001, -91], 1, "dec is 90.0001; it must be a number of degrees from -90 to 90"),
    ],
)
def test_positions_that_are_none_are_named(ras: Any, decs: Any, index: int, message: str) -> None:
    """Out of range, NaN, infinite: the first index, the value and the way out; nothing is converted."""
    with pytest.raises(InvalidPositionError, match=f"position {index}: {message}") as caught:
        CELLS.radec_to_tract_patch(ras, decs)

    assert caught.value.details["index"] == index
    with pytest.raises(InvalidPositionError, match=f"position {index}"):
        CELLS.radec_to_tract_patch_radius(ras, decs, 0.1)


def test_other_wrong_values_are_named() -> None:
    """Numbers of tracts, lengths that do not agree, pixels that are none, the far side of the sky."""
    with pytest.raises(DataIdValidationError, match="position 1: tract is 18938"):
        CELLS.pixel_to_sky([1, 2], [3, 4], [1, 18938])
    with pytest.raises(DataIdValidationError, match="tracts are float64; they must be integers"):
        CELLS.tract_patch_to_radec(1.5, 3)
    with pytest.raises(DataIdValidationError, match="make no positions"):
        CELLS.radec_to_tract_patch([1, 2, 3], [1, 2])
    with pytest.raises(DataIdValidationError, match="make no positions"):
        CELLS.radec_to_tract_patch("here", 2)
    with pytest.raises(DataIdValidationError, match="2 tracts for 3 positions"):
        CELLS.sky_to_pixel([1, 2, 3], 0, [1, 2])
    with pytest.raises(DataIdValidationError, match="2 patches for 3 positions"):
        CELLS.sky_to_pixel([1, 2, 3], 0, 9500, [1, 2])
    with pytest.raises(CoordinateConversionError, match=r"pixel 1 is \(nan, 2\)"):
        CELLS.pixel_to_sky([1, float("nan")], 2, 5)
    with pytest.raises(CoordinateConversionError, match=r"position 1.*90 degrees or more from the centre of tract 0"):
        CELLS.sky_to_pixel(10, [-80, 10], 0)


def test_a_position_on_no_patch_is_refused() -> None:
    """Where tracts do not overlap enough a position is in none of its tract's patches: named, not guessed."""
    gaps = CoordinateConverter(RingsSkyMap(1, 60.0, 0.0, LegacyPatches((100, 100), 0)))
    where = positions(2000)
    tracts = gaps.sky_map.tract_of(where)
    off = gaps.sky_map.patch_at(gaps.sky_map.to_pixel(where, tracts)) < 0
    assert off.any()

    with pytest.raises(CoordinateConversionError, match=r"is on none of its patches.*do not overlap enough") as caught:
        gaps.locate(where[:, 0], where[:, 1])

    assert caught.value.details["index"] == int(np.argmax(off))
    owners, patches = gaps.owning(where[:, 0], where[:, 1])  # for sources, where it is one position's lack of an image
    assert np.array_equal(patches < 0, off)
    assert np.array_equal(owners, tracts)


def test_single_conversions_are_asked_of_the_cache() -> None:
    """The cache is asked by sky map and position; what fails is not remembered, and arrays are not asked for."""
    cache = CacheManager()
    cells, hsc = (CoordinateConverter(each.sky_map, cache=cache) for each in (CELLS, HSC))

    first = [cells.radec_to_tract_patch(10.0, 20.0), hsc.radec_to_tract_patch(10.0, 20.0)]
    again = [cells.radec_to_tract_patch(10, 20), hsc.radec_to_tract_patch(10.0, 20.0)]
    near = [cells.radec_to_tract_patch_radius(10.0, 20.0, 0.1) for _ in range(3)]
    cells.radec_to_tract_patch([10.0], [20.0])
    with pytest.raises(InvalidPositionError):
        cells.radec_to_tract_patch(400.0, 20.0)

    assert first == again == [CELLS.radec_to_tract_patch(10.0, 20.0), HSC.radec_to_tract_patch(10.0, 20.0)]
    assert near == [CELLS.radec_to_tract_patch_radius(10.0, 20.0, 0.1)] * 3
    counted = cache.statistics().kinds["coordinates"]
    assert (counted.hits, counted.misses) == (4, 3)
