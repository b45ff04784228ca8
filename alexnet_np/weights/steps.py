"""The layers of a network as plain data: what a file says of them, and what is written into one.

A .caffemodel, an ONNX graph, a .mat of MatConvNet and a checkpoint of cuda-convnet hold not only numbers but the order
of the layers and their constants, and only that tells apart networks whose weights have the same shapes. Readers give
it as a row of steps, a model describes itself as one, and the writers of such files take one: none of them knows the
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Pads = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


class Step(NamedTuple):
    """One layer.

    kind          settings
    conv          stride, padding (Pads), groups
    linear
    relu, tanh, sigmoid, flatten, softmax
    max_pool      kernel, stride, padding (Pads), ceil (the last window may hang over the edge); counts where a file
                  keeps fewer rows or columns than these give
    avg_pool      kernel, stride, padding (Pads), ceil; include_pad (the padding counts: by default), divisor (a number
                  in the place of what is counted, 0 where there is none)
    adaptive      output_size
    lrn           size, alpha, beta, k, convention, region ("across", "within"), groups
    dropout       p, scaling ("training": kept units are multiplied by 1/(1-p); "testing": all by 1-p)
    """

    kind: str
    name: str  # the layer's own; its arrays are NAME.weight and NAME.bias
    settings: Mapping[str, Any]


def step(kind: str, name: str = "", **settings: Any) -> Step:
    return Step(kind, name, settings)


def square(pads: int) -> Pads:
    return ((pads, pads), (pads, pads))


def order(steps: Sequence[Step]) -> list[str]:
    """The kinds that tell networks apart, in order: without dropout, flattening and softmax, which change no logit."""
    return [each.kind for each in steps if each.kind not in ("dropout", "flatten", "softmax", "adaptive")]


class Network(NamedTuple):
    """A network as plain data: what is written as another program's model, and what transforms.py changes."""

    title: str
    steps: tuple[Step, ...]
    arrays: Mapping[str, Any]  # NAME.weight and NAME.bias of every convolution and dense layer
    input: tuple[int, int, int]  # (C, H, W)
    metadata: Mapping[str, str]  # what is noted beside it


def output_size(step: Step, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of what a convolution or a pooling makes of maps of `size`. ceil counts a window that begins inside."""
    result = []
    windows = zip(size, kernel, step.settings["stride"], step.settings["padding"], strict=True)
    for side, n, over, (before, after) in windows:
        count, rest = divmod(side + before + after - n, over)
        if rest and step.settings.get("ceil") and (count + 1) * over < side + before:
            count += 1
        result.append(count + 1)
    counts = step.settings.get("counts", (None, None))
    return counts[0] or result[0], counts[1] or result[1]


METHODS = {  # of a Writer, by the kinds of steps
    "conv": "convolution",
    "linear": "dense",
    "max_pool": "pooling",
    "avg_pool": "pooling",
    "adaptive": "adaptive",
    "lrn": "norm",
    "flatten": "flatten",
    "dropout": "dropout",
}


class Writer:
    """Says a network in another program's words: a step at a time, by the method for its kind.

    `activation` takes every other kind, and refuses those that are none.
    """

    def add(self, each: Step) -> None:
        """What one step is there. Raises WeightsError for what that program cannot compute."""
        getattr(self, METHODS.get(each.kind, "activation"))(each)
