"""From an image file to the array a network takes: decode, resize, crop the centre, normalise.

    x[c] = (pixels[c] / scale - mean[c]) / std[c]

With torchvision's recipe these are, to the last bit, the numbers of `AlexNet_Weights.IMAGENET1K_V1.transforms()`: the
same Pillow calls, then the same float32 operations in the same order.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexnet_np import device
from alexnet_np.data import resize
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import ImageError, one_line

ImageSource = str | os.PathLike | bytes | IO[bytes] | Image.Image

# Formats whose further "frames" are previews or layers of one still picture, not time.
STILL_FORMATS = {"MPO", "PSD"}


class ImageWarning(UserWarning):
    """What whoever reads a picture should know of how it was read."""


def prepare(image: ImageSource, recipe: Preprocessing, dtype: Any = "float32") -> np.ndarray:
    """One image as the input of a network: (C,H,W) of `dtype`, float32 or float64.

    `image`: a path, "-" for standard input, bytes, a binary file, or a PIL image of any mode. It is resized (bilinear,
    antialiased), the central square cut out (black where the image is smaller), and that normalised.
    Raises ImageError, also for sides of more than about 1:1365, which the resize would grow beyond Pillow's guard;
    DtypeError.
    """
    return normalise(read_pixels(image, recipe), recipe, np.empty(recipe.shape, float_dtype(dtype)))


def float_dtype(dtype: Any) -> np.dtype:
    """`dtype` if it is float32 or float64."""
    return device.float_dtype("images", dtype)


def read_pixels(source: ImageSource, recipe: Preprocessing) -> np.ndarray:
    """The image resized and cropped, before normalising: uint8 (H,W,C), in RGB whatever the input's order."""
    image, name = read_image(source, recipe.like_torchvision), source_name(source)
    image = (warp if recipe.warp else resize_shorter)(image, recipe.resize, name, recipe.resizing)
    if recipe.jpeg:  # of the whole square, as it was stored
        image = stored_as_jpeg(center_crop(image, recipe.resize), recipe.jpeg)
    image = center_crop(image, recipe.crop)
    if recipe.mode == "L":
        image = image.convert("L")
    return np.asarray(image).reshape(recipe.crop, recipe.crop, recipe.channels)


def normalise(
    pixels: np.ndarray,
    recipe: Preprocessing,
    out: np.ndarray,
    place: tuple[int, int] | None = None,
    mirrored: bool = False,
) -> np.ndarray:
    """uint8 (...,H,W,C) in RGB, or grey -> float (...,C,H,W), written into `out`.

    `place`, `mirrored`: from where (top, left) the pixels were cut out, if not from the centre, and whether they were
    turned round then; a mean image is cut alike.
    """
    if recipe.mode == "BGR":
        pixels = pixels[..., ::-1]
    np.divide(np.moveaxis(pixels, -1, -3), out.dtype.type(recipe.scale), out=out)
    if recipe.mean_image is not None:
        kind = (recipe.order, recipe.scale, out.dtype)
        out -= recipe.mean_image.below((out.shape[-2], out.shape[-1]), place, mirrored, kind)
    elif any(recipe.mean):
        out -= np.array(recipe.mean, out.dtype)[:, None, None]
    if set(recipe.std) != {1}:
        out /= np.array(recipe.std, out.dtype)[:, None, None]
    return out


def read_image(source: ImageSource, like_torchvision: bool = False) -> Image.Image:
    """Decode a path, "-" (standard input), bytes, a binary file or a PIL image to an RGB PIL image.

    Raises ImageError, with the file's name, for what is missing, a folder, empty, truncated, not an image, animated, or
    larger than twice `PIL.Image.MAX_IMAGE_PIXELS`, Pillow's guard against decompression bombs; from once, Pillow warns.
    16-bit grey is scaled to 8, with an ImageWarning, or clipped `like_torchvision`.
    """
    name = source_name(source)
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source, name, like_torchvision)
        with _binary_file(source, name) as file, Image.open(file) as image:
            _refuse_unreadable(image, name)
            return _to_rgb(image, name, like_torchvision)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: a folder, not an image; name its files, or list them with find_images") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {one_line(error)}; or raise PIL.Image.MAX_IMAGE_PIXELS (--max-pixels)") from None
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


def _to_rgb(image: Image.Image, name: str, like_torchvision: bool) -> Image.Image:
    _refuse_size(image.size, name)
    if image.mode.startswith("I") and not like_torchvision:
        image = _eight_bits(image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8: 65535 becomes 255. What never exceeds 255 is left as it is."""
    pixels = np.asarray(image)
    if pixels.size == 0 or pixels.max() <= 255:
        return image
    warnings.warn(
        "pictures of 16 bits are scaled to 8; torchvision clips them at 255, mostly to white (--like-torchvision)",
        ImageWarning,
        stacklevel=2,
    )
    return Image.fromarray(np.clip((pixels.astype(np.int64) + 128) // 257, 0, 255).astype(np.uint8))


def check_image(source: str) -> ImageError | None:
    """Why an image file cannot be read to its last pixel; None where it can. JPEGs are decoded at an eighth."""
    try:
        with _binary_file(source, source_name(source)) as file, Image.open(file) as image:
            _refuse_unreadable(image, source_name(source))
            _refuse_size(image.size, source_name(source))
            image.draft(None, (1, 1))
            image.load()
    except ImageError as error:
        return error
    except Exception:  # read_image finds the words
        try:
            read_image(source)
        except ImageError as error:
            return error
    return None


def _refuse_size(size: tuple[int, int], name: str) -> None:
    if min(size) < 1:
        raise ImageError(f"{name}: zero-sized, {size[0]}x{size[1]} pixels")
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > 2 * Image.MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{name}: {size[0]}x{size[1]} pixels is more than twice PIL.Image.MAX_IMAGE_PIXELS = "
            f"{Image.MAX_IMAGE_PIXELS}; a decompression bomb, or raise that number (--max-pixels)"
        )


def resize_shorter(image: Image.Image, size: int, name: str, way: str = "bilinear") -> Image.Image:
    """Resize so that the shorter side is `size` and the longer one int(size * longer / shorter), as torchvision rounds.

    Raises ImageError, calling the image `name`, where a very long one would grow beyond Pillow's guard.
    """
    shorter, longer = min(image.size), max(image.size)
    rounded = round if way == "area" else int  # the authors', or torchvision's
    resized = (size, rounded(size * longer / shorter))
    if image.width > image.height:
        resized = resized[::-1]
    _refuse_size(resized, f"{name}: {image.width}x{image.height} pixels, with its shorter side resized to {size}")
    return resize.resized(image, resized, way)


def warp(image: Image.Image, size: int, name: str, way: str = "bilinear") -> Image.Image:
    """Resize to a square of `size`, whatever the shape. Raises ImageError, calling the image `name`."""
    _refuse_size((size, size), f"{name}: resized")
    return resize.resized(image, (size, size), way)


def stored_as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """What is left of an image that was written as JPEG and read again."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert(image.mode)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The central `size` square, black where the image does not reach, placed as torchvision places it."""
    left, top = (crop_start(side, size) for side in image.size)
    return image.crop((left, top, left + size, top + size))


def crop_start(side: int, size: int) -> int:
    """Where the central `size` of `side` pixels begins; negative where it reaches beyond."""
    if side < size:
        return -((size - side) // 2)
    return round((side - size) / 2)  # half to even
