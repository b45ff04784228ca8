"""Preprocessing, bit for bit beside torchvision's, and one line for every file that is not one still picture."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet_np.data import preprocess as module
from alexnet_np.data.labels import FASHION_MNIST, imagenet_categories
from alexnet_np.data.preprocess import prepare, read_image
from alexnet_np.errors import ArgumentError, DtypeError, ImageError
from alexnet_np.identity import preprocess
from alexnet_np.presets import PRESETS
from alexnet_np.study.verify import import_torchvision

CAT = Path(module.__file__).parent.parent / "assets" / "cat.jpg"
GREY_MODES = ["1", "L", "LA", "I", "F", "I;16", "I;16B"]
COLOUR_MODES = ["P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"]


@pytest.fixture(scope="module")
def torchvision():
    pytest.importorskip("torch")
    return import_torchvision()


@pytest.fixture(scope="module")
def transforms(torchvision):
    return torchvision.models.AlexNet_Weights.IMAGENET1K_V1.transforms()


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """An image of random values over the whole range of its mode."""
    rng = np.random.default_rng(seed)
    if mode in ("I", "F"):
        values = rng.integers(-300, 900, (height, width))
        return Image.fromarray(values.astype("int32" if mode == "I" else "float32"))
    if mode.startswith("I;16"):
        return Image.frombytes(mode, (width, height), rng.bytes(2 * width * height))
    if mode == "1":
        return noise(width, height, "L").point(lambda value: 255 * (value > 127), "1")
    bands = len(Image.new(mode, (1, 1)).getbands())
    image = Image.frombytes(mode, (width, height), rng.bytes(bands * width * height))
    if mode in ("P", "PA"):
        image.putpalette(rng.bytes(768))
    return image


def same_bits(x: np.ndarray, expected: np.ndarray) -> bool:
    return x.dtype == expected.dtype and x.shape == expected.shape and x.tobytes() == expected.tobytes()


def ours_and_theirs(image: Image.Image, transforms) -> tuple[np.ndarray, np.ndarray]:
    return preprocess(image, like_torchvision=True), transforms(image.convert("RGB")).numpy()


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700), seed=st.integers(0, 9))
def test_every_size_has_the_bits_of_torchvision(transforms, width, height, seed):
    if max(width, height) > 8 * min(width, height):  # thin ones have a test of their own; here they would only be slow
        width = height
    assert same_bits(*ours_and_theirs(noise(width, height, seed=seed), transforms))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 999), (256, 256), (256, 900), (255, 257), (224, 224)])
def test_extreme_sizes_have_the_bits_of_torchvision(transforms, size):
    assert same_bits(*ours_and_theirs(noise(*size), transforms))


@pytest.mark.parametrize("mode", GREY_MODES + COLOUR_MODES)
def test_every_mode_has_the_bits_of_torchvision(transforms, mode):
    assert same_bits(*ours_and_theirs(noise(301, 270, mode), transforms))


def test_transparent_palette_has_the_bits_of_torchvision(transforms):
    image = noise(60, 50, "P")
    image.info["transparency"] = 3
    assert same_bits(*ours_and_theirs(image, transforms))


def test_every_byte_value_is_normalised_as_torchvision_does(transforms):
    ramp = np.arange(256, dtype=np.uint8)
    across = np.tile(ramp, (256, 1))
    image = Image.fromarray(np.stack([across, across[:, ::-1], across.T], -1))
    x, expected = ours_and_theirs(image, transforms)
    assert len(np.unique(x[0])) == 224
    assert same_bits(x, expected)


def test_a_jpeg_with_a_rotated_exif_orientation_is_not_turned(transforms, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(90, 60).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as image:
        assert same_bits(preprocess(tmp_path / "turned.jpg"), transforms(image).numpy())


@pytest.mark.parametrize(("resize", "crop"), [(256, 300), (100, 224), (64, 63), (33, 33), (225, 224), (31, 32)])
def test_other_sizes_pad_and_crop_where_torchvision_does(transforms, resize, crop):
    theirs = type(transforms)(crop_size=crop, resize_size=resize)
    for size in (50, 81), (81, 50), (300, 277):
        x = preprocess(noise(*size), resize_size=resize, crop_size=crop)
        assert same_bits(x, theirs(noise(*size)).numpy())


def test_given_mean_and_std_replace_the_presets(transforms):
    theirs = type(transforms)(crop_size=224, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    x = preprocess(CAT, mean=(0.1, 0.2, 0.3), std=[0.4, 0.5, 0.6])
    assert same_bits(x, theirs(Image.open(CAT)).numpy())


def test_float64_is_the_formula_in_float64():
    x = preprocess(CAT, dtype="float64")
    assert x.dtype == np.float64
    pixels = module.read_pixels(CAT, PRESETS["torchvision"].preprocessing).astype(np.float64)
    expected = ((pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
    np.testing.assert_array_equal(x, expected)


def test_paper_preset_subtracts_the_mean_from_bytes():
    x = preprocess(Image.new("RGB", (400, 300), (255, 128, 0)), preset="paper")
    assert x.shape == (3, 224, 224)
    np.testing.assert_allclose(x[:, 5, 7], [255 - 123.675, 128 - 116.28, -103.53], rtol=1e-6)


def test_d2l_preset_is_torchvisions_resize_of_a_grey_image(torchvision):
    image = noise(28, 28, "L")
    resize, to_tensor = torchvision.transforms.Resize((224, 224)), torchvision.transforms.ToTensor()
    assert same_bits(preprocess(image, preset="d2l"), to_tensor(resize(image)).numpy())


def test_bgr_is_rgb_backwards_mean_and_std_included():
    rgb = PRESETS["torchvision"].preprocessing
    bgr = rgb._replace(mode="BGR", mean=rgb.mean[::-1], std=rgb.std[::-1])
    assert same_bits(prepare(CAT, bgr), np.ascontiguousarray(prepare(CAT, rgb)[::-1]))


def test_caffes_images_are_warped_to_a_square_whatever_their_shape():
    recipe = PRESETS["paper"].preprocessing._replace(mean=(0, 0, 0), warp=True)
    for width, height in (300, 200), (120, 400), (256, 256), (30, 20):
        image = noise(width, height)
        warped = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR), np.float32)
        np.testing.assert_array_equal(prepare(image, recipe), warped[16:240, 16:240].transpose(2, 0, 1))


def test_every_kind_of_source_gives_the_same_image(monkeypatch):
    data = CAT.read_bytes()
    expected = np.asarray(Image.open(CAT).convert("RGB"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with Image.open(CAT) as opened, CAT.open("rb") as file:
        for source in CAT, str(CAT), data, io.BytesIO(data), file, opened, "-":
            np.testing.assert_array_equal(np.asarray(read_image(source)), expected)
        assert not file.closed


def test_the_given_image_is_not_modified():
    image = noise(40, 30, "RGBA")
    before = image.tobytes()
    preprocess(image)
    assert (image.mode, image.size, image.tobytes()) == ("RGBA", (40, 30), before)


def write_truncated(path: Path) -> None:
    path.write_bytes(CAT.read_bytes()[:5000])


def write_gif(path: Path) -> None:
    frames = [noise(8, 8, "L", seed) for seed in range(3)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def write_tiff_of_two_pages(path: Path) -> None:
    noise(8, 8).save(path, "TIFF", save_all=True, append_images=[noise(8, 8, seed=1)])


def write_zero_sized_png(path: Path) -> None:
    data = io.BytesIO()
    noise(3, 3).save(data, "PNG")
    png = bytearray(data.getvalue())
    png[16:24] = bytes(8)  # IHDR's width and height
    path.write_bytes(png)


def write_bit_flipped_png(path: Path) -> None:
    data = io.BytesIO()
    noise(50, 50).save(data, "PNG")
    png = bytearray(data.getvalue())
    png[200] ^= 0xFF
    path.write_bytes(png)


BAD_FILES = {
    "truncated.jpg": (write_truncated, "cannot be decoded"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "an empty file"),
    "page.jpg": (lambda path: path.write_bytes(b"<html><body>404</body></html>"), "not an image"),
    "random.png": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(999)), "not an image"),
    "animated.gif": (write_gif, "animated"),
    "two-pages.tif": (write_tiff_of_two_pages, "several pages"),
    "zero.png": (write_zero_sized_png, ""),
    "flipped.png": (write_bit_flipped_png, "cannot be decoded"),
    "drawing.eps": (lambda path: noise(9, 9).save(path, "EPS"), "an EPS drawing"),
    "missing.jpg": (lambda path: None, "no such file"),
    "folder.jpg": (Path.mkdir, "a folder, not an image"),
    "line\nbreak.jpg": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line_with_its_name(tmp_path, name):
    make, reason = BAD_FILES[name]
    make(tmp_path / name)
    with pytest.raises(ImageError) as caught:
        preprocess(tmp_path / name)
    message = str(caught.value)
    assert name.replace("\n", r"\n") in message
    assert reason in message
    assert len(message.splitlines()) == 1


@pytest.mark.filterwarnings("ignore:.*Truncated File Read|.*Corrupt EXIF:UserWarning")
@pytest.mark.parametrize("kept", [0.001, 0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file_of_any_format_is_an_image_error(kind, kept):
    data = io.BytesIO()
    noise(120, 90).save(data, kind)
    with pytest.raises(ImageError):
        read_image(data.getvalue()[: int(kept * data.tell())])


def test_decompression_bombs_are_refused_as_pillow_refuses_them(tmp_path, monkeypatch):
    noise(30, 20).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.warns(Image.DecompressionBombWarning):
        assert read_image(tmp_path / "bomb.png").size == (30, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)
    with pytest.raises(ImageError, match=r"bomb.png: .*bomb"):
        read_image(tmp_path / "bomb.png")


def test_a_thin_image_that_would_grow_into_a_bomb_is_refused(tmp_path):
    noise(1, 5000).save(tmp_path / "thin.png")
    with pytest.raises(ImageError, match=r"thin.png: 1x5000 pixels, .* resized to 256: 256x1280000 pixels is more"):
        preprocess(tmp_path / "thin.png")


def test_zero_sized_pil_image_is_refused():
    with pytest.raises(ImageError, match="zero-sized, 0x5 pixels"):
        preprocess(Image.new("RGB", (0, 5)))


def test_a_mode_that_pillow_cannot_convert_is_an_image_error():
    with pytest.raises(ImageError, match="La"):
        preprocess(Image.new("La", (4, 4)))


def test_a_phone_photo_with_a_second_picture_is_read(tmp_path):
    noise(40, 30).save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[noise(20, 15)])
    with Image.open(tmp_path / "photo.jpg") as image:
        assert image.format == "MPO"
        assert image.n_frames == 2
    assert read_image(tmp_path / "photo.jpg").size == (40, 30)


def test_a_path_that_the_system_refuses_is_an_image_error(tmp_path):
    with pytest.raises(ImageError, match=r"cat.jpg.inside.jpg: Not a directory$"):
        read_image(CAT / "inside.jpg")
    with pytest.raises(ImageError, match="File name too long$"):
        read_image("a" * 5000)


def test_a_value_that_is_no_source_is_an_image_error():
    with pytest.raises(ImageError, match="this int: give an image as a path"):
        preprocess(3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"preset": "vgg"}, ArgumentError, "unknown preset 'vgg': choose one of torchvision, paper, "),
        ({"crop_size": 0}, ArgumentError, "crop_size must be a positive int, got 0"),
        ({"resize_size": 2.5}, ArgumentError, "resize_size must be a positive int, got 2.5"),
        ({"mean": (0.5,)}, ArgumentError, "must hold 3 numbers"),
        ({"std": (1, 0, 1)}, ArgumentError, "no std 0"),
        ({"dtype": "uint8"}, DtypeError, "must be float32 or float64, got 'uint8'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        preprocess(CAT, **arguments)


def test_the_labels_are_torchvisions(torchvision):
    assert imagenet_categories() == torchvision.models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(FASHION_MNIST) == 10
