import numpy as np
import pytest
import torch
from scipy import ndimage

from modalign.deformation import bending, composed, diffusion, exponential, on_pixels, warp
from modalign.geometry import DisplacementField, Grid, deformation

SHAPES = [(40, 44), (18, 20, 16)]
each = pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])


def smooth(shape, amplitude, sigma=4.0, seed=0, channels=None):
    rng = np.random.default_rng(seed)
    noise = np.stack(
        [ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for _ in range(channels or len(shape))]
    )
    return torch.tensor(amplitude * noise / np.abs(noise).max(), dtype=torch.float32)[None]


@each
def test_warp_looks_where_the_displacement_leads(shape):
    image, field = smooth(shape, 1.0, 1.5, channels=2), smooth(shape, 3.0, seed=1)
    places = np.indices(shape) + field[0].numpy()
    for channel in range(2):
        expected = ndimage.map_coordinates(image[0, channel].numpy(), places, order=1, mode="nearest")
        np.testing.assert_allclose(warp(image, field)[0, channel].numpy(), expected, atol=1e-4)


@each
def test_warp_by_whole_pixels_copies(shape):
    image = smooth(shape, 1.0, 1.0, channels=1)
    field = torch.zeros(1, len(shape), *shape)
    field[:, 0] = 2
    torch.testing.assert_close(warp(image, field)[:, :, :-2], image[:, :, 2:], atol=1e-5, rtol=0)


@each
def test_composition_is_one_after_the_other(shape):
    a, b = smooth(shape, 2.0), smooth(shape, 2.0, seed=1)
    grid = Grid(shape)
    first, then = (DisplacementField(field[0].numpy(), grid) for field in (a, b))
    expected = then.map_points(first.map_points(grid.points)) - grid.points
    np.testing.assert_allclose(np.moveaxis(composed(a, b)[0].numpy(), 0, -1), expected, atol=1e-4)


@each
def test_the_exponential_is_that_of_many_small_steps(shape):
    velocity, steps = smooth(shape, 3.0), 512
    grid = Grid(shape)
    field, points = DisplacementField(velocity[0].numpy(), grid), grid.points
    for _ in range(steps):
        points = points + (field.map_points(points) - points) / steps
    found = np.moveaxis(exponential(velocity)[0].numpy(), 0, -1)
    inner = (slice(4, -4),) * len(shape)
    np.testing.assert_allclose(found[inner], (points - grid.points)[inner], atol=0.05)


@each
def test_the_opposite_velocity_leads_back(shape):
    velocity = smooth(shape, 3.0)
    there_and_back = composed(exponential(velocity), exponential(-velocity))
    inner = (..., *(slice(5, -5),) * len(shape))
    assert float(there_and_back[inner].abs().max()) < 0.1


@each
def test_the_exponential_does_not_fold_where_adding_would(shape):
    velocity = smooth(shape, 12.0, sigma=2.5)
    grid = Grid(shape)
    assert deformation(DisplacementField(velocity[0].numpy(), grid), grid).folded > 0.01
    assert deformation(DisplacementField(exponential(velocity)[0].numpy(), grid), grid).folded < 0.01


@each
def test_no_velocity_no_displacement(shape):
    assert not exponential(torch.zeros(1, len(shape), *shape)).any()


def test_other_pixels_keep_the_field():
    """A pixel of the coarse grid covers two of the fine one: index 0 of it lies at 0.5, and lengths double."""
    coarse = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(10.0), indexing="ij"))[None]
    fine = on_pixels(coarse, torch.Size((16, 20)))
    rows = (torch.arange(16.0) - 0.5) / 2
    torch.testing.assert_close(fine[0, 0, 1:-1, 3], 2 * rows[1:-1])
    assert on_pixels(coarse, torch.Size((8, 10))) is coarse


@each
def test_roughness_is_that_of_its_definition(shape):
    field = smooth(shape, 1.0, 1.0)
    values = field[0].numpy().astype(float)
    axes = range(len(shape))
    assert float(diffusion(field)) == pytest.approx(
        sum((np.diff(values, axis=a + 1) ** 2).sum(0).mean() for a in axes), rel=1e-4
    )
    assert float(bending(field)) == pytest.approx(
        sum((np.diff(np.diff(values, axis=a + 1), axis=b + 1) ** 2).sum(0).mean() for a in axes for b in axes), rel=1e-3
    )


@each
def test_what_is_affine_does_not_bend(shape):
    places = torch.tensor(np.indices(shape), dtype=torch.float32)[None]
    assert float(bending(0.3 * places)) == pytest.approx(0, abs=1e-9)
    assert float(diffusion(0 * places + 2)) == 0
