import numpy as np
import pytest
import torch
from scipy import ndimage

from modalign.data.augmentation import Augmentation
from modalign.data.intensity import IntensityScaling
from modalign.data.pairs import Pair
from modalign.data.patches import PatchSampler, PatchSource, largest_patch, window_size
from modalign.errors import TrainingError
from modalign.geometry import Grid
from modalign.image import Image

STILL = Augmentation(flip=False, rotate=False, scale=0, gamma=0, contrast=0, mixing=0, blur=0, noise=0)


def pair(shape: tuple[int, ...], mask: np.ndarray | None = None, seed: int = 0) -> Pair:
    """A textured image and its negative."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    data = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)[None]
    grid = Grid(shape)
    return Pair("a", Image(data, grid, mask=mask), Image(255 - data, grid))


def source(p: Pair, window: int) -> PatchSource:
    return PatchSource.from_pair(p, IntensityScaling.fit([p.fixed]), IntensityScaling.fit([p.moving]), window)


@pytest.mark.parametrize(("shape", "window"), [((60, 75), 31), ((60, 75), 30), ((20, 24, 28), 11)])
def test_windows_lie_inside_and_correspond(shape: tuple[int, ...], window: int) -> None:
    sampler = PatchSampler((source(pair(shape), window),), window)
    fixed, moving = sampler.draw(20, np.random.default_rng(0))
    assert fixed.shape == moving.shape == (20, 1, *(window,) * len(shape))
    np.testing.assert_allclose(fixed, 1 - moving, atol=0.02)  # the negative of the same place


def test_mask_of_valid_pixels_is_honoured() -> None:
    mask = np.zeros((80, 90), dtype=bool)
    mask[10:60, 25:85] = True
    p = pair((80, 90), mask)
    unit = p.fixed.data.astype(np.float32) / 255
    poisoned = np.where(mask, unit, 99).astype(np.float32)
    patches = PatchSource("a", poisoned, 1 - unit, source(p, 24).centers)
    fixed, _ = PatchSampler((patches,), 24).draw(200, np.random.default_rng(1))
    assert fixed.max() <= 1


def test_same_generator_same_windows() -> None:
    sampler = PatchSampler((source(pair((60, 60)), 20),), 20)
    one, other = (sampler.draw(5, np.random.default_rng(7))[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_empty_places_are_left_out() -> None:
    p = pair((100, 100))
    data = p.fixed.data.copy()
    data[:, :, 50:] = 128  # the right half shows nothing
    centers = source(Pair("a", p.fixed.with_data(data), p.moving), 20).centers
    assert centers[:, 1].max() < 62


def test_largest_patch_fits_everywhere() -> None:
    pairs = [pair((200, 200)), pair((70, 90))]
    patch = largest_patch(pairs, 64, 8, 1.1)
    assert patch % 8 == 0
    assert 24 <= patch < 64
    for p in pairs:
        assert len(source(p, window_size(patch, 2, 1.1)).centers)


def test_too_small_pair_is_named() -> None:
    with pytest.raises(TrainingError, match="'a' is too small"):
        largest_patch([pair((20, 20))], 64, 8, 1.1)


def windows(p: Pair, window: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = PatchSampler((source(p, window),), window).draw(count, np.random.default_rng(0))
    return torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1])


@pytest.mark.parametrize(("shape", "patch"), [((60, 60), 16), ((30, 30, 30), 8)])
def test_geometry_never_leaves_the_window(shape: tuple[int, ...], patch: int) -> None:
    """Pixels just outside the window, continued from its border, must never be asked for."""
    augmentation = Augmentation()
    window = window_size(patch, len(shape), augmentation.largest_scale)
    size = (64, 1, *(window,) * len(shape))
    inner = torch.zeros(size)
    inner[(slice(None), slice(None), *(slice(1, -1),) * len(shape))] = 1  # border pixels would be repeated outside
    ramp, _ = augmentation.geometry(inner, inner, patch, torch.Generator().manual_seed(0))
    assert (ramp > 0).all()


@pytest.mark.parametrize("shape", [(60, 60), (30, 30, 30)])
def test_both_modalities_move_alike(shape: tuple[int, ...]) -> None:
    fixed, moving = windows(pair(shape), 22, 8)
    a, b = Augmentation().geometry(fixed, moving, 10, torch.Generator().manual_seed(3))
    torch.testing.assert_close(a, 1 - b, atol=0.03, rtol=0)
    assert not torch.allclose(a, fixed[(..., *(slice(6, 16),) * len(shape))], atol=0.05)


def test_without_augmentation_the_centre_comes_out() -> None:
    fixed, moving = windows(pair((60, 60)), 22, 4)
    a, _ = STILL.geometry(fixed, moving, 10, torch.Generator().manual_seed(0))
    torch.testing.assert_close(a, fixed[..., 6:16, 6:16], atol=1e-5, rtol=0)
    torch.testing.assert_close(STILL.intensity(a, torch.Generator().manual_seed(0)), a)


def test_rotations_are_uniform_and_proper() -> None:
    """The first axis of a uniform rotation has no preferred direction, and no image is mirrored."""
    window = torch.zeros(400, 1, 21, 21)
    window[:, :, 10, 14] = 1  # a dot right of the centre
    turned, _ = Augmentation(flip=False, scale=0).geometry(window, window, 13, torch.Generator().manual_seed(5))
    dots = np.array([np.unravel_index(int(t.argmax()), (13, 13)) for t in turned[:, 0]]) - 6.0
    np.testing.assert_allclose(np.linalg.norm(dots, axis=1), 4, atol=0.8)
    np.testing.assert_allclose(dots.mean(axis=0), 0, atol=0.5)


@pytest.mark.parametrize("name", ["gamma", "contrast", "mixing", "blur", "noise"])
def test_every_intensity_option_has_an_effect(name: str) -> None:
    from dataclasses import replace

    unit = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    changed = replace(STILL, **{name: 0.5}).intensity(unit, torch.Generator().manual_seed(1))
    assert not torch.allclose(changed, unit, atol=1e-3)
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_blur_keeps_the_sum_and_is_isotropic() -> None:
    from dataclasses import replace

    dot = torch.zeros(64, 1, 21, 21)
    dot[:, :, 10, 10] = 1
    blurred = replace(STILL, blur=2.0).intensity(dot, torch.Generator().manual_seed(0))
    torch.testing.assert_close(blurred.sum((1, 2, 3)), torch.ones(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(blurred, blurred.transpose(-1, -2), atol=1e-5, rtol=0)
    sharp = (blurred[:, 0, 10, 10] > 0.99).float().mean()
    assert 0.3 < float(sharp) < 0.7


@pytest.mark.parametrize(
    ("spacing", "kept"), [((4.0, 1.0, 1.0), {0}), ((1.0, 1.0, 3.0), {2}), ((1.0, 2.0, 3.0), {0, 1, 2})]
)
def test_axes_with_pixels_of_another_size_are_not_turned(spacing: tuple[float, ...], kept: set[int]) -> None:
    """A ramp along an axis stays one where the axis takes no part in the rotation."""
    still = Augmentation(flip=False, scale=0)
    for axis in range(3):
        ramp = torch.arange(25.0).reshape([-1 if a == axis else 1 for a in range(3)]).expand(25, 25, 25)[None, None]
        turned, _ = still.geometry(ramp, ramp, 9, torch.Generator().manual_seed(2), spacing)
        expected = torch.arange(8.0, 17.0).reshape([-1 if a == axis else 1 for a in range(3)]).expand(9, 9, 9)
        assert (float((turned[0, 0] - expected).abs().max()) < 1e-4) == (axis in kept)
