"""Cut-outs from several images: exact within a tract, resampled beyond it, each pixel accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from absurd.tasks.cutout.errors import CutoutExtractionError, DataIdValidationError, PlaneNotFoundError
from absurd.tasks.cutout.patches import LegacyPatches, PixelBox
from absurd.tasks.cutout.resample import lanczos_weights, resample
from absurd.tasks.cutout.sky_map import KNOWN, RingsSkyMap
from absurd.tasks.cutout.sphere import project, separation
from absurd.tasks.cutout.stitch import Part, Piece, Stitched, parts_of, stitch
from absurd.tasks.cutout.tract import Tract

CELLS, DC2 = KNOWN["lsst_cells_v1"], KNOWN["DC2"]
SMALL = RingsSkyMap(30, 20.0, 0.3, LegacyPatches((100, 100), 12))
TRACT = SMALL.tract(200)

Sky = Callable[[Any], Any]
"""Surface brightness at positions (n, 2), per pixel at the centre of a tract."""


def pixels_of(box: PixelBox) -> Any:
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    return np.column_stack([x.ravel(), y.ravel()]).astype(float)


def observe(sky: Sky, tract: Tract, box: PixelBox) -> Any:
    """Flux per pixel of a box: surface brightness times the pixel's area, by the numerical Jacobian of the WCS."""
    pixels = pixels_of(box)
    step = 0.5
    sides = []
    for axis in ((step, 0), (0, step)):
        ahead, behind = (tract.to_sky(pixels + sign * np.array(axis)) for sign in (1, -1))
        sides.append(project(ahead, tract.to_sky(pixels)) - project(behind, tract.to_sky(pixels)))
    area = np.abs(sides[0][:, 0] * sides[1][:, 1] - sides[0][:, 1] * sides[1][:, 0])
    unit = np.radians(tract.sky_map.pixel_scale / 3600) ** 2
    return (sky(tract.to_sky(pixels)) * area / unit).reshape(box.shape)


def read(parts: Sequence[Part], sky: Sky, **planes: float) -> list[Piece]:
    return [
        Piece(
            {"image": observe(sky, part.tract, part.box)}
            | {name: np.full(part.box.shape, value) for name, value in planes.items()},
            part.box,
            part.tract,
            part.tract.inner_box(part.patch),
        )
        for part in parts
    ]


def stars(places: Any, sigma: float) -> Sky:
    """Gaussians of `sigma` arcseconds and height 1 on a background of 1."""

    def sky(positions: Any) -> Any:
        distances = [separation(positions, np.broadcast_to(place, positions.shape)) * 3600 for place in places]
        return 1.0 + sum(np.exp(-0.5 * (distance / sigma) ** 2) for distance in distances)

    return sky


@given(x=st.integers(-20, 250), y=st.integers(150, 420), width=st.integers(1, 240), height=st.integers(1, 150))
@settings(max_examples=60, deadline=None)
def test_across_patches_is_the_same_cut_from_the_undivided_image(x: int, y: int, width: int, height: int) -> None:
    """Any box on a tract's grid: exactly the undivided pixels, whatever the patches' overlaps hold; each pixel once."""
    whole = PixelBox(0, 100, 600, 700)
    undivided = np.random.default_rng(3).normal(size=whole.shape).astype(np.float32)
    box = PixelBox(x, y, x + width, y + height)
    pieces = []
    for patch in TRACT.patches_in(box):
        outer, inner = TRACT.outer_box(int(patch)).common(whole), TRACT.inner_box(int(patch))
        image = np.full(outer.shape, 1e6 + patch, np.float32)  # overlaps: of no use, and seen at once
        common = inner.common(whole)
        image[common.slices(outer)] = undivided[common.slices(whole)]
        pieces.append(Piece({"image": image, "mask": np.full(outer.shape, 1 << (patch % 7))}, outer, TRACT, inner))
    if not pieces:
        return

    cut = stitch(pieces, box, TRACT)

    inside = box.common(whole)
    expected = np.full(box.shape, np.nan, np.float32)
    expected[inside.slices(box)] = undivided[inside.slices(whole)]
    assert np.array_equal(cut.planes["image"], expected, equal_nan=True)
    assert cut.planes["image"].dtype == np.float32
    owner = TRACT.sky_map.patch_at(pixels_of(box)).reshape(box.shape)
    patches = np.array([*TRACT.patches_in(box), -1])
    assert np.array_equal(patches[cut.origin], owner)
    assert np.array_equal(cut.planes["mask"], np.where(owner < 0, 0, 1 << (owner % 7)))
    assert sum(cut.fractions) + cut.outside == pytest.approx(1)


def test_what_is_to_be_read_within_a_tract() -> None:
    """A box over four patches needs four boxes, which hold each pixel once; one within a patch needs itself."""
    box = PixelBox(80, 190, 130, 220)

    parts = parts_of(TRACT, box)

    assert [(part.patch, part.box) for part in parts] == [
        (TRACT.patch_number("0,1"), PixelBox(80, 190, 100, 200)),
        (TRACT.patch_number("1,1"), PixelBox(100, 190, 130, 200)),
        (TRACT.patch_number("0,2"), PixelBox(80, 200, 100, 220)),
        (TRACT.patch_number("1,2"), PixelBox(100, 200, 130, 220)),
    ]
    within = PixelBox(110, 110, 120, 115)
    assert parts_of(TRACT, within) == [Part(TRACT, TRACT.patch_number("1,1"), within)]


def test_overlaps_fill_what_a_missing_patch_leaves() -> None:
    """Without the patch of a pixel a neighbour's overlap counts, the first piece's; what is left is NaN, 0 in masks."""
    left, right = (
        Piece(
            {"image": np.full((40, 112), value), "mask": np.full((40, 112), 3, np.int32)},
            box,
            TRACT,
            TRACT.inner_box(patch),
        )
        for value, box, patch in (
            (1.0, PixelBox(0, 10, 112, 50), 0),
            (2.0, PixelBox(88, 10, 200, 50), 1),
        )
    )
    box = PixelBox(90, 20, 120, 30)

    both, one = stitch([left, right], box, TRACT), stitch([left], box, TRACT)

    assert both.planes["image"][0].tolist() == [1.0] * 10 + [2.0] * 20
    assert both.fractions == pytest.approx((1 / 3, 2 / 3))
    assert np.isnan(one.planes["image"][:, 22:]).all() and (one.planes["image"][:, :22] == 1).all()
    assert (one.planes["mask"][:, 22:] == 0).all() and (one.planes["mask"][:, :22] == 3).all()
    assert one.outside == pytest.approx(8 / 30)


@pytest.mark.parametrize("number", [5063, 9615, 18936, 18937, 0, 1])
def test_across_tracts_is_the_same_cut_from_the_undivided_sky(number: int) -> None:
    """Over the edge of a tract, near poles too: stars of 0.66 arcseconds width to 1 % of their peak, 3.3 pixels wide.

    The tract's own pixels are exact, and so is the sum of all to 1e-4.
    """
    tract = DC2.tract(number)
    box = PixelBox(-40, 9000, 40, 9070)
    places = tract.to_sky(np.array([(-20.3, 9030.7), (-1.0, 9010.2), (2.5, 9050.0), (-33.9, 9055.5), (25.0, 9020.0)]))
    sky = stars(places, 0.28)

    parts = parts_of(tract, box)
    cut = stitch(read(parts, sky), box, tract)

    expected = observe(sky, tract, box)
    own = np.zeros(box.shape, bool)
    own[:, 40:] = True
    assert cut.outside == 0 and {part.tract.number for part in parts} != {number}
    assert np.array_equal(cut.planes["image"][own], expected[own])
    assert np.abs(cut.planes["image"] - expected).max() < 1e-2
    assert np.sum(cut.planes["image"]) == pytest.approx(np.sum(expected), rel=1e-4)
    tracts = np.array([part.tract.number for part in parts])[cut.origin]
    owners = np.where(own.ravel(), number, DC2.tract_of(tract.to_sky(pixels_of(box))))
    assert np.array_equal(tracts.ravel(), owners)


@given(number=st.integers(0, 18937), side=st.sampled_from("WESN"), along=st.integers(0, 27900), size=st.integers(2, 60))
@settings(max_examples=25, deadline=None)
def test_a_constant_sky_stays_constant(number: int, side: str, along: int, size: int) -> None:
    """Over any edge of any tract, corners too: nothing is missing, and a constant sky is constant to 1e-6."""
    half = size // 2
    x0, y0 = {"W": (28000 - half, along), "E": (-half, along), "S": (along, -half), "N": (along, 28000 - half)}[side]
    tract, box = DC2.tract(number), PixelBox(x0, y0, x0 + size, y0 + size)

    def sky(positions: Any) -> Any:
        return np.ones(len(positions))

    cut = stitch(read(parts_of(tract, box), sky), box, tract)

    assert cut.outside == 0
    assert cut.planes["image"] == pytest.approx(
        observe(lambda positions: np.ones(len(positions)), tract, box), rel=1e-6
    )


def test_borders_of_cell_patches_come_before_other_tracts() -> None:
    """Images of cell patches reach 200 pixels beyond the tract: those are on its grid, and so exact; then others."""
    tract, box = CELLS.tract(5063), PixelBox(-230, 9300, -150, 9320)
    sky = stars(tract.to_sky(np.array([(-190.0, 9310.0)])), 0.4)

    parts = parts_of(tract, box)
    cut = stitch(read(parts, sky), box, tract)

    assert parts[0] == Part(tract, tract.patch_number("0,3"), PixelBox(-200, 9300, -150, 9320))
    assert all(part.tract != tract for part in parts[1:]) and cut.outside == 0
    assert np.array_equal(cut.planes["image"][:, 30:], observe(sky, tract, box)[:, 30:])
    assert (cut.origin[:, 30:] == 0).all() and (cut.origin[:, :30] > 0).all()


def test_patches_without_an_image_are_asked_of_others() -> None:
    """A missing patch: its neighbours' overlaps first, exactly; then tracts that overlap it, if any do."""
    tract = DC2.tract(5063)
    at_edge, inside = PixelBox(120, 3850, 180, 3950), PixelBox(11850, 12080, 11920, 12150)
    sky = stars(tract.to_sky(np.array([(150.0, 3900.0), (11910.0, 12090.0)])), 0.4)
    for box, missing, complete in ((at_edge, "0,0", True), (inside, "2,3", False)):
        parts = parts_of(tract, box, missing={tract.patch_number(missing)})
        assert all(part.patch != tract.patch_number(missing) for part in parts if part.tract == tract)

        cut = stitch(read(parts, sky), box, tract)

        expected = observe(sky, tract, box)
        exact = np.array([part.tract == tract for part in parts] + [False])[cut.origin]
        assert (cut.outside == 0) == complete and exact.any()
        assert np.array_equal(cut.planes["image"][exact], expected[exact])
        assert np.nanmax(np.abs(cut.planes["image"] - expected)) < 1e-2
        if complete:
            assert exact.sum() == 50 * 60  # the overlap of "0,1" reaches 100 pixels below its inner box


def test_grids_that_coincide_are_copied() -> None:
    """Legacy and cell patches of one scale differ by 1000 pixels: beyond the one, the other's pixels come exactly."""
    legacy, cells = DC2.tract(5063), CELLS.tract(5063)
    own, other = PixelBox(100, 200, 130, 220), PixelBox(1120, 1190, 1170, 1230)
    rng = np.random.default_rng(5)
    planes = {
        "image": rng.normal(size=(40, 50)),
        "mask": rng.integers(0, 9, (40, 50)),
        "variance": rng.random((40, 50)),
    }
    mine = {name: plane[:20, :30] * 0 + 7 for name, plane in planes.items()}
    box = PixelBox(100, 195, 170, 230)

    cut = stitch([Piece(mine, own, legacy), Piece(planes, other, cells)], box, legacy)

    for name, plane in planes.items():
        assert (cut.planes[name][5:25, :30] == 7).all()
        assert np.array_equal(cut.planes[name][:5, 20:], plane[5:10])
        assert np.array_equal(cut.planes[name][25:, 20:], plane[30:])
        assert np.array_equal(cut.planes[name][:, 30:], plane[5:, 10:])
    assert cut.outside == pytest.approx((20 * 15) / (35 * 70))


def test_masks_take_the_nearest_pixel_and_variances_shrink_as_the_weights_say() -> None:
    """Beyond the tract: bits of the nearest pixel of the neighbour, never a mixture; variances above a third."""
    tract = DC2.tract(5063)
    box = PixelBox(-30, 9000, 10, 9040)
    parts = parts_of(tract, box)
    pieces = []
    for part in parts:
        y, x = np.mgrid[part.box.y0 : part.box.y1, part.box.x0 : part.box.x1]
        flat = np.ones(part.box.shape, np.float32)
        planes = {"image": flat, "variance": 4 * flat, "mask": (1 << ((x * 3 + y) % 20)).astype(np.int32)}
        pieces.append(Piece(planes, part.box, part.tract, part.tract.inner_box(part.patch)))

    cut = stitch(pieces, box, tract)

    pixels = pixels_of(box)
    for part in parts:
        of_tract = np.array([each.tract == part.tract for each in parts])[cut.origin].ravel()
        nearest = np.floor(part.tract.to_pixel(tract.to_sky(pixels[of_tract])) + 0.5).astype(int)
        assert np.array_equal(cut.planes["mask"].ravel()[of_tract], 1 << ((nearest[:, 0] * 3 + nearest[:, 1]) % 20))
    assert cut.planes["mask"].dtype == np.int32
    variance = cut.planes["variance"].astype(float)
    assert (variance[:, 30:] == 4).all()
    assert (variance[:, :30] <= 4.01).all() and (variance[:, :30] > 4 / 3).all() and variance[:, :30].mean() < 3.9


def test_resampling_is_linear_and_variances_are_sums_of_squared_weights() -> None:
    """The weights, found by images of one pixel each, give the values, sum to 1, and squared give the variances."""
    rng = np.random.default_rng(11)
    image, variance, known = rng.normal(size=(14, 15)), rng.random((14, 15)), np.ones((14, 15), bool)
    known[5, 5], known[0, :] = False, False
    places = np.concatenate(
        [rng.uniform(0, 13, (40, 2)), [(6.4, 5.2), (-0.4, 7.0), (14.4, 13.4), (5.0, 5.0), (-0.6, 3)]]
    )
    weights = np.zeros((len(places), 14, 15))
    for y, x in np.argwhere(np.ones((14, 15))):
        unit = np.zeros((14, 15))
        unit[y, x] = 1
        weights[:, y, x] = resample(unit, known, places)[0]

    values, variances = resample(image, known, places, variance)

    assert variances is not None
    there = np.isfinite(values)
    near = np.floor(places + 0.5).astype(int)
    expected = [0 <= x < 15 and 0 <= y < 14 and bool(known[y, x]) for x, y in near]
    assert there.tolist() == expected
    assert weights[there].sum(axis=(1, 2)) == pytest.approx(1)
    assert values[there] == pytest.approx((weights[there] * image).sum(axis=(1, 2)))
    assert variances[there] == pytest.approx((weights[there] ** 2 * variance).sum(axis=(1, 2)))
    assert (weights[there][:, ~known] == 0).all()


def test_whole_positions_are_not_changed_and_nan_stays_where_it_is() -> None:
    """At a pixel's centre Lanczos takes that pixel alone; a NaN is one pixel beside which the others count."""
    image = np.random.default_rng(2).normal(size=(12, 12))
    holed = image.copy()
    holed[6, 6] = np.nan
    known = np.ones((12, 12), bool)
    centres = pixels_of(PixelBox(0, 0, 12, 12))

    assert resample(image, known, centres)[0].reshape(12, 12) == pytest.approx(image, abs=1e-12)
    values = resample(holed, known, centres + 0.25)[0].reshape(12, 12)
    assert np.argwhere(np.isnan(values)).tolist() == [[6, 6]]
    assert lanczos_weights(np.array([0.0, 0.5])).sum(axis=1) == pytest.approx(1)
    assert lanczos_weights(np.array([0.0]))[0] == pytest.approx([0, 0, 1, 0, 0, 0], abs=1e-15)


def test_integer_images_become_floating_so_that_nothing_is_nan() -> None:
    """Counts of 16 bits come as 32-bit floating pixels, NaN where there is none; masks keep their type."""
    piece = Piece({"image": np.ones((5, 5), np.int16), "mask": np.ones((5, 5), np.uint8)}, PixelBox(0, 0, 5, 5), TRACT)

    cut: Stitched = stitch([piece], PixelBox(-1, 0, 4, 5), TRACT)

    assert cut.planes["image"].dtype == np.float32 and np.isnan(cut.planes["image"][:, 0]).all()
    assert cut.planes["mask"].dtype == np.uint8 and cut.planes["mask"][0].tolist() == [0, 1, 1, 1, 1]
    assert cut.origin[0].tolist() == [-1, 0, 0, 0, 0]


def test_pieces_that_do_not_fit_are_refused() -> None:
    """No piece, a plane of another shape, a plane that is not everywhere, point-spread functions: each is named."""
    box, flat = PixelBox(0, 0, 5, 4), np.ones((4, 5))
    good = Piece({"image": flat}, box, TRACT)
    with pytest.raises(CutoutExtractionError, match="there is no piece"):
        stitch([], box, TRACT)
    with pytest.raises(DataIdValidationError, match=r"piece 1: plane 'image' has the shape \(5, 4\), its box \(4, 5\)"):
        stitch([good, Piece({"image": flat.T}, box, TRACT)], box, TRACT)
    with pytest.raises(PlaneNotFoundError, match="pieces 0 and 1 do not both have 'mask'"):
        stitch([good, Piece({"image": flat, "mask": flat}, box, TRACT)], box, TRACT)
    with pytest.raises(DataIdValidationError, match="'psf', which cannot be stitched"):
        stitch([Piece({"psf": flat}, box, TRACT)], box, TRACT)
