"""From faces to regions, and from regions to pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceblur_engine.regions import CORNER_RADIUS, covered_share, mask_of, plan_regions
from faceblur_engine.types import Box, Face, Margin, Options, Region, Shape

NO_MARGIN = Margin(0, 0, 0, 0)


def face(x, y, w, h):
    return Face(Box(x, y, w, h), 0.9, "model")


def plan(faces, *, options=None, margin=NO_MARGIN, shape=Shape.BOX, width=200, height=100):
    return plan_regions(faces, options or Options(), margin=margin, shape=shape, width=width, height=height)


def by_pixel_centres(region, width, height):
    """The rule that the evaluation set is scored by, pixel by pixel."""
    mask = np.zeros((height, width), bool)
    x, y, w, h = region.box.x, region.box.y, region.box.w, region.box.h
    for row in range(max(0, int(y)), min(height, int(y + h))):
        for column in range(max(0, int(x)), min(width, int(x + w))):
            dx, dy = abs(column + 0.5 - x - w / 2), abs(row + 0.5 - y - h / 2)
            if region.shape is Shape.ELLIPSE:
                mask[row, column] = (dx / (w / 2)) ** 2 + (dy / (h / 2)) ** 2 <= 1
            elif region.shape is Shape.ROUNDED:
                r = min(region.radius, w / 2, h / 2)
                mask[row, column] = max(0, dx - w / 2 + r) ** 2 + max(0, dy - h / 2 + r) ** 2 <= r**2 + 1e-9
            else:
                mask[row, column] = True
    return mask


coordinates = st.floats(-30, 60)
lengths = st.floats(0.1, 80)
regions = st.builds(
    Region, st.builds(Box, coordinates, coordinates, lengths, lengths), st.sampled_from(Shape), st.floats(0, 50)
)


@given(regions, st.integers(1, 40), st.integers(1, 40))
def test_a_region_obscures_exactly_the_pixels_that_the_score_counts(region, width, height):
    mask, expected = mask_of([region], width, height), by_pixel_centres(region, width, height)
    assert mask.shape == (height, width)
    assert not (expected & ~mask).any()
    # Rounding may add a pixel whose centre lies on the edge to a billionth, never more than its four mirror images.
    assert (mask & ~expected).sum() <= 4


@pytest.mark.parametrize("shape", Shape)
def test_a_large_region_obscures_exactly_the_pixels_that_the_score_counts(shape):
    region = Region(Box(3.3, -20.7, 190.1, 250.9), shape, 66.6)
    assert (mask_of([region], 200, 240) == by_pixel_centres(region, 200, 240)).all()


def test_a_mask_is_the_union_of_its_regions():
    some = [Region(Box(1, 1, 5, 5)), Region(Box(4, 4, 9, 9), Shape.ELLIPSE)]
    assert (mask_of(some, 20, 20) == mask_of(some[:1], 20, 20) | mask_of(some[1:], 20, 20)).all()
    assert not mask_of([], 20, 20).any()


def test_the_margin_is_a_share_of_the_face_and_pixels_on_all_sides():
    (region,) = plan([face(50, 40, 20, 30)], margin=Margin(sides=0.25, top=0.1, bottom=0.5, pixels=2))
    assert region == Region(Box(50 - 5 - 2, 40 - 3 - 2, 20 + 10 + 4, 30 + 3 + 15 + 4))


def test_the_callers_margin_and_shape_replace_the_profiles():
    options = Options(margin=Margin(0.5, 0, 0, 0), shape=Shape.ELLIPSE)
    (region,) = plan([face(50, 40, 20, 30)], options=options, margin=Margin(), shape=Shape.BOX)
    assert region == Region(Box(40, 40, 40, 30), Shape.ELLIPSE)


def test_a_rounded_region_has_a_corner_radius_that_follows_its_short_side():
    (region,) = plan([face(50, 40, 20, 30)], shape=Shape.ROUNDED)
    assert region.radius == CORNER_RADIUS * 10


def test_a_region_keeps_its_size_where_it_reaches_past_the_border():
    (region,) = plan([face(-50, -50, 300, 300)])
    assert region.box == Box(-50, -50, 300, 300)


@pytest.mark.parametrize("box", [(-20, 10, 20, 20), (200, 10, 20, 20), (10, 100, 20, 20), (10, -30, 20, 30.9)])
def test_regions_without_a_pixel_in_the_picture_are_left_out(box):
    assert plan([face(*box)]) == ()


def test_the_callers_regions_are_boxes_without_a_margin_after_those_of_the_faces():
    options = Options(regions=(Box(5, 6, 7, 8),))
    faces = [face(50, 40, 20, 30)]
    _, own = plan(faces, options=options, margin=Margin(), shape=Shape.ELLIPSE)
    assert own == Region(Box(5, 6, 7, 8))


@given(st.builds(Box, st.floats(0, 30), st.floats(0, 30), st.floats(0.01, 9), st.floats(0.01, 9)))
def test_every_pixel_that_a_callers_box_touches_is_obscured(box):
    mask = mask_of(plan([], options=Options(regions=(box,))), 200, 100)
    assert mask[int(box.y), int(box.x)]
    assert mask[np.ceil(box.y + box.h).astype(int) - 1, np.ceil(box.x + box.w).astype(int) - 1]
    assert mask.sum() <= (box.w + 2) * (box.h + 2)


def test_a_callers_box_of_any_size_is_accepted():
    (region,) = plan([], options=Options(regions=(Box(-1e300, -1e300, 2e300, 2e300),)))
    assert mask_of([region], 200, 100).all()


def test_a_region_inside_another_is_left_out_only_where_no_pixel_is_lost():
    inner, outer = face(50, 40, 10, 10), face(40, 30, 30, 30)
    assert plan([inner, outer]) == plan([outer, inner]) == plan([outer])
    assert plan([outer, outer]) == plan([outer])
    # The corners of an ellipse's box are outside of it.
    assert len(plan([outer], shape=Shape.ELLIPSE, options=Options(regions=(Box(41, 31, 5, 5),)))) == 2
    assert len(plan([outer], shape=Shape.ELLIPSE, options=Options(regions=(Box(50, 40, 5, 5),)))) == 1


def test_a_region_that_is_larger_outside_the_picture_is_not_left_out_for_a_smaller_one():
    """What it asks for is coarser cells, which the one that covers it does not have."""
    huge, small = face(-500, 0, 520, 20), face(0, 0, 30, 30)
    assert len(plan([small, huge])) == 2


boxes = st.builds(Box, st.floats(-50, 220), st.floats(-50, 120), st.floats(0.5, 90), st.floats(0.5, 90))


@given(st.lists(boxes, max_size=6), st.lists(boxes, max_size=3), st.sampled_from(Shape))
def test_leaving_regions_out_obscures_no_pixel_less(faces, own, shape):
    planned = plan([Face(box, 0.9, "model") for box in faces], options=Options(regions=tuple(own)), shape=shape)
    every = [region for box in faces for region in plan([Face(box, 0.9, "model")], shape=shape)]
    every += [region for box in own for region in plan([], options=Options(regions=(box,)))]
    assert set(planned) <= set(every)
    assert (mask_of(planned, 200, 100) == mask_of(every, 200, 100)).all()


def test_the_covered_share_counts_the_pixels_of_the_box_within_the_picture():
    region = Region(Box(10, 10, 20, 20))
    assert covered_share(Box(10, 10, 20, 20), [region], 100, 100) == 1
    assert covered_share(Box(0, 10, 20, 20), [region], 100, 100) == 0.5
    assert covered_share(Box(40, 40, 20, 20), [region], 100, 100) == 0
    assert covered_share(Box(15, 10, 20, 20), [region], 25, 25) == 1
    assert covered_share(Box(10, 10, 20, 20), [], 100, 100) == 0


def test_a_box_smaller_than_a_pixel_is_looked_at_and_one_outside_the_picture_cannot_be_seen():
    assert covered_share(Box(10.2, 10.2, 0.1, 0.1), [], 100, 100) == 0
    assert covered_share(Box(-50, 10, 20, 20), [], 100, 100) == 1


@given(boxes, st.lists(regions, max_size=4))
def test_the_covered_share_is_that_of_the_whole_mask(box, some):
    mask = mask_of(some, 200, 100)
    y0, x0 = max(0, int(np.floor(box.y))), max(0, int(np.floor(box.x)))
    window = mask[y0 : max(0, int(np.ceil(box.y + box.h))), x0 : max(0, int(np.ceil(box.x + box.w)))]
    assert covered_share(box, some, 200, 100) == pytest.approx(window.mean() if window.size else 1)
