"""Weights that are in memory already: a dict of arrays, nested and prefixed as any file may be."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from alexnet_np.device import as_array
from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.leaves import Contents, Leaf


def contents_of(mapping: Mapping[Any, Any]) -> Contents:
    """What a mapping holds: arrays of NumPy, CuPy, torch (Parameters too) and whoever else lends their memory."""
    return Contents("a mapping in memory", _tree(mapping, set()))


def _tree(node: Any, within: set[int]) -> Any:
    if isinstance(node, (Mapping, list, tuple)):
        if id(node) in within:
            raise WeightsError("a mapping that contains itself")
        inside = within | {id(node)}
        if isinstance(node, Mapping):
            return {key: _tree(value, inside) for key, value in node.items()}
        return [_tree(value, inside) for value in node]
    if hasattr(node, "shape") and hasattr(node, "dtype") and not isinstance(node, np.generic):
        shape = tuple(int(n) for n in node.shape)
        return Leaf(shape, str(node.dtype).removeprefix("torch."), partial(_array, node), id(node), is_owned=False)
    return node


def _array(value: Any) -> Any:
    value = value.detach() if hasattr(value, "detach") else value  # torch's, which record what is done to them
    if str(value.dtype) == "torch.bfloat16":
        return as_array(value.float(), "weights")  # NumPy has none, and float32 holds each of its values
    array = as_array(value, "weights")
    if array.dtype.name == "bfloat16":  # of ml_dtypes, as JAX has it
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise WeightsError(f"holds an array of dtype {quoted(str(array.dtype))}, which is no number of a network")
    return array
