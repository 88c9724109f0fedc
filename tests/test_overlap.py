import numpy as np
import pytest

from modalign.overlap import dice, hausdorff95


def square(shift=0, label=1):
    labels = np.zeros((40, 40), np.int32)
    labels[10:20, 10 + shift : 20 + shift] = label
    return labels


def test_dice_counts_labels_of_either_map():
    assert dice(square(), square()) == 1
    assert dice(square(), square(5)) == pytest.approx(0.5)
    assert dice(square(), square(label=2)) == 0
    assert dice(np.zeros((4, 4), int), np.zeros((4, 4), int)) == 1


def test_dice_leaves_the_background_out():
    assert dice(square(), square(20)) == 0


def test_the_surfaces_of_a_shifted_square_are_as_far_as_it_was_shifted():
    assert hausdorff95(square(), square()) == 0
    assert hausdorff95(square(), square(4)) == pytest.approx(4)
    assert hausdorff95(square(), square(4), (1.0, 0.5)) == pytest.approx(2)


def test_it_is_that_of_a_literal_loop():
    rng = np.random.default_rng(0)
    a, b = ((rng.random((9, 8, 7)) > 0.7).astype(int) for _ in range(2))
    spacing = np.array([2.0, 1.0, 0.5])

    def surface(mask):
        padded = np.pad(mask, 1)
        inside = np.ones_like(mask, bool)
        for axis in range(3):
            for side in (-1, 1):
                inside &= np.roll(padded, side, axis)[1:-1, 1:-1, 1:-1] > 0
        return np.argwhere((mask > 0) & ~inside) * spacing

    one, other = surface(a), surface(b)
    apart = np.linalg.norm(one[:, None] - other[None], axis=-1)
    expected = np.percentile(np.concatenate([apart.min(1), apart.min(0)]), 95)
    assert hausdorff95(a, b, spacing.tolist()) == pytest.approx(expected)


def test_the_mean_is_over_the_labels_of_both():
    two = square() + square(15, label=2)
    moved = square(2) + square(15, label=2)
    assert hausdorff95(two, moved) == pytest.approx(1)
    assert hausdorff95(two, square(2)) == pytest.approx(2)
    assert np.isnan(hausdorff95(square(), square(label=2)))


@pytest.mark.parametrize("shape", [(30, 34), (12, 14, 13)])
def test_many_labels_are_measured_as_one_by_one(shape):
    """Also where they touch each other and the border, and where a label is in one map only."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 9, tuple(-(-n // 4) for n in shape)) * 1000
    fixed = np.kron(coarse, np.ones((4,) * len(shape), int))[tuple(slice(n) for n in shape)]
    warped = np.roll(fixed, 2, axis=1)
    warped[warped == 3000] = 7
    labels = [k for k in np.union1d(fixed, warped) if k > 0]
    pairs = [(fixed == k, warped == k) for k in labels]
    expected = np.mean([2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in pairs])
    assert dice(fixed, warped) == pytest.approx(expected)
    alone = [hausdorff95(one.astype(int), other.astype(int)) for one, other in pairs if one.any() and other.any()]
    assert hausdorff95(fixed, warped) == pytest.approx(np.mean(alone))
