"""Pictures that are arrays, and several at once: what `preprocess` takes beside one file or one PIL image."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from alexnet_np.device import as_array, to_cpu
from alexnet_np.errors import DtypeError, ImageError, ShapeError

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def several(images: Any) -> list[Any] | None:
    """The images in a list or in an array (N,...); None for a single one. Raises ImageError for none at all."""
    if isinstance(images, list | tuple):
        found = list(images)
    elif _is_array(images) and len(images.shape) == 4:
        found = list(to_cpu(as_array(images, "preprocess: the images")))
    else:
        return None
    if not found:
        raise ImageError("preprocess: no images; give it one at least")
    return found


def as_picture(image: Any) -> Any:
    """An array of bytes as a PIL image; anything else as it is.

    (H,W), (H,W,C) or (C,H,W), C being 1 (grey), 3 (RGB) or 4 (RGBA). Raises DtypeError, ShapeError.
    """
    if not _is_array(image):
        return image
    array = to_cpu(as_array(image, "preprocess: the image"))
    if array.dtype != np.uint8:
        remedy = "(255 * x).round().astype('uint8') if it is 0 to 1" if array.dtype.kind == "f" else "x.astype('uint8')"
        raise DtypeError(f"preprocess: an array of {array.dtype}; pictures are uint8, 0 to 255: {remedy}")
    if array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in CHANNELS:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS):
        raise ShapeError(f"preprocess: a picture is (H,W), (H,W,3) or (3,H,W), got shape {np.shape(image)}")
    if not array.size:
        raise ImageError(f"preprocess: a picture without pixels, of shape {np.shape(image)}; give it another")
    return Image.fromarray(np.ascontiguousarray(array))


def _is_array(image: Any) -> bool:
    return hasattr(image, "shape") and hasattr(image, "dtype")
