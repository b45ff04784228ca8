"""What a plan takes: float32 images as the model does, or bytes that it normalises to the very bits of `preprocess`."""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_np.data.preprocess import normalise
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.device import Array, as_array, beside, to_cpu
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError
from alexnet_np.layers import stand_in
from alexnet_np.models import AlexNet

Shape = tuple[int, ...]


def checked(model: AlexNet, x: Any, known: Shape = ()) -> tuple[Array, Shape]:
    """`x` as an array, wherever it lies, and its shape as (N,C,H,W).

    `x`: float32 (N,C,H,W), or uint8 (N,H,W,C) for a model whose preset has a recipe. `known`: a (C,H,W) that the model
    takes: asking all its layers takes a third of a millisecond. Raises ShapeError, DtypeError, ArgumentError.
    """
    x = as_array(x, "plan: x")
    shape = x.shape
    if x.dtype == np.uint8:
        C = model.in_channels
        if x.ndim != 4 or shape[3] != C:
            raise ShapeError(f"plan: bytes must be (N,H,W,{C}), got shape {shape}")
        channels = len(recipe(model).mean)
        if channels != C:
            raise ShapeError(f"plan: {model.preset!r} normalises {channels} channels, x has {C}")
        shape = (shape[0], C, shape[1], shape[2])
        if recipe(model).mean_image is not None:
            prepared = normalise(to_cpu(x), recipe(model), np.empty(shape, np.float32))
            x = beside(prepared, next(model.parameters()).data)
    elif x.dtype != np.float32:
        raise DtypeError(f"plan: x must be float32 (N,C,H,W) or uint8 (N,H,W,C), got {x.dtype}; x.astype('float32')")
    if shape[1:] != known or len(shape) != 4:
        model.check_input(stand_in(shape))
    return x, shape


def recipe(model: AlexNet) -> Preprocessing:
    """How the model normalises bytes. Raises ArgumentError where nobody knows."""
    known = model.described().preprocessing
    if known is None:
        raise ArgumentError(f"plan: no preprocessing is known for {model.preset!r}; give x as float32 (N,C,H,W)")
    return known


def table_of(model: AlexNet) -> np.ndarray:
    """(C,256) float32: what a byte becomes in each channel of the network's input."""
    found = recipe(model)
    bytes_ = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (1, 256, len(found.mean)))
    found = found._replace(mean_image=None)  # of which every place has its own: see `checked`
    return normalise(bytes_, found, np.empty((len(found.mean), 1, 256), np.float32)).reshape(-1, 256)


def default_size(model: AlexNet) -> int:
    """The side of the images that the preset is fed."""
    known = model.described().preprocessing
    return 224 if known is None else known.crop
