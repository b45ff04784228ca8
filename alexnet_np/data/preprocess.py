"""From an image file to the array a network takes: decode, resize, crop the centre, normalise.

    x[c] = (pixels[c] / scale - mean[c]) / std[c]

`PREPROCESSING` says what each preset was trained on. "torchvision" gives, to the last bit, the numbers of
`AlexNet_Weights.IMAGENET1K_V1.transforms()`: the same Pillow calls, then the same float32 operations in the same order.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexnet_np.errors import ArgumentError, DtypeError, ImageError, one_line

ImageSource = str | os.PathLike | bytes | IO[bytes] | Image.Image


class Preprocessing(NamedTuple):
    """How one preset turns an image into its input."""

    resize: int  # the shorter side, in pixels
    crop: int  # the side of the central square
    mode: str  # "RGB", or "L" for grey
    scale: float  # what the bytes 0..255 are divided by
    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1

PREPROCESSING = {
    "torchvision": Preprocessing(256, 224, "RGB", 255, IMAGENET_MEAN, (0.229, 0.224, 0.225)),
    # Krizhevsky et al. 2012, sec. 2 and 4.1: shorter side 256, 224 crops, raw RGB minus the training set's mean
    "paper": Preprocessing(256, 224, "RGB", 1, tuple(255 * m for m in IMAGENET_MEAN), (1, 1, 1)),
    # Dive into Deep Learning, sec. 8.1.2: Fashion-MNIST in 0..1 resized to 224
    "d2l": Preprocessing(224, 224, "L", 255, (0,), (1,)),
}

# Formats whose further "frames" are previews or layers of one still picture, not time.
STILL_FORMATS = {"MPO", "PSD"}


def preprocess(
    image: ImageSource,
    *,
    preset: str = "torchvision",
    resize_size: int | None = None,
    crop_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: Any = "float32",
) -> np.ndarray:
    """One image as a network's input: (3,224,224) for "torchvision" and "paper", (1,224,224) for "d2l".

    `image`: a path, "-" for standard input, bytes, a binary file, or a PIL image of any mode. Its shorter side is
    resized to `resize_size` (bilinear, antialiased), the central square of `crop_size` cut out (black where the image
    is smaller), and that normalised by `mean` and `std`, in units of the scaled pixels (0..1; 0..255 for "paper"). What
    is None is the preset's. `dtype`: float32 or float64.
    The traps: the EXIF orientation is not applied, because torchvision does not apply it (call
    `PIL.ImageOps.exif_transpose` first for an upright picture); 16-bit grey is clipped at 255, as Pillow converts it.
    Raises ImageError, also for sides of more than about 1:1365, which the resize would grow beyond Pillow's guard;
    ArgumentError for a preset or a number out of range; DtypeError.
    Source: torchvision, `transforms/_presets.py`, class ImageClassification.
    """
    recipe = find_recipe(preset, resize_size, crop_size, mean, std)
    return normalise(read_pixels(image, recipe), recipe, np.empty(input_shape(recipe), float_dtype(dtype)))


def find_recipe(
    preset: str,
    resize_size: int | None = None,
    crop_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """The preset's row of `PREPROCESSING` with whatever is given here in place of its own, checked."""
    if preset not in PREPROCESSING:
        raise ArgumentError(f"unknown preprocessing {preset!r}: choose one of {', '.join(PREPROCESSING)}")
    given: dict[str, Any] = {
        "resize": resize_size,
        "crop": crop_size,
        "mean": mean if mean is None else tuple(mean),
        "std": std if std is None else tuple(std),
    }
    recipe = PREPROCESSING[preset]._replace(**{name: value for name, value in given.items() if value is not None})
    positive("resize_size", recipe.resize)
    positive("crop_size", recipe.crop)
    channels = len(recipe.mode)
    if len(recipe.mean) != channels or len(recipe.std) != channels or 0 in recipe.std:
        raise ArgumentError(f"mean and std must hold {channels} numbers, no std 0, got {recipe.mean} and {recipe.std}")
    return recipe


def positive(name: str, value: int) -> int:
    """`value` if it is a positive int."""
    if not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{name} must be a positive int, got {value!r}")
    return value


def float_dtype(dtype: Any) -> np.dtype:
    """`dtype` if it is float32 or float64."""
    if dtype not in ("float32", "float64", np.float32, np.float64):
        raise DtypeError(f"dtype must be float32 or float64, got {dtype!r}")
    return np.dtype(dtype)


def input_shape(recipe: Preprocessing) -> tuple[int, int, int]:
    """(C,H,W) of a network's input."""
    return len(recipe.mode), recipe.crop, recipe.crop


def read_pixels(source: ImageSource, recipe: Preprocessing) -> np.ndarray:
    """The image resized and cropped: uint8 (H,W,C), before normalising."""
    image = center_crop(resize_shorter(read_image(source), recipe.resize, source_name(source)), recipe.crop)
    if recipe.mode != "RGB":
        image = image.convert(recipe.mode)
    return np.asarray(image).reshape(recipe.crop, recipe.crop, len(recipe.mode))


def normalise(pixels: np.ndarray, recipe: Preprocessing, out: np.ndarray) -> np.ndarray:
    """uint8 (...,H,W,C) -> float (...,C,H,W), written into `out`."""
    np.divide(np.moveaxis(pixels, -1, -3), out.dtype.type(recipe.scale), out=out)
    if any(recipe.mean):
        out -= np.array(recipe.mean, out.dtype)[:, None, None]
    if set(recipe.std) != {1}:
        out /= np.array(recipe.std, out.dtype)[:, None, None]
    return out


def read_image(source: ImageSource) -> Image.Image:
    """Decode a path, "-" (standard input), bytes, a binary file or a PIL image to an RGB PIL image.

    Raises ImageError, with the file's name, for what is missing, a folder, empty, truncated, not an image, animated, or
    larger than `PIL.Image.MAX_IMAGE_PIXELS`, Pillow's guard against decompression bombs, where Pillow only warns.
    """
    name = source_name(source)
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source, name)
        with _binary_file(source, name) as file, Image.open(file) as image:
            _refuse_unreadable(image, name)
            return _to_rgb(image, name)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: a folder, not an image; name its files, or list them with find_images") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image, or of a format that Pillow does not know") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        of_the_system = isinstance(error, OSError) and error.strerror
        raise ImageError(f"{name}: {of_the_system or f'cannot be decoded: {one_line(error)}'}") from error


def source_name(source: ImageSource) -> str:
    """What to call `source` in a message: always one printable line."""
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or f"this {type(source).__name__} image"
    elif isinstance(source, bytes):
        name = f"these {len(source)} bytes"
    elif isinstance(source, str | os.PathLike):
        name = "standard input" if source == "-" else source
    else:
        name = getattr(source, "name", None) or f"this {type(source).__name__}"
    name = str(name)
    return name if name.isprintable() else ascii(name)


@contextmanager
def _binary_file(source: Any, name: str) -> Iterator[IO[bytes]]:
    """`source` opened for reading; only what was opened here is closed."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str) and source == "-":
        yield io.BytesIO(sys.stdin.buffer.read())
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            if not file.peek(1):
                raise ImageError(f"{name}: an empty file")
            yield file
    elif hasattr(source, "read"):
        yield source
    else:
        raise ImageError(f"{name}: give an image as a path, bytes, a binary file or a PIL image")


def _refuse_unreadable(image: Image.Image, name: str) -> None:
    if image.format == "EPS":  # Pillow would start Ghostscript on it
        raise ImageError(f"{name}: an EPS drawing, not a picture; save it as PNG first")
    if getattr(image, "is_animated", False) and image.format not in STILL_FORMATS:
        raise ImageError(f"{name}: animated or of several pages ({image.format}); save the one you mean by itself")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    _refuse_size(image.size, name)
    return image.convert("RGB")


def _refuse_size(size: tuple[int, int], name: str) -> None:
    if min(size) < 1:
        raise ImageError(f"{name}: zero-sized, {size[0]}x{size[1]} pixels")
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{name}: {size[0]}x{size[1]} pixels is more than PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS}; "
            "a decompression bomb, or raise that number"
        )


def resize_shorter(image: Image.Image, size: int, name: str) -> Image.Image:
    """Resize so that the shorter side is `size` and the longer one int(size * longer / shorter), as torchvision rounds.

    Raises ImageError, calling the image `name`, where a very long one would grow beyond Pillow's guard.
    """
    shorter, longer = min(image.size), max(image.size)
    resized = (size, int(size * longer / shorter))
    if image.width > image.height:
        resized = resized[::-1]
    _refuse_size(resized, f"{name}: {image.width}x{image.height} pixels, with its shorter side resized to {size}")
    return image if image.size == resized else image.resize(resized, Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The central `size` square, black where the image does not reach, placed as torchvision places it."""
    left, top = (crop_start(side, size) for side in image.size)
    return image.crop((left, top, left + size, top + size))


def crop_start(side: int, size: int) -> int:
    """Where the central `size` of `side` pixels begins; negative where it reaches beyond."""
    if side < size:
        return -((size - side) // 2)
    return round((side - size) / 2)  # half to even
