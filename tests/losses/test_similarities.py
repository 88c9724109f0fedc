"""Every similarity against a slow literal version, and the laws that all obey."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from modalign.errors import InvalidInputError
from modalign.losses import (
    DeepSim,
    LocalNcc,
    MeanSquares,
    MindSsc,
    NormalizedMI,
    Similarity,
    own_channels,
    unlikeness,
)


def textured(shape, seed=0, sigma=1.5):
    """A smooth random image from 0 to 1, ``(1, 1, *shape)``."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    noise = (noise - noise.min()) / np.ptp(noise)
    return torch.tensor(noise[None, None], dtype=torch.float32)


def network(ndim):
    """A frozen random extractor of two levels."""
    torch.manual_seed(0)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
    first, second = conv(1, 6, 3, padding=1), conv(6, 8, 3, 2, 1)
    for part in (first, second):
        part.requires_grad_(requires_grad=False)

    def extract(image):
        fine = torch.tanh(4 * first(image))
        return [fine, torch.tanh(4 * second(fine))]

    return extract


SIMILARITIES = ["squares", "ncc", "nmi", "mind", "deepsim"]
SHAPES = [(30, 34), (18, 17, 20)]


def made(name, ndim):
    return {
        "squares": MeanSquares(),
        "ncc": LocalNcc(7, 1),
        "nmi": NormalizedMI(),
        "mind": MindSsc(1, 2),
        "deepsim": DeepSim(network(ndim)),
    }[name]


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
class TestLaws:
    def test_it_is_a_similarity(self, name, shape):
        assert isinstance(made(name, len(shape)), Similarity)

    def test_least_at_the_true_shift(self, name, shape):
        similarity = made(name, len(shape))
        image = textured(tuple(n + 8 for n in shape))

        def part(shift):
            window = [slice(4, 4 + n) for n in shape[1:]]
            return image[(..., slice(4 + shift, 4 + shift + shape[0]), *window)]

        values = {shift: float(unlikeness(similarity, part(shift), part(0))) for shift in range(-4, 5)}
        assert min(values, key=values.__getitem__) == 0
        assert values[1] > values[0] + 1e-4

    def test_masked_pixels_do_not_count(self, name, shape):
        similarity, fixed = made(name, len(shape)), textured(shape)
        mask = torch.ones_like(fixed)
        mask[..., :12] = 0
        spoilt = fixed.clone()
        spoilt[..., :6] = 1 - spoilt[..., :6]  # further from the valid part than any description reaches
        whole = float(unlikeness(similarity, spoilt, fixed))
        valid = float(unlikeness(similarity, spoilt, fixed, mask))
        perfect = float(unlikeness(similarity, fixed, fixed, mask))
        assert whole > perfect + 1e-3
        assert valid == pytest.approx(perfect, abs=1e-5)

    def test_the_gradient_is_finite_everywhere_even_where_nothing_varies(self, name, shape):
        similarity, fixed = made(name, len(shape)), textured(shape)
        fixed[..., :5] = 0.5
        for start in (fixed.clone(), torch.full_like(fixed, 0.5), textured(shape, seed=1)):
            warped = start.requires_grad_()
            unlikeness(similarity, warped, fixed).backward()
            assert warped.grad is not None
            assert torch.isfinite(warped.grad).all()

    def test_nothing_valid_is_no_error(self, name, shape):
        fixed = textured(shape)
        value = unlikeness(made(name, len(shape)), fixed, fixed, torch.zeros_like(fixed))
        assert torch.isfinite(value)


def test_mean_squares():
    a, b = textured((8, 9)), textured((8, 9), seed=1)
    assert float(unlikeness(MeanSquares(), a, b)) == pytest.approx(float(((a - b) ** 2).mean()))


@pytest.mark.parametrize("shape", [(9, 11), (6, 7, 8)])
@pytest.mark.parametrize(("window", "step"), [(3, 1), (5, 2)])
def test_local_ncc_is_that_of_a_literal_loop(shape, window, step):
    a, b = textured(shape), textured(shape, seed=1)
    mask = torch.tensor(np.random.default_rng(2).random((1, 1, *shape)) > 0.3, dtype=torch.float32)
    x, y, m = (t.numpy()[0, 0].astype(float) for t in (a, b, mask))
    total, count, half = 0.0, 0, window // 2
    for at in np.ndindex(shape):
        box = tuple(slice(max(0, i - half), i + half + 1) for i in at)
        valid = m[box] > 0
        if not m[at] or any(i % step for i in at):
            continue
        count += 1
        w, f = x[box][valid], y[box][valid]
        covariance = (w * f).mean() - w.mean() * f.mean()
        total += covariance**2 / (w.var() * f.var() + 1e-10)
    assert float(unlikeness(LocalNcc(window, step), a, b, mask)) == pytest.approx(1 - total / count, abs=2e-3)


def test_local_ncc_does_not_mind_brightness_and_contrast():
    a = textured((40, 40))
    assert float(unlikeness(LocalNcc(), 0.5 * a + 0.2, a)) == pytest.approx(0, abs=2e-3)
    assert float(unlikeness(LocalNcc(), 1 - a, a)) == pytest.approx(0, abs=2e-3)


def test_normalized_mi_is_that_of_a_literal_histogram():
    a, b = textured((12, 13)), textured((12, 13), seed=1)
    bins = 8
    joint = np.zeros((bins, bins))
    for u, v in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True):
        rows = []
        for value in (u, v):
            weights = [math.exp(-0.5 * ((value - k / (bins - 1)) / (1 / (bins - 1) / 2.355)) ** 2) for k in range(bins)]
            rows.append(np.array(weights) / sum(weights))
        joint += np.outer(*rows)
    joint /= joint.sum()

    def entropy(shares):
        return -sum(p * math.log(p) for p in shares.ravel() if p > 0)

    expected = 2 - (entropy(joint.sum(0)) + entropy(joint.sum(1))) / entropy(joint)
    assert float(unlikeness(NormalizedMI(bins), a, b)) == pytest.approx(expected, abs=1e-4)


def test_normalized_mi_does_not_mind_how_intensities_map():
    a, other = textured((64, 64)), textured((64, 64), seed=1)
    inverted = (1 - a) ** 2
    assert float(unlikeness(NormalizedMI(), inverted, a)) < float(unlikeness(NormalizedMI(), other, a)) - 0.1


def test_normalized_mi_of_a_large_image_is_that_of_its_samples():
    a, b = textured((300, 400)), textured((300, 400), seed=1)
    few = float(unlikeness(NormalizedMI(most_pixels=20_000), a, b))
    assert few == pytest.approx(float(unlikeness(NormalizedMI(most_pixels=10**7), a, b)), abs=0.01)


@pytest.mark.parametrize(("shape", "pairs"), [((12, 13), 4), ((9, 8, 10), 12)])
def test_mind_is_that_of_a_literal_loop(shape, pairs):
    image, radius, dilation = textured(shape), 1, 2
    (found,) = MindSsc(radius, dilation).describe(image)
    assert found.shape[1] == pairs
    x, ndim = image.numpy()[0, 0].astype(float), len(shape)
    neighbours = [np.eye(ndim, dtype=int)[axis] * side * dilation for axis in range(ndim) for side in (-1, 1)]
    chosen = [
        (one, other)
        for i, one in enumerate(neighbours)
        for other in neighbours[i + 1 :]
        if np.argmax(np.abs(one)) != np.argmax(np.abs(other))
    ]

    def value(at):
        return x[tuple(np.clip(at, 0, np.array(shape) - 1))]

    rows = np.zeros((pairs, *shape))
    for k, (one, other) in enumerate(chosen):
        for at in np.ndindex(shape):
            box = [
                np.array(at) + step
                for step in product(range(-radius, radius + 1), repeat=ndim)
                if all(0 <= i + s < n for i, s, n in zip(at, step, shape, strict=True))
            ]
            rows[(k, *at)] = np.mean([(value(p + one) - value(p + other)) ** 2 for p in box])
    rows -= rows.min(0)
    noise = rows.mean(0)
    noise = np.clip(noise, noise.mean() / 1e3, noise.mean() * 1e3)
    np.testing.assert_allclose(found[0].numpy(), np.exp(-rows / noise), atol=2e-3)


def test_mind_does_not_mind_inverted_contrast():
    a = textured((40, 40))
    assert float(unlikeness(MindSsc(), 1 - a, a)) == pytest.approx(0, abs=1e-4)


class TestDeepSim:
    def test_it_is_the_mean_cosine_of_the_features(self):
        extract, a, b = network(2), textured((16, 16)), textured((16, 16), seed=1)
        levels = []
        for u, v in zip(extract(a), extract(b), strict=True):
            u, v = u[0].flatten(1).T.numpy(), v[0].flatten(1).T.numpy()
            levels.append(np.mean([x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in zip(u, v, strict=True)]))
        assert float(unlikeness(DeepSim(extract), a, b)) == pytest.approx(1 - np.mean(levels), abs=1e-5)
        assert float(unlikeness(DeepSim(extract, (1,)), a, b)) == pytest.approx(1 - levels[1], abs=1e-5)

    def test_centred_features_correlate(self):
        extract, a, b = network(2), textured((16, 16)), textured((16, 16), seed=1)
        u, v = (features[0][0].flatten(1).T.numpy() for features in (extract(a), extract(b)))
        expected = np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(u, v, strict=True)])
        assert float(unlikeness(DeepSim(extract, (0,), is_centered=True), a, b)) == pytest.approx(
            1 - expected, abs=1e-4
        )

    def test_a_level_that_is_not_there_is_refused(self):
        with pytest.raises(InvalidInputError, match="2 maps"):
            DeepSim(network(2), (2,)).describe(textured((16, 16)))


OWN = DeepSim(own_channels, is_standardised=True)


class TestOwnChannels:
    @pytest.mark.parametrize("shape", [(8, 12), (4, 6, 5)])
    def test_it_is_the_cosine_of_standardised_channels(self, shape):
        rng = np.random.default_rng(0)
        a, b = (torch.tensor(rng.random((1, 4, *shape)), dtype=torch.float32) for _ in range(2))
        x, y = (image[0].reshape(4, -1).numpy() for image in (a, b))
        x, y = ((v - v.mean(1, keepdims=True)) / v.std(1, keepdims=True) for v in (x, y))
        cosines = (x * y).sum(0) / np.linalg.norm(x, axis=0) / np.linalg.norm(y, axis=0)
        assert float(unlikeness(OWN, a, b)) == pytest.approx(1 - cosines.mean(), abs=1e-4)

    def test_range_and_offset_of_channels_do_not_count(self):
        a = torch.tensor(np.random.default_rng(0).random((1, 3, 9, 9)), dtype=torch.float32)
        other = a * torch.tensor([2.0, 30.0, 0.1])[None, :, None, None] - 7
        assert float(unlikeness(OWN, a, other)) == pytest.approx(0, abs=1e-4)

    def test_masked_pixels_do_not_count(self):
        rng = np.random.default_rng(0)
        a, b, foreign = (torch.tensor(rng.random((1, 3, 8, 8)), dtype=torch.float32) for _ in range(3))
        mask = torch.ones(1, 1, 8, 8)
        mask[..., 4:] = 0
        changed = torch.where(mask > 0, a, 100 * foreign)
        assert float(unlikeness(OWN, changed, b, mask)) == pytest.approx(float(unlikeness(OWN, a, b, mask)), abs=1e-5)

    def test_constant_channels_say_nothing(self):
        assert torch.isfinite(unlikeness(OWN, torch.ones(1, 2, 5, 1), torch.zeros(1, 2, 5, 1)))


def test_options_without_sense_are_refused():
    for wrong in (
        lambda: LocalNcc(4),
        lambda: LocalNcc(1),
        lambda: LocalNcc(5, 3),
        lambda: LocalNcc(5, 0),
        lambda: NormalizedMI(2),
        lambda: MindSsc(-1),
        lambda: MindSsc(1, 0),
    ):
        with pytest.raises(InvalidInputError):
            wrong()
