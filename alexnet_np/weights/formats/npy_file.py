""".npy: one array, or a dict of arrays that numpy.save pickled, as caffe-tensorflow hands out weights.

The pickle is read as data (pickled.py); the arrays are HWIO and (inputs, outputs), as TensorFlow has them:

    {"conv1": [weights, biases], ...}                        Guerzhoy's bvlc_alexnet.npy, pickled by Python 2
    {"conv1": {"weights": ..., "biases": ...}, ...}          caffe-tensorflow since February 2016

Source: ethereon/caffe-tensorflow, kaffe/transformers.py and kaffe/tensorflow/transformer.py.
"""

from __future__ import annotations

import io
from math import prod
from typing import Any

from alexnet_np.errors import WeightsError
from alexnet_np.weights.formats import npz_file, pickled
from alexnet_np.weights.formats.pickle_stream import Stream
from alexnet_np.weights.formats.torch_legacy import storage_in
from alexnet_np.weights.leaves import Contents, Holder, Leaf, Run, numbers
from alexnet_np.weights.source import Source

MAX_HEADER = 1 << 16  # bytes


def read(source: Source) -> Contents:
    """The arrays in a .npy. Raises WeightsError."""
    shape, fortran, dtype, start = npz_file.header(io.BytesIO(source.head(MAX_HEADER)), "the array")
    if not dtype.hasobject:
        return Contents(".npy of NumPy", _plain(source.part(start, source.size - start), shape, fortran, dtype))
    saved = pickled.load(Stream(source, start), storage_in=storage_in)
    tree = saved.content if type(saved) is Holder else saved
    if type(tree) is list and len(tree) == 1:  # an array without axes, of one object
        tree = tree[0]
    return Contents(".npy of pickled arrays", tree, layout="tensorflow" if _is_layered(tree) else "torch")


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


def _is_layered(tree: Any) -> bool:
    """Whether this is layer -> [weights, biases], or layer -> {"weights": ..., "biases": ...}."""
    if type(tree) is not dict or not tree:
        return False
    layers = [value for value in tree.values() if type(value) in (list, tuple, dict)]
    named = all(set(value) <= {"weights", "biases"} for value in layers if type(value) is dict)
    return len(layers) == len(tree) and named
