"""Networks that are called AlexNet or drawn beside it, and that no preset is: known by the shapes of their weights.

Their files are read as any others, under the names and in the layout that they have; what is loaded into a model is
refused with the network's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from alexnet_np.weights.layouts import LAYOUTS, torch_shape
from alexnet_np.weights.leaves import Shape


class Other(NamedTuple):
    """A network of somebody else's."""

    name: str
    differs: str  # from the presets, in words
    source: str
    shapes: tuple[Shape, ...]  # of its weights, (out, in, ...), the last layer's outputs left open


OTHERS = (
    Other(
        "TF-slim's alexnet_v2",
        "384 filters in conv 4, 5x5 maps before dense 6, no padding on conv 1",
        "tensorflow/models: research/slim/nets/alexnet.py",
        (
            *((64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3)),
            *((4096, 256 * 5 * 5), (4096, 4096), (0, 4096)),
        ),
    ),
    Other(
        "Caffe's LeNet",
        "20 and 50 filters, 500 units, max pooling",
        "BVLC/caffe: examples/mnist/lenet_train_test.prototxt",
        ((20, 1, 5, 5), (50, 20, 5, 5), (500, 50 * 4 * 4), (0, 500)),
    ),
)


def recognised(shapes: Sequence[Shape]) -> Other | None:
    """The network whose weights have these shapes, in torch's layout or another's; None where it is none of these."""
    for layout in LAYOUTS:
        turned = [torch_shape(shape, layout) for shape in shapes if len(shape) in (2, 4)]
        for other in OTHERS:
            if len(turned) == len(other.shapes) and all(map(_is, turned, other.shapes)):
                return other
    return None


def _is(shape: Shape, wanted: Shape) -> bool:
    """A dense layer may be a convolution over the whole map."""
    flat = (shape[0], prod(shape[1:])) if len(wanted) == 2 else shape
    return flat[1:] == wanted[1:] and wanted[0] in (0, flat[0])


def said_of(other: Other) -> str:
    return f"{other.name} ({other.differs}; {other.source}), which is no preset: anp.weights.read gives its numbers"
