"""What happens to an image between the data set and the network, in training and in evaluation.

Each of these is called as `augment(pixels, u, out)`: uint8 pixels (H,W,C), its `draws` uniform random numbers, and the
row of the batch, of its `shape`, to write. With the same `u` the result is the same, so the seed alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image

from alexnet_np.data import draws
from alexnet_np.data.dataset import Dataset
from alexnet_np.data.preprocess import crop_start, normalise
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import ShapeError


class Augment(Protocol):
    draws: int

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __call__(self, pixels: np.ndarray, u: np.ndarray, out: np.ndarray) -> None: ...


@dataclass(frozen=True, eq=False)
class ColourNoise:
    """A random shift of an image's colour along the principal components of the training set's RGB values.

        shift = sum over i of  eigenvectors[:, i] * eigenvalues[i] * a[i],   a[i] ~ N(0, std²), once an image

    in units of pixels in 0..1. The trap: the paper's text multiplies by the eigenvalues of the covariance, but a shift
    in the units of a pixel needs the standard deviations along the components, their square roots; the authors' code
    draws N(0, stdev) * 0.1, and so does `of` here.
    Source: Krizhevsky et al. 2012, sec. 4.1.
    """

    eigenvalues: tuple[float, ...]
    eigenvectors: np.ndarray  # (3,3), a component a column
    std: float = 0.1

    @classmethod
    def of(cls, dataset: Dataset, images: int = 1000, seed: int = 0, std: float = 0.1) -> ColourNoise:
        """The components of a data set's own RGB values, from at most `images` images taken at random."""
        total, products, count = np.zeros(3), np.zeros((3, 3)), 0
        for index in draws.permutation(seed, draws.SAMPLE, 0, len(dataset.targets))[:images]:
            rgb = dataset.pixels(int(index)).reshape(-1, 3) / 255
            total += rgb.sum(0)
            products += rgb.T @ rgb
            count += len(rgb)
        mean = total / count
        variances, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
        deviations = np.sqrt(np.maximum(variances, 0))
        return cls(tuple(deviations[::-1].tolist()), vectors[:, ::-1], std)

    def shift(self, u: np.ndarray) -> np.ndarray:
        """(3,) for four uniform numbers: Box and Muller's transform makes them normal."""
        radius, angle = np.sqrt(-2 * np.log(1 - u[:2])), 2 * np.pi * u[2:4]
        normal = np.array([radius[0] * np.cos(angle[0]), radius[0] * np.sin(angle[0]), radius[1] * np.cos(angle[1])])
        return self.eigenvectors @ (normal * self.std * self.eigenvalues)


# ImageNet's components as widely used: the `pca` table of facebook/fb.resnet.torch, datasets/imagenet.lua.
IMAGENET_COLOUR = ColourNoise(
    (0.2175, 0.0188, 0.0045),
    np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]),
)


@dataclass(frozen=True)
class CenterCrop:
    """The central crop: evaluation. On images whose shorter side is `recipe.resize`, the numbers of `preprocess`."""

    recipe: Preprocessing
    draws = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.recipe.shape

    def __call__(self, pixels: np.ndarray, u: np.ndarray, out: np.ndarray) -> None:
        size = self.recipe.crop
        top, left = (crop_start(side, size) for side in check_size(pixels, size))
        normalise(pixels[top : top + size, left : left + size], self.recipe, out, (top, left))


@dataclass(frozen=True)
class RandomCrop:
    """The paper's training: a crop from anywhere, mirrored half the time, its colour shifted by `colour`, if given.

    `together`: so many images after one another in an epoch are cropped and mirrored alike, as the authors' code did
    with 32. `divisor`: what the result is divided by, theirs 1.1 where there was noise. `colour_epochs`: in how many
    epochs there is noise, None for all.
    Source: Krizhevsky et al. 2012, sec. 4.1; computerhistory/AlexNet-Source-Code, convdata_jpeg.py, crop_chunk.
    """

    recipe: Preprocessing
    mirror: bool = True
    colour: ColourNoise | None = None
    together: int = 1
    divisor: float = 1.0
    colour_epochs: int | None = None
    shared = 3  # of the draws below those that images which go together have in common: top, left, mirror
    draws = 7  # and four for the colour

    @property
    def shape(self) -> tuple[int, ...]:
        return self.recipe.shape

    def __call__(self, pixels: np.ndarray, u: np.ndarray, out: np.ndarray) -> None:
        size = self.recipe.crop
        H, W = check_size(pixels, size)
        top, left = int(u[0] * (H - size + 1)), int(u[1] * (W - size + 1))
        crop, mirrored = pixels[top : top + size, left : left + size], self.mirror and u[2] < 0.5
        normalise(crop[:, ::-1] if mirrored else crop, self.recipe, out, (top, left), mirrored)
        if self.colour is not None:
            rgb = self.colour.shift(u[3:]) * (255 / self.recipe.scale)
            shift = rgb[list(self.recipe.order)] / self.recipe.std
            out += shift.astype(out.dtype)[:, None, None]
        if self.divisor != 1:
            out /= out.dtype.type(self.divisor)

    def in_epoch(self, epoch: int) -> RandomCrop:
        """What is done in this epoch, counted from 0: without noise nothing is divided either, as in their code."""
        is_over = self.colour_epochs is not None and epoch >= self.colour_epochs
        return replace(self, colour=None, divisor=1.0) if is_over else self


@dataclass(frozen=True)
class TenCrop:
    """The paper's evaluation: the four corners and the centre, then those of the mirrored image; rows of (10,C,H,W).

    The prediction is the mean of the ten softmax outputs. The order is torchvision's `ten_crop`.
    Source: Krizhevsky et al. 2012, sec. 4.1.
    """

    recipe: Preprocessing
    draws = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return 10, *self.recipe.shape

    def __call__(self, pixels: np.ndarray, u: np.ndarray, out: np.ndarray) -> None:
        size = self.recipe.crop
        H, W = check_size(pixels, size)
        corners = [(0, 0), (0, W - size), (H - size, 0), (H - size, W - size)]
        for i, (top, left) in enumerate([*corners, (crop_start(H, size), crop_start(W, size))]):
            crop = pixels[top : top + size, left : left + size]
            normalise(crop, self.recipe, out[i], (top, left))
            mirrored = W - left - size  # torchvision's: the corner of the mirrored image, which was the other one
            crop = pixels[top : top + size, mirrored : mirrored + size]
            normalise(crop[:, ::-1], self.recipe, out[5 + i], (top, mirrored), mirrored=True)


@dataclass(frozen=True)
class Upsample:
    """A small image enlarged to the network's input, as d2l does with 28x28; mirrored half the time where asked."""

    recipe: Preprocessing
    mirror: bool = False
    draws = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self.recipe.shape

    def __call__(self, pixels: np.ndarray, u: np.ndarray, out: np.ndarray) -> None:
        mirrored = self.mirror and bool(u[0] < 0.5)
        pixels = upsample(pixels[:, ::-1] if mirrored else pixels, self.recipe.crop)
        normalise(pixels, self.recipe, out, (0, 0), mirrored)


def check_size(pixels: np.ndarray, size: int) -> tuple[int, int]:
    """The image's height and width, if a crop of `size` fits into it."""
    H, W = pixels.shape[:2]
    if min(H, W) < size:
        raise ShapeError(f"a crop of {size}x{size} does not fit into an image of {H}x{W}; use larger images")
    return H, W


def upsample(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H,W,C) resized to (size,size,C): the very integers of Pillow's bilinear resize.

    Where the factor is a power of two, Pillow's fixed-point weights are exact multiples of 1/(2*factor), and the sums
    can be done several times faster in small integers; any other factor goes through Pillow.
    """
    H, W = pixels.shape[:2]
    factor = size // H
    if H == W and H * factor == size and factor in (2, 4, 8, 16, 32):
        return _interpolate(_interpolate(pixels.swapaxes(0, 1), factor).swapaxes(0, 1), factor)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, -1)


def _interpolate(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Rows (n, ...) -> (n*factor, ...) int16 by linear interpolation, rounded half up, the edge rows repeated."""
    padded = np.concatenate([pixels[:1], pixels, pixels[-1:]]).astype(np.int16)
    weights = np.arange(1, 2 * factor, 2, dtype=np.int16).reshape(1, factor, *[1] * (pixels.ndim - 1))
    rows = np.diff(padded, axis=0)[:, None] * weights  # (n+1, factor, ...), parts of the steps between rows
    rows += (2 * factor * padded[:-1] + factor)[:, None]
    rows >>= (2 * factor).bit_length() - 1  # the division by 2*factor
    return rows.reshape(-1, *pixels.shape[1:])[factor // 2 : factor // 2 + factor * len(pixels)]
