import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.data.intensity import IntensityScaling
from modalign.data.pairs import Pair
from modalign.errors import ModelError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.representation import ComirModel, Encoder, Identity


def test_encoders_keep_the_grid(untrained: ComirModel, pairs: list[Pair]) -> None:
    image = pairs[0].fixed.with_grid(Grid(pairs[0].fixed.grid.shape, (0.5, 0.7), (3.0, 4.0), unit="micrometer"))
    for encoder in (untrained.encoder("fixed"), Identity()):
        assert isinstance(encoder, Encoder)
        encoded = encoder.encode(image)
        assert encoded.grid == image.grid
        assert encoded.data.dtype == np.float32


def test_inputs_are_untouched(untrained: ComirModel, pairs: list[Pair]) -> None:
    before = pairs[0].fixed.data.copy()
    untrained.encoder("fixed").encode(pairs[0].fixed)
    np.testing.assert_array_equal(pairs[0].fixed.data, before)


def test_saved_and_loaded_model_encodes_the_same(untrained: ComirModel, pairs: list[Pair], tmp_path: Path) -> None:
    untrained.save(tmp_path / "model")
    loaded = ComirModel.load(tmp_path / "model")
    assert loaded.card == untrained.card
    for side, image in (("fixed", pairs[0].fixed), ("moving", pairs[0].moving)):
        one, other = (model.encoder(side).encode(image).data for model in (untrained, loaded))  # type: ignore[arg-type]
        np.testing.assert_array_equal(one, other)


def test_model_folder_holds_no_pickle(untrained: ComirModel, tmp_path: Path) -> None:
    untrained.save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "fixed.safetensors",
        "model.json",
        "moving.safetensors",
    ]
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    assert card["version"] == 1
    assert card["modalities"]["fixed"]["channels"] == ["red", "green", "blue"]


def test_pixel_size_of_the_model_is_used(untrained: ComirModel, make_pair: Callable[..., Pair]) -> None:
    """An image with pixels twice as fine must look to the network as the coarse one did in training."""
    card = replace(untrained.card, pixel_size=(1.0, 1.0), unit="micrometer")
    encoder = ComirModel(card, untrained.networks).encoder("fixed")
    coarse = make_pair(7, (60, 64)).fixed.with_grid(Grid((60, 64), unit="micrometer"))
    doubled = np.kron(coarse.data, np.ones((1, 2, 2), dtype=np.uint8))
    fine = Image(doubled, Grid((120, 128), (0.5, 0.5), (-0.25, -0.25), unit="micrometer"), coarse.channels)
    expected = np.kron(encoder.encode(coarse).data, np.ones((1, 2, 2), dtype=np.float32))
    found = encoder.encode(fine)
    assert found.grid == fine.grid
    assert np.corrcoef(found.data[0].ravel(), expected[0].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("broken", ["missing card", "missing weights", "truncated weights", "no json", "newer", "half"])
def test_damaged_model_folder_is_one_clear_error(untrained: ComirModel, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "model"
    untrained.save(folder)
    card, weights = folder / "model.json", folder / "moving.safetensors"
    saved = json.loads(card.read_text())
    match broken:
        case "missing card":
            card.unlink()
        case "missing weights":
            weights.unlink()
        case "truncated weights":
            weights.write_bytes(weights.read_bytes()[:500])
        case "no json":
            card.write_text("hello")
        case "newer":
            card.write_text(json.dumps({**saved, "version": 99}))
        case "half":
            del saved["modalities"]
            card.write_text(json.dumps(saved))
    with pytest.raises(ModelError, match="model") as caught:
        ComirModel.load(folder)
    assert str(folder) in str(caught.value)


def test_weights_of_another_network_are_refused(untrained: ComirModel, tmp_path: Path) -> None:
    untrained.save(tmp_path / "model")
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    card["modalities"]["fixed"]["network"]["configuration"]["widths"] = [4, 6, 10]
    (tmp_path / "model" / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="do not fit the network"):
        ComirModel.load(tmp_path / "model")


def test_wrong_channels_are_named_and_a_swap_is_noticed(untrained: ComirModel, pairs: list[Pair]) -> None:
    with pytest.raises(ModelError, match=r"takes images with 3 channels \(red, green, blue\).*swapped\?"):
        untrained.encoder("fixed").encode(pairs[0].moving)


def test_foreign_intensities_are_refused(untrained: ComirModel, pairs: list[Pair]) -> None:
    scaled = pairs[0].fixed.with_data((pairs[0].fixed.data / 255).astype(np.float32), pairs[0].fixed.channels)
    with pytest.raises(
        ModelError, match="almost no contrast in the range of intensities \\(0 to 255\\) of the colour images"
    ):
        untrained.encoder("fixed").encode(scaled)


def test_a_swap_is_noticed_where_both_sides_have_the_same_channels(
    untrained: ComirModel, pairs: list[Pair], make_pair: Callable[..., Pair]
) -> None:
    dark, bright = (
        np.clip(p.fixed.data[:1] // 4 + shift, 0, 255).astype(np.uint8)
        for p, shift in zip(pairs[:2], (0, 190), strict=True)
    )
    images = [Image(data, pairs[0].fixed.grid) for data in (dark, bright)]
    modalities = [
        replace(untrained.card.moving, name=n, scaling=IntensityScaling.fit([i]))
        for n, i in zip("ab", images, strict=True)
    ]
    model = ComirModel.untrained(replace(untrained.card, fixed=modalities[0], moving=modalities[1]))
    model.encoder("fixed").encode(images[0])
    with pytest.raises(ModelError, match=r"looks like b.*swapped\?"):
        model.encoder("fixed").encode(images[1])


def test_transparency_is_not_a_channel(untrained: ComirModel, pairs: list[Pair]) -> None:
    fixed = pairs[0].fixed
    alpha = np.full((1, *fixed.grid.shape), 255, dtype=np.uint8)
    rgba = Image(np.concatenate([fixed.data, alpha]), fixed.grid, (*fixed.channels, "alpha"))
    encoder = untrained.encoder("fixed")
    np.testing.assert_array_equal(encoder.encode(rgba).data, encoder.encode(fixed).data)


def test_values_that_are_not_finite_are_masked(untrained: ComirModel, pairs: list[Pair]) -> None:
    data = pairs[0].moving.data.astype(np.float32)
    data[0, 3, 4] = np.nan
    encoded = untrained.encoder("moving").encode(pairs[0].moving.with_data(data))
    assert np.isfinite(encoded.data).all()
    assert np.argwhere(~encoded.valid).tolist() == [[3, 4]]


def test_other_dimensions_are_refused(untrained: ComirModel) -> None:
    volume = Image(np.zeros((1, 4, 5, 6), dtype=np.uint8), Grid((4, 5, 6)))
    with pytest.raises(ModelError, match="2D images; this one is 3D"):
        untrained.encoder("moving").encode(volume)


def test_threads_do_not_change_the_result(untrained: ComirModel, pairs: list[Pair]) -> None:
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(untrained.encoder("fixed").encode(pairs[0].fixed).data)
    torch.set_num_threads(threads)
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)
