"""Augmentation: torchvision's crops and resizes, the paper's noise, and the seed alone deciding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet_np.data import draws
from alexnet_np.data.augment import IMAGENET_COLOUR, CenterCrop, ColourNoise, RandomCrop, TenCrop, Upsample, upsample
from alexnet_np.data.dataset import ArrayDataset
from alexnet_np.errors import ShapeError
from alexnet_np.presets import PRESETS
from alexnet_np.study.verify import import_torchvision

BYTES = PRESETS["paper"].preprocessing._replace(mean=(0, 0, 0))  # leaves the pixels as they are
rng = np.random.default_rng(0)
PHOTO = rng.integers(0, 256, (256, 270, 3), dtype=np.uint8)


def applied(augment, pixels=PHOTO, u=None) -> np.ndarray:
    out = np.full(augment.shape, np.nan, np.float32)
    augment(pixels, np.zeros(augment.draws) if u is None else np.asarray(u, float), out)
    return out


def crop_at(top: int, left: int) -> np.ndarray:
    return PHOTO[top : top + 224, left : left + 224].transpose(2, 0, 1).astype(np.float32)


def test_the_corners_of_the_random_crop():
    augment = RandomCrop(BYTES, mirror=False)
    np.testing.assert_array_equal(applied(augment), crop_at(0, 0))
    np.testing.assert_array_equal(applied(augment, u=[1 - 2**-32] * 7), crop_at(32, 46))
    np.testing.assert_array_equal(applied(augment, u=[0.5, 0.25, 0, 0, 0, 0, 0]), crop_at(16, 11))


def test_the_mirror_is_a_coin():
    augment = RandomCrop(BYTES)
    np.testing.assert_array_equal(applied(augment, u=[0, 0, 0.49, 0, 0, 0, 0]), crop_at(0, 0)[..., ::-1])
    np.testing.assert_array_equal(applied(augment, u=[0, 0, 0.50, 0, 0, 0, 0]), crop_at(0, 0))


@pytest.mark.parametrize("preset", ["torchvision", "paper"])
def test_colour_noise_shifts_the_pixels_before_they_are_normalised(preset):
    recipe, u = PRESETS[preset].preprocessing, rng.random(7)
    shifted = applied(RandomCrop(recipe, colour=IMAGENET_COLOUR), u=u) - applied(RandomCrop(recipe), u=u)
    in_units_of_one = shifted * np.array(recipe.std)[:, None, None] * (recipe.scale / 255)
    expected = np.broadcast_to(IMAGENET_COLOUR.shift(u[3:])[:, None, None], shifted.shape)
    np.testing.assert_allclose(in_units_of_one, expected, atol=1e-6)


def test_colour_noise_has_the_covariance_it_says():
    shifts = np.array([IMAGENET_COLOUR.shift(u) for u in np.random.default_rng(1).random((40_000, 4))])
    vectors, values = IMAGENET_COLOUR.eigenvectors, np.array(IMAGENET_COLOUR.eigenvalues)
    np.testing.assert_allclose(shifts.mean(0), 0, atol=5e-4)
    np.testing.assert_allclose(np.cov(shifts.T), vectors @ np.diag((0.1 * values) ** 2) @ vectors.T, atol=1e-5)


def test_imagenets_components_are_orthonormal():
    np.testing.assert_allclose(IMAGENET_COLOUR.eigenvectors.T @ IMAGENET_COLOUR.eigenvectors, np.eye(3), atol=2e-4)


def test_components_of_a_data_set_are_those_of_its_pixels():
    basis, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    deviations = np.array([40, 20, 5])
    pixels = 128 + (rng.normal(size=(6 * 50 * 50, 3)) * deviations) @ basis.T
    images = pixels.clip(0, 255).astype(np.uint8).reshape(6, 50, 50, 3)
    noise = ColourNoise.of(ArrayDataset(images, np.zeros(6, int), ["one"]), images=6)
    variances = np.linalg.eigvalsh(np.cov(images.reshape(-1, 3).T / 255))[::-1]
    np.testing.assert_allclose(noise.eigenvalues, np.sqrt(variances), rtol=1e-3)
    np.testing.assert_allclose(noise.eigenvalues, deviations / 255, rtol=0.05)
    np.testing.assert_allclose(np.abs(noise.eigenvectors.T @ basis), np.eye(3), atol=0.05)


def test_a_data_set_of_one_colour_gives_no_noise():
    dataset = ArrayDataset(np.full((2, 9, 9, 3), 77, np.uint8), np.zeros(2, int), ["one"])
    assert np.abs(ColourNoise.of(dataset).shift(rng.random(4))).max() < 1e-6


@pytest.fixture(scope="module")
def transforms():
    pytest.importorskip("torch")
    return import_torchvision().transforms


def test_ten_crop_and_center_crop_are_torchvisions(transforms):
    crops = transforms.functional.ten_crop(Image.fromarray(PHOTO), 224)
    expected = np.stack([np.asarray(crop).transpose(2, 0, 1) for crop in crops]).astype(np.float32)
    np.testing.assert_array_equal(applied(TenCrop(BYTES)), expected)
    np.testing.assert_array_equal(applied(CenterCrop(BYTES)), expected[4])


@pytest.mark.parametrize("augment", [CenterCrop(BYTES), RandomCrop(BYTES), TenCrop(BYTES)])
def test_an_image_smaller_than_the_crop_is_refused(augment):
    with pytest.raises(ShapeError, match="a crop of 224x224 does not fit into an image of 223x256"):
        applied(augment, np.zeros((223, 256, 3), np.uint8))


@settings(max_examples=40, deadline=None)
@given(side=st.integers(1, 40), factor=st.integers(1, 9), C=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_upsampling_has_the_integers_of_pillow(side, factor, C, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, C), dtype=np.uint8)
    image = Image.fromarray(pixels[..., 0] if C == 1 else pixels)
    expected = np.asarray(image.resize((side * factor, side * factor), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(upsample(pixels, side * factor).squeeze(), expected.squeeze())


@pytest.mark.parametrize("shape", [(28, 28), (28, 30), (30, 28), (300, 300)])
def test_upsampling_of_any_shape_is_torchvisions_resize(transforms, shape):
    pixels = rng.integers(0, 256, (*shape, 1), dtype=np.uint8)
    theirs = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])
    x = applied(Upsample(PRESETS["d2l"].preprocessing), pixels)
    np.testing.assert_array_equal(x, theirs(Image.fromarray(pixels[..., 0])).numpy())


def test_upsample_mirrors_on_request():
    pixels = rng.integers(0, 256, (28, 28, 1), dtype=np.uint8)
    augment = Upsample(PRESETS["d2l"].preprocessing, mirror=True)
    np.testing.assert_array_equal(applied(augment, pixels, [0.1]), applied(augment, pixels, [0.9])[..., ::-1])
    assert not np.array_equal(applied(augment, pixels, [0.1]), applied(augment, pixels, [0.9]))


def test_draws_depend_on_every_argument_and_on_nothing_else():
    base = draws.words(1, draws.AUGMENT, 2, [3, 4], 7)
    assert base.shape == (2, 7)
    np.testing.assert_array_equal(draws.words(1, draws.AUGMENT, 2, [4], 7)[0], base[1])
    np.testing.assert_array_equal(draws.words(1, draws.AUGMENT, 2, [3], 2)[0], base[0, :2])
    for other in ((9, draws.AUGMENT, 2), (1, draws.SHUFFLE, 2), (1, draws.AUGMENT, 9), (1 + 2**32, draws.AUGMENT, 2)):
        assert not np.isin(draws.words(*other, [3, 4], 7), base).any()


def test_draws_are_uniform():
    u = draws.uniforms(0, draws.AUGMENT, 0, np.arange(5000), 7)
    assert 0 <= u.min() < u.max() < 1
    counts, _ = np.histogram(u, 50, (0, 1))
    assert np.abs(counts - 700).max() < 5 * np.sqrt(700)
    assert np.abs(np.corrcoef(u.T) - np.eye(7)).max() < 0.06


def test_permutations_are_permutations_and_differ_by_epoch():
    orders = [draws.permutation(0, draws.SHUFFLE, epoch, 500) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
    assert (orders[0] == orders[1]).mean() < 0.02
    assert (orders[1] == orders[2]).mean() < 0.02
