""".npy: one array, or a dict of arrays that numpy.save pickled, as caffe-tensorflow hands out weights.

The pickle is read as data (pickled.py). Layers have their arrays in TensorFlow's layout, and get torch's here:

    {"conv1": [weights, biases], ...}                        Guerzhoy's bvlc_alexnet.npy, pickled by Python 2
    {"conv1": {"weights": ..., "biases": ...}, ...}          caffe-tensorflow since February 2016

Source: ethereon/caffe-tensorflow, kaffe/transformers.py and kaffe/tensorflow/transformer.py.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import prod
from typing import Any

from alexnet_np.errors import WeightsError
from alexnet_np.weights.finding import is_chain
from alexnet_np.weights.formats import npz_file, pickled
from alexnet_np.weights.formats.torch_legacy import storage_in
from alexnet_np.weights.layouts import layered, torch_shape
from alexnet_np.weights.leaves import Contents, Holder, Leaf, Run, numbers
from alexnet_np.weights.source import Source
from alexnet_np.weights.stream import Stream

MAX_HEADER = 1 << 16  # bytes


def read(source: Source) -> Contents:
    """The arrays in a .npy. Raises WeightsError."""
    shape, fortran, dtype, start = npz_file.header(io.BytesIO(source.head(MAX_HEADER)), "the array")
    if not dtype.hasobject:
        return Contents(".npy of NumPy", _plain(source.part(start, source.size - start), shape, fortran, dtype))
    saved = pickled.load(Stream(source, start), storage_in=storage_in)
    tree = _inside(saved)
    if type(tree) is list and len(tree) == 1:  # an array without axes, of one object
        tree = tree[0]
    layers = _layers(tree)
    if layers is None:
        return Contents(".npy of pickled arrays", tree)
    shapes = [weight.shape for weight, *_ in layers.values()]
    layout = "tensorflow" if is_chain([torch_shape(shape, "tensorflow") for shape in shapes]) else "torch"
    of_lists = type(_inside(next(iter(tree.values())))) is not dict
    kind = "lists of two, as Guerzhoy's bvlc_alexnet.npy" if of_lists else "weights and biases, of caffe-tensorflow"
    return Contents(f".npy of {kind}", layered(layers, layout))


def _plain(source: Source, shape: tuple[int, ...], fortran: bool, dtype: Any) -> Leaf:
    if dtype.kind not in "biuf":
        raise WeightsError(f"holds {dtype}, which are no numbers of a network")
    native = dtype.newbyteorder("=")
    nbytes = prod(shape) * dtype.itemsize
    if nbytes != source.size:
        raise WeightsError(f"damaged: claims {nbytes} bytes and has {source.size}")

    def array() -> Any:
        flat = numbers(Run(source, 0, nbytes).array(), native.name, dtype.byteorder == ">")
        return flat.reshape(shape, order="F" if fortran else "C")

    return Leaf(shape, native.name, array)


def _inside(node: Any) -> Any:
    return node.content if type(node) is Holder else node


def _layers(tree: Any) -> dict[str, Sequence[Leaf]] | None:
    """layer -> (weights, biases), where the dict is one of these two kinds."""
    if type(tree) is not dict or not tree:
        return None
    result: dict[str, Sequence[Leaf]] = {}
    for name, layer in tree.items():
        arrays = [layer.get("weights"), layer.get("biases")] if type(layer) is dict else _inside(layer)
        if type(arrays) is not list or len(arrays) != 2:
            return None
        weight, bias = map(_inside, arrays)
        if type(name) is not str or type(weight) is not Leaf or type(bias) is not Leaf or len(bias.shape) != 1:
            return None
        if len(weight.shape) not in (2, 4):
            return None
        result[name] = (weight, bias)
    return result
