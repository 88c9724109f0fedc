from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from modalign.deformation import (
    Flow,
    FlowOptions,
    Level,
    before_and_after,
    exponential,
    find_flow,
    on_pixels,
    unfolded,
    warp,
)
from modalign.geometry import DisplacementField, Grid, folded_cells
from modalign.losses import LocalNcc, MeanSquares, MindSsc, NormalizedMI

SHAPES = [(64, 72), (28, 30, 26)]
each = pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])


def smooth(shape, amplitude, sigma, seed, channels=1):
    rng = np.random.default_rng(seed)
    noise = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for _ in range(channels)])
    return torch.tensor(amplitude * noise / np.abs(noise).max(), dtype=torch.float32)[None]


def known(shape, amplitude=3.0):
    """Levels of an image and its deformed version, and the true displacement."""
    moving = 0.5 + smooth(shape, 0.5, 1.5, 0)
    truth = exponential(smooth(shape, amplitude, max(shape) / 9, 1, len(shape)))
    fixed = warp(moving, truth)
    pool = torch.nn.functional.interpolate
    half = [pool(image, tuple(n // 2 for n in shape), mode="area") for image in (fixed, moving)]
    levels = [Level(*images, *(torch.ones_like(images[0]) for _ in range(2))) for images in (half, (fixed, moving))]
    return levels, truth


def error(found, truth):
    inner = (..., *(slice(6, -6),) * (truth.ndim - 2))
    return float((found - truth)[inner].square().sum(1).sqrt().mean())


@each
@pytest.mark.parametrize(
    ("similarity", "weight"),
    [(MeanSquares(), 0.003), (LocalNcc(7), 0.1), (NormalizedMI(), 0.02), (MindSsc(1, 1), 0.01)],
    ids=["mse", "ncc", "nmi", "mind"],
)
def test_a_known_deformation_is_found(shape, similarity, weight):
    levels, truth = known(shape)
    flow = find_flow(levels, similarity, FlowOptions(weight))
    assert error(flow.displacement(), truth) < 0.35 * error(0 * truth, truth)
    before, after = before_and_after(levels[-1], similarity, flow.displacement())
    assert after < before


@each
def test_described_before_it_is_warped_it_is_found_as_well(shape):
    levels, truth = known(shape)
    flow = find_flow(levels, MindSsc(1, 1), FlowOptions(0.01, order="features-first"))
    assert error(flow.displacement(), truth) < 0.4 * error(0 * truth, truth)


@each
def test_identical_images_stay_where_they_are(shape):
    levels, _ = known(shape)
    same = [replace(level, moving=level.fixed) for level in levels]
    assert float(find_flow(same, LocalNcc(7), FlowOptions()).displacement().abs().max()) < 0.02


@each
def test_what_is_masked_does_not_pull(shape):
    levels, truth = known(shape)
    spoilt = []
    for level in levels:
        mask, fixed = level.mask.clone(), level.fixed.clone()
        third = level.shape[-1] // 3
        mask[..., :third], fixed[..., :third] = 0, 0.9
        spoilt.append(replace(level, mask=mask, fixed=fixed))
    flow = find_flow(spoilt, MeanSquares(), FlowOptions(0.003))
    right = (..., slice(shape[-1] // 2, -4))
    off = (flow.displacement() - truth)[right].square().sum(1).sqrt().mean()
    assert float(off) < 0.5 * float(truth[right].square().sum(1).sqrt().mean())


@each
def test_a_heavier_weight_is_smoother(shape):
    levels, _ = known(shape)
    longest = [
        float(find_flow(levels, MeanSquares(), FlowOptions(weight)).displacement().abs().max())
        for weight in (0.001, 10)
    ]
    assert longest[1] < 0.2 * longest[0]


@each
def test_the_same_call_gives_the_same_flow_and_tells_how_far_it_is(shape):
    levels, _ = known(shape)
    told = []
    first, second = (find_flow(levels, MeanSquares(), FlowOptions(0.003), told.append) for _ in range(2))
    torch.testing.assert_close(first.velocity, second.velocity, rtol=0, atol=0)
    assert all(0 < share <= 1 for share in told)
    assert sorted(told[: len(told) // 2]) == told[: len(told) // 2]


@each
def test_the_inverse_leads_back(shape):
    levels, _ = known(shape)
    flow = find_flow(levels, MeanSquares(), FlowOptions(0.003))
    grid = Grid(shape)
    there, back = (DisplacementField(flow.displacement(sign)[0].numpy(), grid) for sign in (1.0, -1.0))
    points = grid.index_to_world(np.random.default_rng(0).uniform(8, np.array(shape) - 9, (100, len(shape))))
    assert np.abs(back.map_points(there.map_points(points)) - points).max() < 0.3


@each
def test_folds_are_smoothed_away_and_the_rest_stays(shape):
    velocity = smooth(tuple(n // 2 for n in shape), 1.5, 3, 2, len(shape))
    rough = velocity.clone()
    spot = tuple(slice(n // 4, n // 4 + 2) for n in shape)
    rough[(..., *spot)] += torch.tensor(np.random.default_rng(0).uniform(-9, 9, rough[(..., *spot)].shape)).float()
    flow = Flow(rough, torch.Size(shape), 1)
    grid = Grid(shape)
    assert folded_cells(DisplacementField(flow.displacement()[0].numpy(), grid), grid).any()
    mended = unfolded(flow)
    for sign in (1.0, -1.0):
        assert not folded_cells(DisplacementField(mended.displacement(sign)[0].numpy(), grid), grid).any()
    corner = (..., *(slice(-4, None),) * len(shape))
    torch.testing.assert_close(mended.velocity[corner], rough[corner])


def test_what_does_not_fold_is_not_touched():
    flow = Flow(smooth((20, 20), 1.0, 4, 0, 2), torch.Size((40, 40)), 1)
    assert unfolded(flow).velocity is flow.velocity


def test_unlikeness_under_the_truth_is_least():
    levels, truth = known((64, 72))
    at = [before_and_after(levels[-1], LocalNcc(), share * truth)[1] for share in (0.0, 0.5, 1.0)]
    assert at[2] < at[1] < at[0]
    assert on_pixels(truth, torch.Size((64, 72))) is truth
