"""Weights, or a whole network, into a file: the ending of its name says in which format."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.device import as_array, to_cpu
from alexnet_np.errors import WeightsError, one_line
from alexnet_np.files import replacing
from alexnet_np.text import quoted
from alexnet_np.weights.steps import Network

ARRAYS = {".safetensors": "safetensors_file", ".npz": "npz_file", ".pth": "torch_write", ".pt": "torch_write"}
NETWORKS = (".onnx", ".caffemodel")


def write(
    path: str | os.PathLike[str],
    weights: Any,
    *,
    opset: int = 17,
    size: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a mapping name -> array, a model, or a network as plain data (weights/steps.py) to `path`.

    .safetensors, .npz and .pth (which torch.load reads, with weights_only too) hold arrays under names, a model's as in
    its state dict. .onnx and .caffemodel, with its .prototxt beside it, hold the whole network, and so take a model:
    weights alone do not say in which order it pools and normalises. For those `size` is the side of the input, by
    default what the network was made for, and `opset` ONNX's version, 13 to 20. With a model goes what it is, so that
    `anp.alexnet(None, weights=path)` is that network again: sizes, changes, classes' names, preprocessing; `metadata`:
    what is noted beside a mapping (weights/seal.py). An old file stays until the new one is whole.
    Raises WeightsError, MissingPackageError.
    """
    path = Path(path)
    if path.suffix not in (*ARRAYS, *NETWORKS):
        endings = ", ".join((*ARRAYS, *NETWORKS))
        raise WeightsError(f"{path}: weights are written as {endings}, by the ending of the name")
    network = _network(path, weights, size)
    try:
        if path.suffix in ARRAYS:
            arrays, noted = (weights, metadata) if network is None else (network.arrays, network.metadata)
            _write_arrays(path, {name: _numbers(name, value) for name, value in arrays.items()}, noted)
        else:
            assert network is not None
            _write_network(path, network, opset)
    except OSError as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: cannot be written: {error.strerror or one_line(error)}") from error


def _network(path: Path, weights: Any, size: int | None) -> Network | None:
    """What is to be written, as plain data; None where it is a mapping. Raises WeightsError."""
    if isinstance(weights, Network):
        return weights
    if isinstance(weights, Mapping):
        if path.suffix in NETWORKS:
            raise WeightsError(
                f"{path}: {path.suffix} holds a whole network, and weights alone do not say in which order it pools "
                "and normalises: give the model, anp.weights.write(path, model)"
            )
        return None
    if not hasattr(weights, "as_network"):
        raise WeightsError(f"{path}: a model or a mapping name -> array is written, not {type(weights).__name__}")
    return weights.as_network(size)


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None) -> None:
    writer = importlib.import_module(f"alexnet_np.weights.formats.{ARRAYS[path.suffix]}")
    with replacing(path) as temporary:
        writer.write(temporary, arrays, metadata or None)


def _write_network(path: Path, network: Network, opset: int) -> None:
    with replacing(path) as temporary:
        if path.suffix == ".onnx":
            from alexnet_np.weights.formats import onnx_write

            onnx_write.write(temporary, network, opset)
        else:
            from alexnet_np.weights.formats import caffe_write

            caffe_write.write(temporary, network, path.with_suffix(".prototxt"))


def _numbers(name: str, value: Any) -> np.ndarray:
    array = to_cpu(as_array(value, name))
    if array.dtype.kind not in "biuf":
        raise WeightsError(f"{quoted(name)} has dtype {array.dtype}, which is no number of a network")
    return array
