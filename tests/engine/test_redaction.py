"""What is obscured cannot be undone: no byte of a result depends on more than the means of a few cells.

The cells are computed here a second time, from what `redaction` promises and not from its code. Pictures are then
changed within their cells, means kept, and every byte of the results is compared.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from faceblur_engine.redaction import draw_contours, redact
from faceblur_engine.regions import mask_of
from faceblur_engine.types import Box, Method, Options, Region, Shape

SMALLEST_CELL = 6


def rectangle(region, width, height):
    """The region's whole pixels within the picture, and its longer side also outside of it."""
    box = region.box
    x0, y0 = np.floor(box.x).astype(int), np.floor(box.y).astype(int)
    x1, y1 = np.floor(box.x + box.w).astype(int), np.floor(box.y + box.h).astype(int)
    return max(0, x0), max(0, y0), min(width, x1), min(height, y1), max(x1 - x0, y1 - y0)


def cells_of(regions, cells, width, height):
    """Which cell each pixel belongs to, ``[height, width]``: equal numbers are one cell, -1 is in no region."""
    labels = np.full((height, width), -1)

    def longest_first(region):
        box = region.box
        return -rectangle(region, 0, 0)[4], box.x, box.y, box.w, box.h, region.shape, region.radius

    for region in sorted(regions, key=longest_first):
        own = mask_of([region], width, height) & (labels < 0)
        x0, y0, x1, y1, longer = rectangle(region, width, height)
        if x1 <= x0 or y1 <= y0:
            continue
        cell = np.zeros((height, width), int)
        for axis, (low, high) in enumerate(((y0, y1), (x0, x1))):
            length = high - low
            count = max(1, min(length * cells // longer, length // SMALLEST_CELL))
            edges = [low + length * k // count for k in range(1, count)]
            index = np.searchsorted(edges, np.arange((height, width)[axis]), side="right")
            cell = cell * 8 + (index[:, None] if axis == 0 else index[None, :])
        labels[own] = labels.max() + 1 + cell[own]
    return labels


def changed_within(labels, pixels, rng):
    """The same sums in every cell and channel, from other pixels: random amounts move between random pairs."""
    result = pixels.copy()
    full = int(np.iinfo(pixels.dtype).max)
    for label in np.unique(labels[labels >= 0]):
        rows, columns = np.nonzero(labels == label)
        for channel in range(pixels.shape[2]):
            order = rng.permutation(len(rows))[: len(rows) // 2 * 2].reshape(2, -1)
            one, other = ((rows[half], columns[half], channel) for half in order)
            total = result[one].astype(int) + result[other]
            moved = rng.integers(np.maximum(0, total - full), np.minimum(full, total) + 1)
            result[one], result[other] = moved, total - moved
    return result


def redacted(pixels, regions, options, **kwargs):
    result = pixels.copy()
    redact(result, regions, options, **kwargs)
    return result


def noise(seed, height, width, channels=3, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def a_region(x, y, w, h, shape=Shape.BOX, radius=0.0):
    return Region(Box(x, y, w, h), shape, radius)


regions = st.builds(
    Region,
    st.builds(Box, st.floats(-40, 60), st.floats(-40, 60), st.floats(0.3, 90), st.floats(0.3, 90)),
    st.sampled_from(Shape),
    st.floats(0, 40),
)
several = st.lists(regions, max_size=5)
pictures = st.builds(
    noise,
    st.integers(0, 2**32),
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(1, 4),
    st.sampled_from((np.uint8, np.uint16)),
)
choices = st.builds(
    Options,
    method=st.sampled_from(Method),
    cells=st.integers(1, 8),
    feather=st.sampled_from((0.0, 0.05, 0.5)),
    color=st.sampled_from((None, None, (10, 200, 30))),
)


@settings(max_examples=400)
@given(pictures, several, choices, st.integers(0, 2**32))
@example(
    noise(1, 60, 60),  # a small face in front of a large one
    [a_region(0, 0, 60, 60, Shape.ELLIPSE), a_region(20, 20, 25, 30, Shape.ROUNDED, 9), a_region(50, 50, 30, 30)],
    Options(feather=0.5),
    1,
)
def test_changing_pixels_within_their_cells_changes_no_byte_of_the_result(pixels, some, options, seed):
    labels = cells_of(some, options.cells, pixels.shape[1], pixels.shape[0])
    assert ((labels >= 0) == mask_of(some, pixels.shape[1], pixels.shape[0])).all()
    changed = changed_within(labels, pixels, np.random.default_rng(seed))
    before, after = redacted(pixels, some, options), redacted(changed, some, options)
    # What is not obscured was not changed, so this compares the rims too.
    assert (before == after).all()


def test_the_change_that_proves_it_is_one():
    """Guards the test above: its pictures differ nearly everywhere, and their cells' means do not."""
    pixels, some = noise(1, 60, 60), [a_region(5, 5, 48, 48)]
    labels = cells_of(some, 8, 60, 60)
    changed = changed_within(labels, pixels, np.random.default_rng(2))
    assert (changed != pixels).any(axis=2)[labels >= 0].mean() > 0.9
    assert len(np.unique(labels)) == 64 + 1
    for label in np.unique(labels):
        assert (changed[labels == label].sum(0, int) == pixels[labels == label].sum(0, int)).all()


@given(pictures, several, choices)
def test_pixels_outside_of_regions_and_rims_are_untouched(pixels, some, options):
    height, width = pixels.shape[:2]
    reached = np.zeros((height, width), bool)
    for region in some:
        box = region.box
        rim = options.feather * max(box.w, box.h)
        # A rim starts at the outermost pixel, of which a box has all even where it covers a part.
        columns = np.abs(np.arange(width) + 0.5 - box.x - box.w / 2) <= box.w / 2 + rim + 1
        rows = np.abs(np.arange(height) + 0.5 - box.y - box.h / 2) <= box.h / 2 + rim + 1
        reached |= rows[:, None] & columns[None, :] if rim else mask_of([region], width, height)
    result = redacted(pixels, some, options)
    assert (result[~reached] == pixels[~reached]).all()


@given(pictures, several, choices, st.randoms())
def test_neither_order_nor_repetition_of_the_regions_matters(pixels, some, options, random):
    shuffled = [*some, *some[:1]]
    random.shuffle(shuffled)
    assert (redacted(pixels, some, options) == redacted(pixels, shuffled, options)).all()


@given(pictures, several, st.integers(1, 8))
@example(noise(1, 60, 60), [a_region(0, 0, 59, 59, Shape.ELLIPSE), a_region(20, 20, 30, 36)], 8)
def test_a_mosaic_holds_the_rounded_mean_of_each_cell(pixels, some, cells):
    """Of overlapping regions the one with the longer side, and so with the larger cells, lies on top."""
    labels = cells_of(some, cells, pixels.shape[1], pixels.shape[0])
    result = redacted(pixels, some, Options(method=Method.MOSAIC, cells=cells, feather=0))
    for label in np.unique(labels[labels >= 0]):
        own = labels == label
        colours = np.unique(result[own], axis=0)
        assert len(colours) == 1
        if own.sum() >= SMALLEST_CELL**2:
            assert (colours[0] == np.floor(pixels[own].mean(0) + 0.5)).all()


@pytest.mark.parametrize(("size", "cells"), [(11, 1), (12, 2), (23, 3), (30, 5), (47, 7), (48, 8), (100, 8)])
def test_the_number_of_cells_follows_from_the_size_of_the_face(size, cells):
    result = redacted(noise(1, 100, 100), [a_region(0, 0, size, size)], Options(method=Method.MOSAIC))
    assert len(np.unique(result[:size, :size].reshape(-1, 3), axis=0)) == cells**2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_solid_is_the_mean_of_the_region(channels, dtype):
    pixels, region = noise(1, 50, 60, channels, dtype), a_region(10, 5, 30, 40, Shape.ELLIPSE)
    mask = mask_of([region], 60, 50)
    result = redacted(pixels, [region], Options(method=Method.SOLID))
    assert (result[mask] == np.floor(pixels[mask].mean(0) + 0.5)).all()


@pytest.mark.parametrize(
    ("channels", "dtype", "cmyk", "expected"),
    [
        (1, np.uint8, False, [124]),
        (2, np.uint8, False, [124, 255]),
        (3, np.uint8, False, [10, 200, 30]),
        (4, np.uint8, False, [10, 200, 30, 255]),
        (4, np.uint8, True, [245, 55, 225, 0]),
        (3, np.uint16, False, [2570, 51400, 7710]),
    ],
)
def test_a_chosen_colour_is_drawn_opaque_in_every_kind_of_picture(channels, dtype, cmyk, expected):
    pixels, region = noise(1, 50, 60, channels, dtype), a_region(10, 5, 30, 40)
    result = redacted(pixels, [region], Options(method=Method.SOLID, color=(10, 200, 30)), cmyk=cmyk)
    assert (result[mask_of([region], 60, 50)] == expected).all()


@given(pictures, regions, st.sampled_from((Method.MOSAIC, Method.SOLID)))
def test_a_rim_leaves_the_region_at_full_strength(pixels, region, method):
    mask = mask_of([region], pixels.shape[1], pixels.shape[0])
    with_rim, without = (redacted(pixels, [region], Options(method=method, feather=feather)) for feather in (0.5, 0))
    assert (with_rim[mask] == without[mask]).all()


@given(st.integers(0, 2**32), st.sampled_from(Shape), st.integers(1, 8))
def test_a_blur_stays_between_the_means_of_the_cells(seed, shape, cells):
    """An upsampling that rings shows halos, and clips where they leave the range of the pixels."""
    pixels = np.where(noise(seed, 8, 8, 1) > 127, 255, 0).astype(np.uint8).repeat(12, axis=0).repeat(12, axis=1)
    region = a_region(2, 3, 90, 80, shape, 20)
    mask = mask_of([region], 96, 96)
    mosaic, blur = (
        redacted(pixels, [region], Options(method=method, cells=cells))[mask] for method in (Method.MOSAIC, Method.BLUR)
    )
    assert mosaic.min() <= blur.min()
    assert blur.max() <= mosaic.max()


def test_a_blur_has_no_visible_edges():
    pixels = np.where(noise(3, 8, 8, 1) > 127, 255, 0).astype(np.uint8).repeat(50, axis=0).repeat(50, axis=1)
    result = redacted(pixels, [a_region(0, 0, 400, 400)], Options()).astype(int)
    assert np.abs(np.diff(result, axis=0)).max() <= 6
    assert np.abs(np.diff(result, axis=1)).max() <= 6
    assert result.max() - result.min() > 80


def test_a_rim_fades_from_the_fill_to_the_picture():
    pixels = np.full((200, 200, 3), 100, np.uint8)
    options = Options(method=Method.SOLID, color=(220, 220, 220), feather=0.2)
    line = redacted(pixels, [a_region(50, 50, 100, 100, Shape.ROUNDED, 30)], options)[100, :, 0].astype(int)
    assert (line[50:150] == 220).all()
    assert (np.diff(line[:51]) >= 0).all()
    assert (np.diff(line[149:]) <= 0).all()
    assert (line[:30] == 100).all()
    assert (line[170:] == 100).all()
    assert 130 < line[40] < 190


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("shape", Shape)
def test_a_region_under_twelve_pixels_becomes_one_colour(shape, method):
    region = a_region(7, 9, 11, 11, shape, 3)
    result = redacted(noise(1, 40, 40), [region], Options(method=method))
    assert len(np.unique(result[mask_of([region], 40, 40)], axis=0)) == 1


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize(
    "box",
    [
        (-3990, 10, 4000, 4000),
        (-2000, -2000, 4000, 4000),
        (90, -7, 8, 8),
        (-5, -5, 8, 8),
        (99, 79, 50, 50),
        (0, 0, 1, 1),
    ],
)
def test_faces_of_any_size_may_be_cut_by_the_border(box, method):
    pixels, region = noise(1, 80, 100), a_region(*box)
    mask = mask_of([region], 100, 80)
    result = redacted(pixels, [region], Options(method=method))
    assert mask.any()
    assert not (result[mask] == pixels[mask]).all()


def test_a_face_cut_by_the_border_gets_fewer_cells_and_not_finer_ones():
    region = a_region(-60, 0, 80, 80)
    result = redacted(noise(1, 100, 100), [region], Options(method=Method.MOSAIC, feather=0))
    assert len(np.unique(result[:80, 0], axis=0)) == 8
    assert len(np.unique(result[0, :20], axis=0)) == 2


def test_a_large_face_is_made_of_eight_by_eight_cells():
    pixels = noise(1, 4200, 4200, 1)
    region = a_region(100, 100, 4000, 4000, Shape.ROUNDED, 1500)
    result = redacted(pixels, [region], Options(method=Method.MOSAIC))
    own = mask_of([region], 4200, 4200)[100:4100, 100:4100].reshape(8, 500, 8, 500).swapaxes(1, 2)
    cells = result[100:4100, 100:4100, 0].reshape(8, 500, 8, 500).swapaxes(1, 2)
    assert all(len(np.unique(cell[mine])) == 1 for row, row_own in zip(cells, own, strict=True)
               for cell, mine in zip(row, row_own, strict=True))  # fmt: skip
    assert (redacted(pixels, [region], Options()) != pixels)[2000:2200, 2000:2200].mean() > 0.9


@pytest.mark.parametrize("method", Method)
def test_nothing_of_a_remainder_too_small_for_a_mean_is_used(method):
    """A row of boxes of one pixel would otherwise give each pixel back."""
    some = [a_region(x, y, 1, 1) for x in range(10, 20) for y in range(10, 20)]
    pixels, other = noise(1, 30, 30), noise(2, 30, 30)
    mask = mask_of(some, 30, 30)
    other[~mask] = pixels[~mask]
    assert (redacted(pixels, some, Options(method=method)) == redacted(other, some, Options(method=method))).all()


@pytest.mark.parametrize("method", Method)
def test_the_only_pixel_of_a_picture_is_obscured(method):
    results = {
        redacted(np.full((1, 1, 3), value, np.uint8), [a_region(0, 0, 1, 1)], Options(method=method)).tobytes()
        for value in range(256)
    }
    assert len(results) == 1


@given(pictures, choices)
def test_without_regions_nothing_changes(pixels, options):
    outside = [a_region(-50, 3, 40, 9), a_region(3, 100, 5, 5)]
    assert (redacted(pixels, [], options) == pixels).all()
    assert (redacted(pixels, outside, options) == pixels).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_the_outline_of_a_cut_out_is_obscured_like_a_colour(channels):
    pixels = noise(1, 96, 96, channels)
    pixels[..., -1] = np.where(pixels[..., -1] > 127, 255, 0)
    result = redacted(pixels, [a_region(0, 0, 96, 96)], Options(method=Method.MOSAIC))
    assert len(np.unique(result[..., -1])) <= 64
    assert (result[..., -1] == redacted(pixels[..., -1:].copy(), [a_region(0, 0, 96, 96)],
                                        Options(method=Method.MOSAIC))[..., 0]).all()  # fmt: skip


@given(pictures, several)
def test_a_contour_lies_outside_the_region_it_belongs_to(pixels, some):
    height, width = pixels.shape[:2]
    for region in some:
        result = pixels.copy()
        draw_contours(result, [region])
        mask = mask_of([region], width, height)
        assert (result[mask] == pixels[mask]).all()


@given(pictures, several, st.integers(0, 2**32))
def test_contours_depend_on_the_regions_alone(pixels, some, seed):
    """What is drawn, and where, is the same in every picture: it tells nothing of the one it is drawn in."""
    black, white = np.zeros_like(pixels), np.full_like(pixels, np.iinfo(pixels.dtype).max)
    drawn = pixels.copy()
    for picture in (black, white, drawn):
        draw_contours(picture, some)
    line = (black == white).all(axis=2)
    assert (drawn[line] == black[line]).all()
    assert (drawn[~line] == pixels[~line]).all()


def test_a_contour_is_seen_around_every_region():
    pixels = np.zeros((100, 100, 3), np.uint8)
    draw_contours(pixels, [a_region(20, 20, 40, 40), a_region(70, 70, 60, 60, Shape.ELLIPSE)])
    assert pixels[40, 18:20].any(axis=1).all()
    assert pixels[40, 60:62].any(axis=1).all()
    assert not pixels[40, 20:60].any()
    assert pixels[98, 65:75].any()
