import numpy as np
import pytest

from modalign.data.labelled import LabelledImage, LabelledPatches, class_values, classes_of, load_labelled
from modalign.errors import InvalidInputError, PairingError
from modalign.geometry import Grid
from modalign.image import Image, Labels
from modalign.io import write_image, write_labels


def labelled(shape=(40, 36), seed=0, labels=True):
    """An image whose intensity tells the class of each pixel."""
    rng = np.random.default_rng(seed)
    classes = np.kron(rng.integers(0, 3, tuple(-(-n // 4) for n in shape)), np.ones((4,) * len(shape), int))
    classes = classes[tuple(slice(n) for n in shape)]
    grid = Grid(shape)
    data = (100 * classes).astype(np.float32)[None]
    return LabelledImage(f"{seed}", Image(data, grid), Labels(classes, grid) if labels else None)


def written(folder, one):
    (folder / "images").mkdir(exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    write_image(folder / "images" / f"{one.name}.tif", one.image.with_data(one.image.data.astype(np.uint8)))
    write_labels(folder / "labels" / f"{one.name}.png", Labels(one.labels.data.astype(np.uint8), one.labels.grid))


class TestLoading:
    def test_labels_go_with_the_images_of_their_names(self, tmp_path):
        for seed in (1, 2):
            written(tmp_path, labelled(seed=seed))
        found = load_labelled(tmp_path / "images", tmp_path / "labels")
        assert [one.name for one in found] == ["1", "2"]
        for one in found:
            np.testing.assert_array_equal(one.image.data[0], 100 * one.labels.data)

    def test_all_that_is_wrong_is_told_at_once(self, tmp_path):
        for seed in (1, 2, 3):
            written(tmp_path, labelled(seed=seed))
        (tmp_path / "labels" / "1.png").unlink()
        write_labels(tmp_path / "labels" / "2.png", Labels(np.ones((5, 6), np.uint8), Grid((5, 6))))
        with pytest.raises(
            PairingError, match=r"one image has no labels in .*: 1\.tif; .*labels of '2' have the size \(5, 6\)"
        ):
            load_labelled(tmp_path / "images", tmp_path / "labels")

    def test_empty_folders_and_constant_images(self, tmp_path):
        (tmp_path / "images").mkdir()
        with pytest.raises(PairingError, match="no image file"):
            load_labelled(tmp_path / "images")
        with pytest.raises(PairingError, match="no such folder"):
            load_labelled(tmp_path / "nowhere")
        write_image(tmp_path / "images" / "flat.png", Image(np.full((1, 20, 20), 7, np.uint8), Grid((20, 20))))
        with pytest.raises(PairingError, match="constant"):
            load_labelled(tmp_path / "images")

    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            (np.full((20, 20), np.nan), "no pixel holds a number"),
            (np.where(np.eye(20) > 0, np.nan, 3.0), "constant"),
            (np.arange(100.0).reshape(4, 25), "4 × 25 pixels are too few"),
        ],
    )
    def test_images_that_teach_nothing(self, tmp_path, data, complaint):
        write_image(tmp_path / "a.tif", Image(data[None].astype(np.float32), Grid(data.shape)))
        with pytest.raises(PairingError, match=complaint):
            load_labelled(tmp_path)

    def test_pixels_that_are_no_numbers_are_not_valid(self, tmp_path):
        data = np.random.default_rng(0).random((20, 24)).astype(np.float32)
        data[3, 4] = np.nan
        write_image(tmp_path / "a.tif", Image(data[None], Grid(data.shape)))
        (found,) = load_labelled(tmp_path)
        np.testing.assert_array_equal(found.image.valid, np.isfinite(data))

    def test_labels_below_0_are_refused(self, tmp_path):
        one = labelled(seed=1)
        written(tmp_path, one)
        (tmp_path / "labels" / "1.png").unlink()
        write_labels(tmp_path / "labels" / "1.tif", Labels(one.labels.data.astype(np.int16) - 1, one.labels.grid))
        with pytest.raises(PairingError, match="the least is -1"):
            load_labelled(tmp_path / "images", tmp_path / "labels")

    def test_of_many_files_without_labels_the_first_are_named(self, tmp_path):
        for seed in range(7):
            written(tmp_path, labelled(seed=seed))
            if seed:
                (tmp_path / "labels" / f"{seed}.png").unlink()
        with pytest.raises(PairingError, match=r"6 images have no labels in .*: 1\.tif, .*4\.tif and 2 more\."):
            load_labelled(tmp_path / "images", tmp_path / "labels")


class TestClasses:
    def test_labels_of_any_numbers_become_classes(self):
        labels = Labels(np.array([[0, 7, 90], [7, 90, 3]]), Grid((2, 3)))
        np.testing.assert_array_equal(classes_of(labels, "classes", (0, 7, 90)), [[0, 1, 2], [1, 2, 0]])

    def test_instances_are_inside_and_outline(self):
        data = np.zeros((7, 8), int)
        data[1:6, 1:4], data[1:6, 4:7] = 5, 9
        found = classes_of(Labels(data, Grid((7, 8))), "instances")
        expected = np.where(data > 0, 2, 0)
        expected[2:5, 2], expected[2:5, 5] = 1, 1
        np.testing.assert_array_equal(found, expected)

    def test_background_is_a_class_also_where_there_is_none(self):
        one = labelled()
        full = LabelledImage("f", one.image, Labels(one.labels.data + 1, one.image.grid))
        assert class_values([full], "classes") == (0, 1, 2, 3)

    def test_empty_labels_are_refused(self):
        empty = labelled()
        empty = LabelledImage("e", empty.image, Labels(np.zeros((40, 36), int), empty.image.grid))
        for kind in ("classes", "instances"):
            with pytest.raises(InvalidInputError, match=r"nothing but \[0\]"):
                class_values([empty], kind)

    def test_numbered_objects_are_no_classes(self):
        many = Labels(np.arange(400).reshape(20, 20), Grid((20, 20)))
        image = Image(np.random.default_rng(0).random((1, 20, 20)).astype(np.float32), many.grid)
        with pytest.raises(InvalidInputError, match=r"400 different labels.*instances"):
            class_values([LabelledImage("m", image, many)], "classes")
        assert class_values([LabelledImage("m", image, many)], "instances") == (0, 1, 2)


@pytest.mark.parametrize("shape", [(40, 36), (20, 18, 24)], ids=["2D", "3D"])
class TestPatches:
    def test_intensities_and_classes_stay_together(self, shape):
        patches = LabelledPatches.of([labelled(shape, seed) for seed in range(2)], "classes", (0, 1, 2))
        unit, classes, valid = patches.draw(12, 12, np.random.default_rng(0))
        assert unit.shape == (12, 1, *(12,) * len(shape))
        assert (valid == 1).all()
        exact = np.abs(2 * unit[:, 0] - classes) < 1e-4
        assert exact.mean() > 0.6  # all at full resolution, and all but the borders of the classes at the others
        assert (np.abs(2 * unit[:, 0] - classes) < 1.5).mean() > 0.99

    def test_the_same_generator_draws_the_same(self, shape):
        patches = LabelledPatches.of([labelled(shape)], "classes", (0, 1, 2))
        one, other = (patches.draw(3, 8, np.random.default_rng(4))[0] for _ in range(2))
        np.testing.assert_array_equal(one, other)

    def test_images_smaller_than_a_patch_go_on_by_reflection(self, shape):
        patches = LabelledPatches.of([labelled(tuple(n // 4 for n in shape))], "classes", (0, 1, 2))
        unit, classes, _ = patches.draw(4, 32, np.random.default_rng(0))
        np.testing.assert_allclose(2 * unit[:, 0], classes, atol=1e-4)

    def test_shares_of_the_classes(self, shape):
        one = labelled(shape)
        shares = LabelledPatches.of([one], "classes", (0, 1, 2)).shares(3)
        np.testing.assert_allclose(shares, np.bincount(one.labels.data.ravel()) / one.labels.data.size)
